//! What is held, what lets it go, and in which order.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::agent::{
    locate::{Container, Owner, Place, Pod, Qos, Runtime},
    sink::report::RecordId,
};

const SECOND: u64 = 1_000_000_000;
const LIMIT: Duration = Duration::from_secs(30);
const UID: &str = "0d6dfc9d-3f4b-4c55-8a6b-2a0a6f4f4d11";

/// Container `container` of pod `pod`, whose cgroup tells the uid.
fn subject(pod: u64, container: Option<u64>, named: bool) -> Subject {
    let uid = format!("{pod:08x}{}", &UID[8..]);
    let id = container.map(|number| format!("{number:064x}"));
    let path = format!("/kubepods/pod{uid}");
    Subject {
        namespace: named.then(|| "shop".to_owned()),
        pod: named.then(|| format!("web-{pod}")),
        container: container.filter(|_| named).map(|number| format!("app-{number}")),
        cgroup: Some(id.as_ref().map_or(path.clone(), |id| format!("{path}/{id}"))),
        container_id: id,
        pod_uid: Some(uid),
        unit: None,
    }
}

fn kill(number: u64, boot_ns: u64, subject: Subject) -> Report {
    Report::Kill(KillReport {
        id: RecordId { boot_id: "boot".to_owned(), cpu: 0, sequence: number },
        time_us: 0,
        boot_ns,
        subject,
        process: "child".to_owned(),
        limit: "container".to_owned(),
        limit_bytes: None,
        comm: None,
        pid: None,
        namespace_pid: None,
        memory_bytes: None,
        incident: number,
        victim: 1,
        group_kill: false,
    })
}

fn numbers(reports: &[Report]) -> Vec<u64> {
    let number = |report: &Report| match report {
        Report::Kill(kill) => kill.id.sequence,
        Report::Hang(hang) => hang.id.sequence,
    };
    reports.iter().map(number).collect()
}

/// What the locator tells once the names of a container are known; `pod_name: false`: the container's alone.
fn seen(pod: u64, container: u64) -> ContainerChange {
    let told = subject(pod, Some(container), true);
    ContainerChange::Seen(Arc::new(Place {
        path: told.cgroup.unwrap().into(),
        owner: Owner::Container(Container {
            runtime: Runtime::Unknown,
            id: told.container_id.unwrap(),
            level: 3,
            name: told.container,
            init_pid: None,
            pod: Some(Pod {
                uid: told.pod_uid.unwrap(),
                qos: Qos::Guaranteed,
                level: 2,
                namespace: told.namespace,
                name: told.pod,
            }),
        }),
    }))
}

#[test]
fn what_has_its_names_or_needs_none_leaves_at_once() {
    let mut hold = Hold::new(LIMIT);
    assert_eq!(numbers(&hold.take(kill(1, SECOND, subject(1, Some(1), true)), SECOND)), [1]);
    let unit = Subject { unit: Some("ssh.service".to_owned()), ..Subject::default() };
    assert_eq!(numbers(&hold.take(kill(2, SECOND, unit), SECOND)), [2]);
    assert_eq!((hold.next_due(), hold.counts()), (None, HoldCounts::default()));
}

#[test]
fn names_that_come_let_the_container_go_and_are_filled_in() {
    let mut hold = Hold::new(LIMIT);
    assert_eq!(hold.take(kill(1, SECOND, subject(1, Some(1), false)), SECOND), []);
    assert_eq!(hold.hear(&seen(2, 2), 2 * SECOND), []);
    let out = hold.hear(&seen(1, 1), 2 * SECOND);
    assert_eq!(out, [kill(1, SECOND, subject(1, Some(1), true))]);
    assert_eq!((hold.len(), hold.counts().named, hold.counts().nameless), (0, 1, 0));
}

#[test]
fn a_pods_own_report_is_named_by_any_of_its_containers() {
    let mut hold = Hold::new(LIMIT);
    assert_eq!(hold.take(kill(1, SECOND, subject(1, None, false)), SECOND), []);
    assert_eq!(hold.hear(&seen(1, 7), SECOND), [kill(1, SECOND, subject(1, None, true))]);
}

#[test]
fn a_pods_name_alone_is_filled_in_but_the_containers_is_waited_for() {
    let mut hold = Hold::new(LIMIT);
    assert_eq!(hold.take(kill(1, SECOND, subject(1, Some(1), false)), SECOND), []);
    assert_eq!(hold.hear(&seen(1, 7), SECOND), []);
    assert_eq!(hold.next_due(), Some(31 * SECOND));
    let out = hold.due(31 * SECOND);
    assert_eq!(out, [kill(1, SECOND, Subject { container: None, ..subject(1, Some(1), true) })]);
    assert_eq!(hold.counts().nameless, 1);
}

#[test]
fn a_static_pod_that_the_api_knows_under_another_uid_is_matched_by_its_path() {
    let mut hold = Hold::new(LIMIT);
    assert_eq!(hold.take(kill(1, SECOND, subject(1, Some(1), false)), SECOND), []);
    let ContainerChange::Seen(place) = seen(1, 7) else { unreachable!("made as such") };
    let mut place = Arc::unwrap_or_clone(place);
    if let Owner::Container(Container { pod: Some(pod), .. }) = &mut place.owner {
        pod.uid = "of-the-api".to_owned();
    }
    assert_eq!(hold.hear(&ContainerChange::Seen(Arc::new(place)), SECOND), []);
    let out = hold.due(31 * SECOND);
    assert_eq!(out[0].subject().pod_uid.as_deref(), Some("of-the-api"));
}

#[test]
fn when_time_is_over_it_leaves_as_it_is() {
    let mut hold = Hold::new(LIMIT);
    assert_eq!(hold.take(kill(1, SECOND, subject(1, Some(1), false)), 2 * SECOND), []);
    assert_eq!(hold.due(31 * SECOND - 1), []);
    assert_eq!(numbers(&hold.due(31 * SECOND)), [1]);
}

#[test]
fn what_comes_late_waits_a_moment_from_its_coming() {
    let mut hold = Hold::new(LIMIT);
    assert_eq!(hold.take(kill(1, SECOND, subject(1, Some(1), false)), 500 * SECOND), []);
    assert_eq!(hold.next_due(), Some(500 * SECOND + LATE_GRACE_NS));
}

#[test]
fn without_a_hold_nothing_waits() {
    let mut hold = Hold::new(Duration::ZERO);
    assert_eq!(numbers(&hold.take(kill(1, SECOND, subject(1, Some(1), false)), SECOND)), [1]);
}

#[test]
fn a_later_report_with_names_names_the_earlier_and_does_not_overtake_it() {
    let mut hold = Hold::new(LIMIT);
    assert_eq!(hold.take(kill(1, SECOND, subject(1, Some(1), false)), SECOND), []);
    let out = hold.take(kill(2, 2 * SECOND, subject(1, Some(1), true)), 2 * SECOND);
    assert_eq!(numbers(&out), [1, 2]);
    assert!(!out[0].subject().lacks_names());
}

#[test]
fn beyond_the_capacity_the_oldest_goes_without_names_and_is_counted() {
    let mut hold = Hold::new(LIMIT);
    for number in 0..HOLD_CAPACITY as u64 {
        assert_eq!(hold.take(kill(number, SECOND, subject(number, Some(number), false)), SECOND), []);
    }
    assert_eq!(numbers(&hold.take(kill(9999, SECOND, subject(9999, Some(9999), false)), SECOND)), [0]);
    assert_eq!((hold.len(), hold.counts().crowded_out), (HOLD_CAPACITY, 1));
}

#[test]
fn what_waited_is_restored_and_what_is_of_another_boot_leaves() {
    let mut hold = Hold::new(LIMIT);
    for number in 1..3 {
        assert_eq!(hold.take(kill(number, SECOND, subject(1, Some(1), false)), SECOND), []);
    }
    let written = serde_json::to_string(&hold.snapshot()).unwrap();
    let snapshot: HoldSnapshot = serde_json::from_str(&written).unwrap();
    let mut again = Hold::new(LIMIT);
    assert_eq!(again.restore(snapshot.clone(), "boot", 40 * SECOND), []);
    assert_eq!((again.len(), again.next_due()), (2, Some(40 * SECOND + LATE_GRACE_NS)));
    assert_eq!(again.subjects().count(), 2);
    assert_eq!(numbers(&Hold::new(LIMIT).restore(snapshot, "other", SECOND)), [1, 2]);
}

#[derive(Clone, Debug)]
enum Step {
    Report { container: u64, named: bool, age_ns: u64 },
    Pod { container: u64 },
    Names { container: u64 },
    Wait(u64),
    Restart,
}

/// Containers 0 to 5 in pods 0 to 2.
fn pod_of_number(container: u64) -> u64 {
    container / 2
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..6_u64, prop::bool::weighted(0.2), 0..60 * SECOND)
            .prop_map(|(container, named, age_ns)| Step::Report { container, named, age_ns }),
        1 => (0..6_u64).prop_map(|container| Step::Pod { container }),
        1 => (0..6_u64).prop_map(|container| Step::Names { container }),
        3 => (0..20 * SECOND).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..120)
}

/// What went in and came out, with the times.
#[derive(Default)]
struct Ledger {
    /// Number, container, latest time to leave.
    into: Vec<(u64, Option<u64>, u64)>,
    out: Vec<(u64, u64)>,
}

impl Ledger {
    fn leave(&mut self, reports: &[Report], now: u64) {
        self.out.extend(numbers(reports).into_iter().map(|number| (number, now)));
    }
}

proptest! {
    #[test]
    fn each_report_leaves_once_in_time_and_in_the_order_of_its_container(steps in steps()) {
        let (mut hold, mut ledger, mut now) = (Hold::new(LIMIT), Ledger::default(), 1000 * SECOND);
        let limit_ns = 30 * SECOND;
        // What a restart gives those that wait.
        let mut graced = 0;
        for step in steps {
            match step {
                Step::Report { container, named, age_ns } => {
                    let number = ledger.into.len() as u64;
                    let boot_ns = now - age_ns;
                    ledger.into.push((number, Some(container), (boot_ns + limit_ns).max(now + LATE_GRACE_NS)));
                    let report = kill(number, boot_ns, subject(pod_of_number(container), Some(container), named));
                    ledger.leave(&hold.take(report, now), now);
                }
                Step::Pod { container } => {
                    let number = ledger.into.len() as u64;
                    ledger.into.push((number, None, now + limit_ns));
                    let report = kill(number, now, subject(pod_of_number(container), None, false));
                    ledger.leave(&hold.take(report, now), now);
                }
                Step::Names { container } => {
                    ledger.leave(&hold.hear(&seen(pod_of_number(container), container), now), now);
                }
                Step::Wait(span) => {
                    let end = now + span;
                    while let Some(due) = hold.next_due().filter(|due| *due <= end) {
                        now = due.max(now);
                        let out = hold.due(now);
                        prop_assert!(!out.is_empty());
                        ledger.leave(&out, now);
                    }
                    now = end;
                }
                Step::Restart => {
                    let mut next = Hold::new(LIMIT);
                    graced = now + LATE_GRACE_NS;
                    ledger.leave(&next.restore(hold.snapshot(), "boot", now), now);
                    hold = next;
                }
            }
            prop_assert_eq!(ledger.out.len() + hold.len(), ledger.into.len());
        }
        ledger.leave(&hold.release_all(), now);
        let mut left: Vec<u64> = ledger.out.iter().map(|(number, _)| *number).collect();
        for container in 0..6 {
            let of = |number: &&u64| ledger.into[**number as usize].1 == Some(container);
            prop_assert!(left.iter().filter(of).is_sorted());
        }
        for (number, at) in &ledger.out {
            prop_assert!(*at <= ledger.into[*number as usize].2.max(graced));
        }
        left.sort_unstable();
        prop_assert_eq!(left, (0..ledger.into.len() as u64).collect::<Vec<_>>());
    }
}
