//! Rules of OOM kills, by situation and outcome.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    fixture::{level, mark},
    *,
};
use crate::agent::{
    decode::event::{Level, ReclaimScope},
    locate::Owner,
};

/// How the marks were learned of.
const BY: Method = Method::RawTracepoint;

fn rules() -> OomRules {
    OomRules::new(DomainFinder::new([], true, 0))
}

fn kill(rules: &mut OomRules, mark: OomMark) -> OomKill {
    match rules.judge(mark, None, BY) {
        Verdict::Kill(kill) => *kill,
        other => panic!("no kill but {other:?}"),
    }
}

fn grouped(level: Level) -> Level {
    Level { oom_group: Some(true), ..level }
}

#[test]
fn a_task_already_dying_is_no_kill() {
    let mut rules = rules();
    let mut dying = mark(1).of(10).levels([level(5, 1, 1), level(1, 0, 0)]);
    dying.real_kill = Some(false);
    assert_eq!(rules.judge(dying, None, BY), Verdict::AlreadyDying);
    assert_eq!(rules.counts(), Counts { already_dying: 1, ..Counts::default() });
}

#[test]
fn the_kill_that_follows_a_dying_task_still_finds_its_domain() {
    let mut rules = rules();
    let mut dying = mark(1).of(10).levels([level(5, 1, 1), level(1, 0, 0)]);
    dying.real_kill = Some(false);
    rules.judge(dying, None, BY);
    let killed = kill(&mut rules, mark(2).of(11).levels([level(5, 1, 1), level(1, 0, 0)]));
    assert!(matches!(killed.domain, Domain::Cgroup { key: Some(CgroupKey { id: 5, .. }), .. }));
}

#[test]
fn a_second_thread_is_no_second_kill() {
    let mut rules = rules();
    kill(&mut rules, mark(1).of(10).levels([level(5, 1, 1), level(1, 0, 0)]));
    let mut second = mark(2).of(10).levels([level(5, 1, 1), level(1, 0, 0)]);
    second.real_kill = Some(false);
    second.victim.pid = Some(12);
    assert_eq!(rules.judge(second, None, BY), Verdict::Duplicate);
    assert_eq!(rules.counts().kills, 1);
}

#[test]
fn a_pid_used_again_is_another_process() {
    let mut rules = rules();
    kill(&mut rules, mark(1).of(10));
    let mut again = mark(2).of(10);
    again.victim.leader_start_ns = Some(999);
    kill(&mut rules, again);
    assert_eq!(rules.counts().kills, 2);
}

#[test]
fn victims_of_one_decision_are_one_incident() {
    let mut rules = rules();
    let levels = |events| [grouped(level(5, 1, events)), level(1, 0, 0)];
    let first = kill(&mut rules, mark(1).of(10).levels(levels(1)).decided(100, Some((5, 1))));
    let second = kill(&mut rules, mark(2).of(11).levels(levels(1)).decided(100, Some((5, 1))));
    let other = kill(&mut rules, mark(3).of(12).levels(levels(2)).decided(200, Some((5, 1))));
    assert_eq!(first.incident, Incident { number: 1, victim: 1 });
    assert_eq!(second.incident, Incident { number: 1, victim: 2 });
    assert_eq!(other.incident, Incident { number: 2, victim: 1 });
    assert_eq!(first.group_kill, Some(true));
    assert_eq!(rules.counts().group_incidents, 2);
}

#[test]
fn without_a_probe_of_the_decision_reclaim_keeps_victims_of_a_group_together() {
    let mut rules = rules();
    let levels = |events| [level(9, 2, 0), grouped(level(5, 1, events)), level(1, 0, 0)];
    // Another task hits the limit while the group is being killed: the counter rises, the decision is the same.
    let incidents: Vec<_> = [(10, 1, 100), (11, 1, 100), (12, 2, 100), (13, 2, 200)]
        .into_iter()
        .map(|(tgid, events, reclaim)| {
            let mark = mark(u64::from(tgid)).of(tgid).levels(levels(events));
            kill(&mut rules, mark.reclaimed(reclaim, ReclaimScope::Cgroup))
        })
        .map(|kill| (kill.incident.number, kill.incident.victim))
        .collect();
    assert_eq!(incidents, [(1, 1), (1, 2), (1, 3), (2, 1)]);
}

#[test]
fn without_the_decision_single_kills_are_incidents_of_their_own() {
    let mut rules = rules();
    for events in 1..=3u32 {
        let killed = kill(&mut rules, mark(1).of(events).levels([level(5, 1, u64::from(events)), level(1, 0, 0)]));
        assert_eq!(killed.incident, Incident { number: u64::from(events), victim: 1 });
        assert_eq!(killed.group_kill, Some(false));
    }
}

#[test]
fn a_group_flag_above_the_domain_kills_no_group() {
    let mut rules = rules();
    let killed = kill(
        &mut rules,
        mark(1).of(10).levels([level(9, 2, 1), grouped(level(5, 1, 0)), level(1, 0, 0)]).decided(1, Some((9, 2))),
    );
    assert_eq!(killed.group_kill, Some(false));
}

#[test]
fn a_victim_elsewhere_is_not_of_the_group() {
    let mut rules = rules();
    let grouped = mark(1).of(10).levels([grouped(level(5, 1, 1)), level(1, 0, 0)]);
    kill(&mut rules, grouped.reclaimed(1, ReclaimScope::Cgroup));
    let elsewhere = mark(2).of(11).levels([level(6, 1, 0), level(1, 0, 0)]).reclaimed(2, ReclaimScope::Machine);
    let elsewhere = kill(&mut rules, elsewhere);
    assert_eq!(elsewhere.incident.number, 2);
    assert_eq!(elsewhere.domain, Domain::Node);
}

#[test]
fn the_domain_has_its_path() {
    let mut rules = rules();
    let place = Arc::new(Place { path: Arc::from("/a/b/c"), owner: Owner::Cgroup });
    let levels = [level(9, 3, 0), level(8, 2, 1), level(7, 1, 0), level(1, 0, 0)];
    let Verdict::Kill(killed) = rules.judge(mark(1).of(10).levels(levels), Some(place), BY) else { panic!("no kill") };
    let Domain::Cgroup { path, .. } = killed.domain else { panic!("no cgroup") };
    assert_eq!(path.as_deref(), Some("/a/b"));
}

proptest! {
    #[test]
    fn every_mark_is_counted_exactly_once(marks in proptest::collection::vec((1u32..20, any::<bool>(), 0u64..4), 0..200)) {
        let mut rules = rules();
        let total = marks.len() as u64;
        for (index, (tgid, real, events)) in marks.into_iter().enumerate() {
            let mut mark = mark(index as u64 + 1).of(tgid).levels([grouped(level(5, 1, events)), level(1, 0, 0)]);
            mark.real_kill = Some(real);
            rules.judge(mark, None, BY);
        }
        let counts = rules.counts();
        prop_assert_eq!(counts.kills + counts.already_dying + counts.duplicates, total);
        prop_assert!(counts.incidents <= counts.kills);
        prop_assert!(counts.kills <= 19);
    }

    #[test]
    fn no_process_is_told_twice_and_memory_is_bounded(count in 1u32..10_000) {
        let mut rules = rules();
        for tgid in 0..count {
            kill(&mut rules, mark(1).of(tgid));
        }
        prop_assert!(rules.told.len() <= REMEMBERED_PROCESSES);
        prop_assert_eq!(rules.judge(mark(2).of(count - 1), None, BY), Verdict::Duplicate);
    }
}

#[test]
fn a_limit_that_is_lowered_kills_more_than_once_after_one_reclaim() {
    let mut rules = rules();
    let a = kill(&mut rules, mark(1).of(1).levels([level(5, 1, 1), level(1, 0, 0)]).reclaimed(1, ReclaimScope::Cgroup));
    let b =
        kill(&mut rules, mark(2).of(2).levels([level(5, 1, 900), level(1, 0, 0)]).reclaimed(1, ReclaimScope::Cgroup));
    assert_ne!(a.incident.number, b.incident.number);
}

#[test]
fn a_group_kill_whose_reclaim_was_forgotten_is_one_incident() {
    let mut rules = rules();
    let a = kill(&mut rules, mark(1).of(1).levels([grouped(level(5, 1, 1)), level(1, 0, 0)]));
    let b = kill(&mut rules, mark(2).of(2).levels([grouped(level(5, 1, 1)), level(1, 0, 0)]));
    assert_eq!((a.domain.clone(), a.incident.number), (b.domain.clone(), b.incident.number));
}
