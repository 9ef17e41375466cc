//! Logs of real kernels as a whole (`tests/fixtures/kmsg`), and single lines by situation.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::agent::decode::{
    event::Comm,
    kernel_log::{self, LoggedMemory},
};

/// The recorded guests were young; their logs are read as if they had been up for long.
const AGE_US: u64 = 1_000_000_000;

/// A log of `tests/fixtures/kmsg`.
macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../../../../tests/fixtures/kmsg/", $name)).as_slice()
    };
}

/// Records of a file; lines that begin with a space belong to the one before.
fn records(file: &[u8]) -> Vec<Vec<u8>> {
    let mut records: Vec<Vec<u8>> = Vec::new();
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        match records.last_mut() {
            Some(last) if line.starts_with(b" ") => last.extend_from_slice(line),
            _ => records.push(line.to_vec()),
        }
    }
    records
}

fn replay(file: &[u8]) -> Vec<LoggedKill> {
    let mut joiner = OomLog::new(4096, AGE_US * 500);
    let mut kills = Vec::new();
    for record in records(file) {
        let line = kernel_log::parse(&record).expect("a record");
        let time_us = line.time_us + AGE_US;
        let at = At { sequence: line.sequence, time_us, boot_ns: time_us * 1000 };
        kills.extend(joiner.release(at.boot_ns));
        if let Some(event) = line.event() {
            kills.extend(joiner.push(event, at));
        }
    }
    kills.extend(joiner.finish());
    kills
}

fn pids(kills: &[LoggedKill]) -> HashSet<u32> {
    kills.iter().filter_map(|kill| kill.mark.victim.pid).collect()
}

fn decisions(kills: &[LoggedKill]) -> usize {
    kills.iter().map(|kill| kill.decision).collect::<HashSet<_>>().len()
}

#[test]
fn a_single_kill_is_told_with_all_that_the_log_knows() {
    let kills = replay(recorded!("single-child-6.18.log"));
    let [kill] = kills.as_slice() else { panic!("{kills:?}") };
    let victim = &kill.mark.victim;
    assert_eq!(
        (victim.tgid, victim.pid, victim.uid, victim.oom_score_adj),
        (Some(10912), Some(10912), Some(0), Some(0))
    );
    let memory = victim.memory.expect("told");
    assert_eq!((memory.anon, memory.file, memory.shmem, memory.swap), (16_396 / 4, 568 / 4, 0, None));
    assert_eq!(victim.page_table_bytes, Some(80 << 10));
    assert_eq!(kill.cgroup_path.as_deref(), Some("/kmsg-single"));
    assert_eq!(kill.domain, LoggedDomain::Cgroup(Arc::from("/kmsg-single")));
    assert_eq!((kill.mark.stamp.sequence, kill.mark.stamp.cpu), (191_998, CPU_UNTOLD));
}

#[test]
fn in_a_burst_all_processes_are_told_but_only_ten_cgroups() {
    let kills = replay(recorded!("burst-6.18.log"));
    assert_eq!((kills.len(), pids(&kills).len(), decisions(&kills)), (200, 200, 200));
    assert_eq!(kills.iter().filter(|kill| kill.cgroup_path.is_some()).count(), 10);
    let told = |kill: &&LoggedKill| kill.cgroup_path.is_some() == (kill.domain != LoggedDomain::Unknown);
    assert_eq!(kills.iter().filter(told).count(), 200);
    // Without its report a kill may be a further one of a group.
    let expected = |kill: &LoggedKill| kill.cgroup_path.is_some().then_some(false);
    assert!(kills.iter().all(|kill| kill.group_kill == expected(kill)));
}

#[test]
fn guests_of_old_and_new_kernels_tell_the_same() {
    let logs = [("5.10", recorded!("cases-5.10.log")), ("7.3", recorded!("cases-7.3.log"))];
    for (name, file) in logs {
        let kills = replay(file);
        // One of each case but four and three of the groups, 30 of the burst, and one marker after each case.
        assert_eq!((kills.len(), pids(&kills).len()), (4 + 4 + 3 + 30 + 7, 48), "{name}");
        assert_eq!(decisions(&kills), 48 - 3 - 2, "{name}");
        let of = |group: &str| kills.iter().filter(|kill| kill.group.as_deref() == Some(group)).collect::<Vec<_>>();
        let (whole, family) = (of("/group"), of("/family"));
        assert_eq!((whole.len(), family.len()), (4, 3), "{name}");
        assert_eq!(family[0].cgroup_path.as_deref(), Some("/family/second"), "{name}");
        assert!(whole.iter().chain(&family).all(|kill| kill.group_kill == Some(true)), "{name}");
        assert!(whole[1..].iter().chain(&family[1..]).all(|kill| kill.cgroup_path.is_none()), "{name}");
        let nodes: Vec<_> = kills.iter().filter(|kill| kill.domain == LoggedDomain::Node).collect();
        assert_eq!(nodes.len(), 1, "{name}");
        assert_eq!(nodes[0].cgroup_path.as_deref(), Some("/unlimited"), "{name}");
        let threads: Vec<_> = kills
            .iter()
            .filter(|kill| kill.mark.victim.tgid.is_some_and(|tgid| kill.mark.victim.pid != Some(tgid)))
            .collect();
        assert_eq!(threads.len(), 1, "{name}");
        assert_eq!(threads[0].mark.victim.comm.map(|comm| comm.to_text()).as_deref(), Some("oom-thread"), "{name}");
        assert_eq!(
            threads[0].mark.victim.leader_comm.map(|comm| comm.to_text()).as_deref(),
            Some("oom-eater"),
            "{name}"
        );
        let pod =
            kills.iter().find(|kill| kill.cgroup_path.as_deref().is_some_and(|path| path.contains("cri-containerd")));
        let LoggedDomain::Cgroup(domain) = &pod.expect("a container's").domain else { panic!("{name}: {pod:?}") };
        assert!(domain.ends_with("pod5f0c2b1e_6d3a_4b57_9c43_0a1b2c3d4e5f.slice"), "{name}: {domain}");
        // Reports: one for each case and marker, and ten of the burst's, less those that the window had left.
        assert_eq!(kills.iter().filter(|kill| kill.cgroup_path.is_some()).count(), 20, "{name}");
    }
}

#[test]
fn group_kills_beyond_the_reports_are_counted_exactly_and_attributed_to_nobody() {
    let kills = replay(recorded!("names-groups-hangs-7.3.log"));
    assert_eq!((kills.len(), pids(&kills).len()), (6 + 14 * 3, 48));
    // Of six with odd names one can be read in two ways; ten of the groups have a report.
    assert_eq!(kills.iter().filter(|kill| kill.cgroup_path.is_some()).count(), 5 + 10);
    // Of each group the first; the others only as long as a report could not have been left out.
    assert_eq!(kills.iter().filter(|kill| kill.group.is_some()).count(), 14 + 9 * 2);
    assert!(kills.iter().all(|kill| kill.group.as_deref().is_none_or(|group| group == "/g")));
    assert_eq!(decisions(&kills), 6 + 14 + 5 * 2);
}

fn named(text: &str) -> Comm {
    let mut bytes = [0; 16];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    Comm(bytes)
}

fn report(pid: u32, cgroup: &str) -> LogEvent {
    let (domain, cgroup) = (Some(cgroup.to_owned()), cgroup.to_owned());
    LogEvent::OomHeader(OomHeader { domain, cgroup, comm: named("a"), pid, uid: 0 })
}

fn kill_of(pid: u32, cause: LogCause) -> LogEvent {
    let memory = LoggedMemory::default();
    LogEvent::OomKilled(OomKilled { cause, pid, comm: named("a"), uid: Some(0), oom_score_adj: None, memory })
}

fn killed(pid: u32) -> LogEvent {
    kill_of(pid, LogCause::Cgroup)
}

fn group(path: &str) -> LogEvent {
    LogEvent::OomGroup { path: path.to_owned() }
}

fn gone(pid: u32) -> LogEvent {
    LogEvent::OomSkipped { pid, cause: LogCause::Cgroup }
}

/// Long after the log was opened, a line each millisecond.
fn told(events: impl IntoIterator<Item = LogEvent>) -> Vec<LoggedKill> {
    told_by(&mut OomLog::new(4096, 0), events)
}

fn told_by(joiner: &mut OomLog, events: impl IntoIterator<Item = LogEvent>) -> Vec<LoggedKill> {
    let mut kills = Vec::new();
    for (number, event) in (0..).zip(events) {
        let time_us = AGE_US + number * 1000;
        kills.extend(joiner.push(event, At { sequence: number, time_us, boot_ns: time_us * 1000 }));
    }
    kills.extend(joiner.finish());
    kills
}

fn cgroups(kills: &[LoggedKill]) -> Vec<(u32, Option<&str>)> {
    kills.iter().map(|kill| (kill.mark.victim.pid.unwrap_or(0), kill.cgroup_path.as_deref())).collect()
}

#[test]
fn a_report_belongs_to_the_next_kill_alone() {
    let kills = told([report(1, "/a"), killed(1), killed(2)]);
    assert_eq!(cgroups(&kills), [(1, Some("/a")), (2, None)]);
    assert_eq!(kills[1].domain, LoggedDomain::Unknown);
}

#[test]
fn the_report_on_a_task_that_was_gone_is_not_anothers() {
    assert_eq!(cgroups(&told([report(1, "/a"), gone(1), killed(2)])), [(2, None)]);
}

#[test]
fn a_report_that_could_not_be_read_leaves_no_room_for_an_older_one() {
    assert_eq!(cgroups(&told([report(1, "/a"), LogEvent::OomInvoked, killed(2)])), [(2, None)]);
}

#[test]
fn a_report_that_does_not_fit_the_kill_is_not_believed() {
    let kills = told([report(1, "/a"), kill_of(2, LogCause::Node)]);
    assert_eq!((cgroups(&kills), &kills[0].domain), (vec![(2, None)], &LoggedDomain::Node));
}

#[test]
fn the_machine_is_named_without_a_report() {
    for cause in [LogCause::Node, LogCause::NodeAllocating] {
        assert_eq!(told([kill_of(2, cause)])[0].domain, LoggedDomain::Node);
    }
    assert_eq!(told([kill_of(2, LogCause::Untold)])[0].domain, LoggedDomain::Unknown);
}

#[test]
fn a_thread_that_asked_for_memory_may_be_no_leader() {
    let header = OomHeader { domain: None, cgroup: "/a".into(), comm: named("a"), pid: 7, uid: 0 };
    let kills = told([LogEvent::OomHeader(header), kill_of(7, LogCause::NodeAllocating)]);
    assert_eq!((kills[0].mark.victim.tgid, kills[0].cgroup_path.as_deref()), (None, Some("/a")));
}

#[test]
fn a_cgroup_dies_though_its_first_process_is_gone() {
    let kills = told([report(1, "/a"), gone(1), group("/a"), killed(2), gone(1), killed(3)]);
    assert_eq!(cgroups(&kills), [(2, None), (3, None)]);
    assert!(kills.iter().all(|kill| kill.group.as_deref() == Some("/a") && kill.decision == kills[0].decision));
    assert_eq!(kills[1].domain, LoggedDomain::Cgroup(Arc::from("/a")));
}

#[test]
fn a_task_gone_without_a_report_ends_the_decision_before() {
    let mut events = Vec::from_iter((0..10).flat_map(|pid| [report(100 + pid, "/b"), killed(100 + pid)]));
    events.extend([gone(1), group("/a"), killed(2)]);
    let kills = told(events);
    assert!(kills.iter().all(|kill| kill.group.is_none()), "{kills:?}");
}

#[test]
fn a_report_ends_a_group() {
    let kills = told([report(1, "/a"), killed(1), group("/a"), killed(2), killed(1), report(3, "/b"), killed(3)]);
    assert_eq!(cgroups(&kills), [(1, Some("/a")), (2, None), (3, Some("/b"))]);
    assert_eq!((kills[1].group.as_deref(), kills[2].group.as_deref()), (Some("/a"), None));
    assert_eq!((kills[0].decision, kills[1].decision, kills[2].decision), (1, 1, 2));
}

#[test]
fn a_pid_killed_again_later_is_another_process() {
    assert_eq!(told([report(1, "/a"), killed(1), report(1, "/a"), killed(1), killed(1)]).len(), 3);
    let again = told([report(1, "/a"), killed(1), group("/a"), killed(1), report(1, "/a"), killed(1)]);
    assert_eq!(cgroups(&again), [(1, Some("/a")), (1, Some("/a"))]);
}

#[test]
fn right_after_the_log_was_opened_a_report_may_have_been_left_out() {
    let events = [report(1, "/a"), killed(1), group("/a"), killed(2), killed(1), killed(3)];
    let kills = told_by(&mut OomLog::new(4096, AGE_US * 1000), events);
    assert_eq!(cgroups(&kills), [(1, Some("/a")), (2, None), (3, None)]);
    assert!(kills[1].group.is_none() && kills[2].group.is_none());
}

#[test]
fn a_group_that_dies_beyond_the_reports_of_its_time_is_never_called_single_kills() {
    let mut joiner = OomLog::new(4096, 0);
    let reports = (1..=10).flat_map(|pid| [report(pid, "/a"), killed(pid)]);
    let mut kills = told_by(&mut joiner, reports.chain([killed(20), group("/b"), killed(21), killed(22)]));
    // The reports' window ends in the midst of the group's lines.
    let later = At { sequence: 99, time_us: AGE_US + REPORT_WINDOW_US + 100_000, boot_ns: u64::MAX / 2 };
    for pid in 23..26 {
        kills.extend(joiner.push(killed(pid), later));
    }
    kills.extend(joiner.finish());
    let called_single: Vec<_> = kills.iter().filter(|kill| kill.group_kill == Some(false)).collect();
    assert!(called_single.iter().all(|kill| kill.cgroup_path.is_some()), "{called_single:?}");
    assert_eq!(kills.len(), 10 + 6);
}

#[test]
fn after_a_loss_nothing_belongs_to_what_came_before() {
    let mut joiner = OomLog::new(4096, 0);
    let first = told_by(&mut joiner, [report(1, "/a"), killed(1), group("/a"), report(9, "/b")]);
    assert_eq!(first.len(), 1);
    assert_eq!(joiner.lost(), None);
    let kills = told_by(&mut joiner, [killed(9), killed(2), group("/c"), killed(3), killed(2)]);
    assert_eq!(cgroups(&kills), [(9, None), (2, None), (3, None)]);
    assert_eq!(kills[2].group, None);
}

#[test]
fn a_kill_is_held_back_for_a_moment_only() {
    let mut joiner = OomLog::new(4096, 0);
    let at = |time_us: u64| At { sequence: 1, time_us, boot_ns: time_us * 1000 };
    assert_eq!(joiner.push(killed(1), at(AGE_US)), []);
    let due = joiner.next_due().expect("held back");
    assert_eq!((due, joiner.release(due - 1)), (AGE_US * 1000 + HOLD_NS, None));
    let kill = joiner.release(due).expect("due");
    assert_eq!((kill.group_kill, joiner.next_due()), (None, None));
    // Its line came late after all: the others are known to be its cgroup's.
    assert_eq!(joiner.push(group("/a"), at(AGE_US + 200_000)), []);
    assert_eq!(joiner.push(killed(1), at(AGE_US + 200_001)), []);
    assert_eq!(joiner.push(killed(2), at(AGE_US + 200_002))[0].decision, kill.decision);
}

#[test]
fn hung_tasks_do_not_disturb() {
    assert_eq!(cgroups(&told([report(1, "/a"), LogEvent::HungTasksSilenced, killed(1)])), [(1, Some("/a"))]);
}

/// What the kernel does in one decision.
#[derive(Clone, Debug)]
struct Truth {
    pid: u32,
    cgroup: u8,
    members: Option<Vec<u32>>,
    gone: bool,
    pause_us: u64,
}

fn truth() -> impl Strategy<Value = Vec<Truth>> {
    let one =
        (0..4_u8, prop::option::of(0..4_usize), any::<bool>(), prop_oneof![6 => 0..1_000_u64, 1 => 0..6_000_000_u64]);
    prop::collection::vec(one, 1..60).prop_map(|all| {
        let mut pids = 1..;
        let mut next = || pids.next().unwrap_or(0);
        let truth = all.into_iter().map(|(cgroup, members, gone, pause_us)| Truth {
            pid: next(),
            cgroup,
            members: members.map(|count| (0..count).map(|_| next()).collect()),
            gone: gone && cgroup == 3,
            pause_us,
        });
        truth.collect()
    })
}

proptest! {
    #[test]
    fn every_process_is_told_once_and_no_cgroup_is_anothers(truth in truth()) {
        let mut joiner = OomLog::new(4096, 0);
        let (mut kills, mut reports, mut window, mut time_us) = (Vec::new(), 0, 0, AGE_US);
        let mut feed = |joiner: &mut OomLog, event, time_us: u64| {
            kills.extend(joiner.release(time_us * 1000));
            kills.extend(joiner.push(event, At { sequence: time_us, time_us, boot_ns: time_us * 1000 }));
        };
        for Truth { pid, cgroup, members, gone: is_gone, pause_us } in &truth {
            time_us += pause_us;
            // `___ratelimit`, `lib/ratelimit.c`.
            if time_us > window + 5_000_000 {
                (window, reports) = (time_us, 0);
            }
            reports += 1;
            let path = format!("/{cgroup}");
            if reports <= 10 {
                feed(&mut joiner, LogEvent::OomInvoked, time_us);
                feed(&mut joiner, report(*pid, &path), time_us + 1);
            }
            feed(&mut joiner, if *is_gone { gone(*pid) } else { killed(*pid) }, time_us + 2);
            if let Some(members) = members {
                feed(&mut joiner, group(&path), time_us + 3);
                let (before, after) = members.split_at(members.len() / 2);
                let second = if *is_gone { gone(*pid) } else { killed(*pid) };
                let lines = before.iter().map(|pid| killed(*pid)).chain([second]).chain(after.iter().map(|pid| killed(*pid)));
                for (line, event) in (4..).zip(lines) {
                    feed(&mut joiner, event, time_us + line);
                }
            }
            time_us += 20;
        }
        kills.extend(joiner.finish());
        let mut victims: Vec<(u32, String)> = Vec::new();
        for Truth { pid, cgroup, members, gone, .. } in &truth {
            let all = (!gone).then_some(pid).into_iter().chain(members.iter().flatten());
            victims.extend(all.map(|pid| (*pid, format!("/{cgroup}"))));
        }
        let mut seen: Vec<u32> = kills.iter().filter_map(|kill| kill.mark.victim.pid).collect();
        seen.sort_unstable();
        let mut expected: Vec<u32> = victims.iter().map(|(pid, _)| *pid).collect();
        expected.sort_unstable();
        prop_assert_eq!(seen, expected);
        for kill in &kills {
            let truth = victims.iter().find(|(pid, _)| Some(*pid) == kill.mark.victim.pid).map(|(_, path)| path.as_str());
            prop_assert!(kill.cgroup_path.is_none() || kill.cgroup_path.as_deref() == truth);
            prop_assert!(kill.group.is_none() || kill.group.as_deref() == truth);
            prop_assert!(!matches!(&kill.domain, LoggedDomain::Cgroup(path) if Some(&**path) != truth));
        }
    }
}
