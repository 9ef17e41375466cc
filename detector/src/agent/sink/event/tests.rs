//! Sequences of happenings and answers, and what is written in between.

use rstest::rstest;
use serde_json::Value;

use super::*;
use crate::{
    agent::sink::report::{RecordId, Subject},
    contract::event::Reason,
};

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const BOOT: &str = "b0071d";
/// 2026-01-01T00:00:00Z.
const BOOTED_US: i64 = 1_767_225_600_000_000;

pub(super) fn pod(name: &str) -> Subject {
    Subject {
        namespace: Some("shop".to_owned()),
        pod: Some(name.to_owned()),
        pod_uid: Some(format!("uid-of-{name}")),
        container: Some("app".to_owned()),
        container_id: Some("8d1f6c2e9a7b".to_owned()),
        unit: None,
        cgroup: Some("/kubepods/x".to_owned()),
    }
}

pub(super) fn kill(sequence: u64, subject: Subject, at_ns: u64) -> KillReport {
    KillReport {
        id: RecordId { boot_id: BOOT.to_owned(), cpu: 1, sequence },
        time_us: BOOTED_US + i64::try_from(at_ns / 1000).unwrap(),
        boot_ns: at_ns,
        subject,
        process: "child".to_owned(),
        limit: "container".to_owned(),
        limit_bytes: Some(64 << 20),
        comm: Some("worker".to_owned()),
        pid: Some(4242),
        namespace_pid: Some(7),
        memory_bytes: Some(64_172_851),
        incident: sequence,
        victim: 1,
        group_kill: false,
    }
}

pub(super) fn hang(sequence: u64, subject: Subject, edge: HangEdge) -> HangReport {
    HangReport {
        id: RecordId { boot_id: BOOT.to_owned(), cpu: 1, sequence },
        time_us: BOOTED_US,
        boot_ns: SECOND,
        edge,
        hung_seconds: 120,
        subject,
        tid: Some(4243),
        pid: Some(4242),
        start_ns: Some(5),
        switches: Some(6),
        comm: Some("flush".to_owned()),
        leader_comm: Some("db".to_owned()),
        lock: Some("rwsem_writer".to_owned()),
        holder: Some((Some("ls".to_owned()), Some(99))),
        stack: ["schedule+0x1", "io_schedule+0x2"].map(str::to_owned).to_vec(),
    }
}

pub(super) fn identity() -> Identity {
    Identity { node: "node-a".to_owned(), node_uid: Some("uid-of-node".to_owned()) }
}

pub(super) fn queue() -> Events {
    Events::new(config::Events::default(), identity(), BOOT)
}

pub(super) fn write(events: &mut Events, now_ns: u64) -> EventWrite {
    match events.next(now_ns) {
        Next::Write(write) => write,
        other => panic!("a write is due, not {other:?}"),
    }
}

/// Writes what is due and says that it stands.
pub(super) fn written(events: &mut Events, now_ns: u64) -> EventWrite {
    let write = write(events, now_ns);
    events.done(&done(), now_ns);
    write
}

fn pretty(body: &Value) -> String {
    serde_json::to_string_pretty(body).expect("JSON")
}

fn note(events: &mut Events) -> String {
    written(events, SECOND).body["note"].as_str().expect("a note").to_owned()
}

pub(super) fn done() -> Answer {
    Answer { status: Some(200), outcome: Outcome::Done }
}

pub(super) fn already_there() -> Answer {
    Answer { status: Some(409), outcome: Outcome::AlreadyThere }
}

pub(super) fn gone() -> Answer {
    Answer { status: Some(404), outcome: Outcome::Gone("not found".to_owned()) }
}

/// A failure for the moment; `None`: no answer.
pub(super) fn failed(status: impl Into<Option<u16>>) -> Answer {
    Answer { status: status.into(), outcome: Outcome::Retry { after: None, reason: "busy".to_owned() } }
}

/// "Too many requests", and when to come back.
fn busy_for(seconds: u64) -> Answer {
    let after = Some(Duration::from_secs(seconds));
    Answer { status: Some(429), outcome: Outcome::Retry { after, reason: "busy".to_owned() } }
}

/// The time that the queue wants to be asked at.
pub(super) fn waits(events: &mut Events, now_ns: u64) -> u64 {
    match events.next(now_ns) {
        Next::At(at) => at,
        other => panic!("the queue waits, not {other:?}"),
    }
}

#[test]
fn a_kill_becomes_an_event_at_once() {
    let mut events = queue();
    events.kill(&kill(17, pod("cart"), 90 * SECOND + 1_234_000), 90 * SECOND);
    let write = written(&mut events, 90 * SECOND);
    assert_eq!(write.path(), "/apis/events.k8s.io/v1/namespaces/shop/events");
    insta::assert_snapshot!(pretty(&write.body), @r#"
    {
      "action": "KilledByKernel",
      "apiVersion": "events.k8s.io/v1",
      "eventTime": "2026-01-01T00:01:30.001234Z",
      "kind": "Event",
      "metadata": {
        "name": "cart.548536fafc3219a0",
        "namespace": "shop"
      },
      "note": "The kernel's OOM killer killed the process worker (pid 4242, 7 inside, using 61.2Mi) of container app, because the container reached its own limit of 64Mi. The container itself lives on.",
      "reason": "ProcessOOMKilled",
      "regarding": {
        "apiVersion": "v1",
        "fieldPath": "spec.containers{app}",
        "kind": "Pod",
        "name": "cart",
        "namespace": "shop",
        "uid": "uid-of-cart"
      },
      "reportingController": "detector.dev/agent",
      "reportingInstance": "node-a",
      "type": "Warning"
    }
    "#);
    assert_eq!(events.next(91 * SECOND), Next::Nothing);
}

#[test]
fn happenings_of_one_kind_to_one_container_become_a_series() {
    let mut events = queue();
    events.kill(&kill(1, pod("cart"), SECOND), SECOND);
    let first = written(&mut events, SECOND);
    for sequence in 2..=5 {
        events.kill(&kill(sequence, pod("cart"), sequence * SECOND), 2 * SECOND);
    }
    assert_eq!(events.next(2 * SECOND), Next::At(3 * SECOND), "what else happens is waited for");
    let update = written(&mut events, 3 * SECOND);
    assert_eq!(update.path(), format!("/apis/events.k8s.io/v1/namespaces/shop/events/{}", first.name));
    insta::assert_snapshot!(pretty(&update.body), @r#"
    {
      "series": {
        "count": 5,
        "lastObservedTime": "2026-01-01T00:00:05.000000Z"
      }
    }
    "#);
    assert_eq!(events.next(9 * SECOND), Next::Nothing);
    assert_eq!(events.counts().coalesced, 4);
}

#[test]
fn a_series_ends_when_nothing_happened_for_its_time() {
    let mut events = queue();
    events.kill(&kill(1, pod("cart"), SECOND), SECOND);
    let first = written(&mut events, SECOND);
    events.kill(&kill(2, pod("cart"), 602 * SECOND), 602 * SECOND);
    let second = written(&mut events, 602 * SECOND);
    assert_eq!(second.action, Action::Create);
    assert_ne!(first.name, second.name);
    assert_eq!(second.body["series"], Value::Null);
}

#[test]
fn victims_of_a_group_kill_are_one_event() {
    let mut events = queue();
    for sequence in 1..=8 {
        let mut victim = kill(sequence, pod("cart"), SECOND);
        (victim.incident, victim.group_kill, victim.pid) = (3, true, u32::try_from(sequence).ok());
        events.kill(&victim, SECOND + sequence);
    }
    let complete = SECOND + 8 + 250_000_000;
    assert_eq!(events.next(SECOND + 8), Next::At(complete));
    assert_eq!(events.next(complete - 1), Next::At(complete));
    let write = written(&mut events, complete);
    assert_eq!(write.body["reason"], "ContainerOOMKilled");
    assert_eq!(write.body["series"], Value::Null);
    let note = write.body["note"].as_str().expect("a note");
    assert!(note.contains("killed 8 processes of container app at once"), "{note}");
    assert!(note.contains("worker (pid 5, 7 inside, using 61.2Mi) and 3 more"), "{note}");
    let mut late = kill(9, pod("cart"), SECOND);
    (late.incident, late.group_kill) = (3, true);
    events.kill(&late, 2 * SECOND);
    assert_eq!(events.next(9 * SECOND), Next::Nothing, "a late victim is no kill of its own");
}

#[test]
fn a_name_that_is_taken_is_an_event_of_ours_whose_count_is_then_set() {
    let mut events = queue();
    events.kill(&kill(1, pod("cart"), SECOND), SECOND);
    write(&mut events, SECOND);
    events.kill(&kill(2, pod("cart"), SECOND), SECOND);
    events.done(&already_there(), SECOND);
    let update = written(&mut events, 2 * SECOND);
    assert_eq!((update.action, &update.body["series"]["count"]), (Action::Update, &Value::from(2)));
    assert_eq!(events.next(9 * SECOND), Next::Nothing);
}

#[test]
fn an_event_that_expired_is_made_anew_with_its_whole_count() {
    let mut events = queue();
    events.kill(&kill(1, pod("cart"), SECOND), SECOND);
    let first = written(&mut events, SECOND);
    events.kill(&kill(2, pod("cart"), 2 * SECOND), 2 * SECOND);
    assert_eq!(write(&mut events, 3 * SECOND).action, Action::Update);
    events.done(&gone(), 3 * SECOND);
    let anew = written(&mut events, 4 * SECOND);
    assert_eq!((anew.action, &anew.name), (Action::Create, &first.name));
    assert_eq!(anew.body["series"]["count"], 2);
}

#[test]
fn what_is_refused_for_good_is_counted_and_not_asked_again() {
    let mut events = queue();
    events.kill(&kill(1, pod("cart"), SECOND), SECOND);
    write(&mut events, SECOND);
    events.done(&Answer { status: Some(422), outcome: Outcome::Final("invalid".to_owned()) }, SECOND);
    assert_eq!(events.next(SECOND), Next::Nothing);
    assert_eq!(events.counts(), Counts { dropped: 1, ..Counts::default() });
}

#[test]
fn a_server_that_asks_for_patience_gets_it_and_then_everything() {
    let mut events = queue();
    events.kill(&kill(1, pod("cart"), SECOND), SECOND);
    write(&mut events, SECOND);
    events.done(&busy_for(30), SECOND);
    events.kill(&kill(2, pod("shop"), 2 * SECOND), 2 * SECOND);
    let at = waits(&mut events, 2 * SECOND);
    assert!((31 * SECOND..46 * SECOND).contains(&at), "the whole queue waits: {at}");
    let mut names = [written(&mut events, at), written(&mut events, at)].map(|write| write.name);
    names.sort();
    assert!(names[0].starts_with("cart.") && names[1].starts_with("shop."), "{names:?}");
    assert_eq!(events.next(at), Next::Nothing);
}

#[test]
fn a_namespace_that_is_gone_loses_its_events_and_that_is_no_error() {
    let mut events = queue();
    events.kill(&kill(1, pod("cart"), SECOND), SECOND);
    write(&mut events, SECOND);
    events.done(&gone(), SECOND);
    assert_eq!(events.next(SECOND), Next::Nothing);
    assert_eq!(events.counts(), Counts::default());
}

#[test]
fn the_state_to_be_saved_changes_with_each_write_that_ended_and_not_with_a_failure() {
    let mut events = queue();
    events.kill(&kill(1, pod("cart"), SECOND), SECOND);
    let mut now = SECOND;
    let mut revisions = Vec::new();
    for answer in [failed(None), already_there(), done(), gone(), done()] {
        events.kill(&kill(now, pod("cart"), now), now);
        while let Next::At(at) = events.next(now) {
            now = at;
        }
        events.done(&answer, now);
        revisions.push(events.revision());
        now += SECOND;
    }
    assert_eq!(revisions, [0, 1, 2, 3, 4]);
}

#[test]
fn a_restart_goes_on_where_the_run_before_ended() {
    let mut events = queue();
    events.kill(&kill(1, pod("cart"), SECOND), SECOND);
    let sent = write(&mut events, SECOND);
    events.kill(&kill(2, pod("cart"), SECOND), SECOND);
    let text = serde_json::to_string(&events.snapshot()).expect("a snapshot is JSON");
    let snapshot = serde_json::from_str(&text).expect("and is read again");
    let mut events = Events::restore(config::Events::default(), identity(), BOOT, snapshot, 5 * SECOND);
    events.kill(&kill(2, pod("cart"), SECOND), 5 * SECOND);
    assert_eq!(events.counts().duplicates, 1, "what the ring tells again counts once");
    let again = write(&mut events, 5 * SECOND);
    assert_eq!((again.action, &again.name), (Action::Create, &sent.name));
    assert_eq!(again.body["series"]["count"], 2);
    events.done(&already_there(), 5 * SECOND);
    assert_eq!(written(&mut events, 6 * SECOND).body["series"]["count"], 2);
    assert_eq!(events.next(7 * SECOND), Next::Nothing);
}

#[test]
fn what_cannot_be_remembered_one_by_one_is_told_together() {
    let mut events = queue();
    let pods = SERIES as u64 + 30;
    for sequence in 1..=pods {
        events.kill(&kill(sequence, pod(&format!("pod-{sequence}")), SECOND), SECOND);
    }
    assert_eq!(events.counts().series, SERIES as u64);
    let write = written(&mut events, SECOND);
    assert_eq!((write.reason, write.namespace.as_str()), (Reason::FurtherProblems, "default"));
    assert_eq!(write.body["regarding"]["kind"], "Node");
    assert_eq!(write.body["series"]["count"], 30);
    let note = write.body["note"].as_str().expect("a note");
    assert!(note.starts_with("30 further OOM kills in 30 pods"), "{note}");
    assert_eq!(events.counts().waiting, SERIES as u64);
}

#[rstest]
#[case::node("node", None, "because the node ran out of memory.")]
#[case::pod("pod", Some(96 << 20), "because the pod reached the pod's limit of 96Mi.")]
#[case::container("container", Some(1536 << 20), "because the container reached its own limit of 1.5Gi.")]
#[case::ancestor("ancestor", Some(1 << 30), "because a limit of 1Gi above the pod was reached, which several pods share.")]
#[case::unknown("unknown", None, "because a memory limit was reached (which one is not known).")]
fn a_note_says_whose_limit(#[case] limit: &str, #[case] bytes: Option<u64>, #[case] words: &str) {
    let mut events = queue();
    events.kill(&KillReport { limit: limit.to_owned(), limit_bytes: bytes, ..kill(1, pod("cart"), SECOND) }, SECOND);
    let note = note(&mut events);
    assert!(note.contains(words), "{note}");
}

#[test]
fn a_container_whose_main_process_died_ended() {
    let mut events = queue();
    events.kill(&KillReport { process: "init".to_owned(), ..kill(1, pod("cart"), SECOND) }, SECOND);
    let write = written(&mut events, SECOND);
    assert_eq!(write.body["reason"], "ContainerOOMKilled");
}

#[test]
fn a_pod_without_names_is_told_about_the_node() {
    let mut events = queue();
    let subject = Subject { namespace: None, pod: None, container: None, ..pod("cart") };
    events.kill(&kill(1, subject, SECOND), SECOND);
    let write = written(&mut events, SECOND);
    assert_eq!((write.namespace.as_str(), &write.body["regarding"]["kind"]), ("default", &Value::from("Node")));
    assert_eq!(write.body["regarding"]["uid"], "uid-of-node");
    let note = write.body["note"].as_str().expect("a note");
    assert!(note.contains("of container 8d1f6c2e9a7b in the pod with uid uid-of-cart"), "{note}");
}

#[rstest]
#[case::up("../../../api/v1/namespaces/kube-system", "cart")]
#[case::blank("sh op", "cart")]
#[case::query("shop", "cart?x=")]
#[case::empty("", "cart")]
fn names_that_are_none_never_become_part_of_a_path(#[case] namespace: &str, #[case] name: &str) {
    let mut events = queue();
    let subject = Subject { namespace: Some(namespace.to_owned()), pod: Some(name.to_owned()), ..pod("x") };
    events.kill(&kill(1, subject, SECOND), SECOND);
    let write = written(&mut events, SECOND);
    assert_eq!(write.path(), "/apis/events.k8s.io/v1/namespaces/default/events");
}

#[test]
fn a_unit_of_the_machine_is_told_about_the_node() {
    let mut events = queue();
    let subject = Subject { unit: Some("ssh.service".to_owned()), cgroup: Some("/x".to_owned()), ..Subject::default() };
    events.kill(&KillReport { limit: "node".to_owned(), ..kill(1, subject, SECOND) }, SECOND);
    let note = note(&mut events);
    assert!(note.contains("of unit ssh.service, because the node ran out of memory"), "{note}");
}

#[test]
fn a_hang_is_told_when_it_begins_and_not_when_it_goes_on_or_ends() {
    let mut events = queue();
    for (sequence, edge) in [HangEdge::Sustained, HangEdge::Ran, HangEdge::Exited].into_iter().enumerate() {
        events.hang(&hang(sequence as u64, pod("db"), edge), SECOND);
    }
    assert_eq!(events.next(SECOND), Next::Nothing);
    events.hang(&hang(9, pod("db"), HangEdge::Raised), SECOND);
    let write = written(&mut events, SECOND);
    assert_eq!(
        (&write.body["reason"], &write.body["action"]),
        (&Value::from("TaskHung"), &Value::from("HungInKernel"))
    );
    assert_eq!(
        write.body["note"],
        "The task flush (thread 4243 of process 4242 db) of container app hangs in the kernel for at least 120 s, waiting \
         for a read-write semaphore (to write) held by ls (pid 99). Innermost functions: schedule+0x1, io_schedule+0x2."
    );
}

#[test]
fn a_note_is_harmless_and_no_longer_than_the_api_takes() {
    let mut events = queue();
    let mut report = kill(1, pod("cart"), SECOND);
    report.comm = Some("a\u{202e}b\nc".to_owned());
    report.subject.container = Some("ü".repeat(2000));
    events.kill(&report, SECOND);
    let note = note(&mut events);
    assert!(note.contains("a\u{fffd}b\u{fffd}c"), "{note}");
    assert!((1020..=1024).contains(&note.len()) && note.ends_with('…'), "{}", note.len());
}

#[rstest]
#[case::usual("cart-7d9c6b5f4-x2v8k", "cart-7d9c6b5f4-x2v8k.000000000000000f")]
#[case::dots("a..b.-c-.", "a.b.c.000000000000000f")]
#[case::foreign("Ärger/../x", "rger.x.000000000000000f")]
#[case::nothing("", "000000000000000f")]
fn names_of_events_are_valid(#[case] subject: &str, #[case] name: &str) {
    assert_eq!(object::name(subject, 15), name);
}

#[test]
fn a_long_name_is_cut_to_what_the_api_takes() {
    let name = object::name(&format!("{}.x", "a".repeat(235)), 15);
    assert_eq!(name, format!("{}.000000000000000f", "a".repeat(235)));
    assert_eq!(object::name(&"a".repeat(300), 15).len(), 253);
}

#[test]
fn nothing_is_written_where_events_are_switched_off() {
    let mut events = Events::new(config::Events { enabled: false, ..config::Events::default() }, identity(), BOOT);
    events.kill(&kill(1, pod("cart"), SECOND), SECOND);
    assert_eq!(events.next(SECOND), Next::Nothing);
}
