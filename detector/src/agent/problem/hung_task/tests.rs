//! The table of the header line by line, and what holds whatever happens.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::agent::decode::event::{Stamp, Task};

pub(super) const SECOND: u64 = 1_000_000_000;
const TICK: Duration = Duration::from_millis(4);
pub(super) const TID: u32 = 4711;

fn event(at_s: u64, start_ns: Option<u64>, switches: Option<u64>) -> HungTask {
    let task = Task {
        tgid: Some(TID),
        pid: Some(TID),
        start_ns,
        leader_start_ns: None,
        comm: None,
        leader_comm: None,
        cgroup: None,
    };
    let stamp = Stamp { boot_ns: at_s * SECOND, cpu: 0, sequence: at_s };
    HungTask { stamp, task, switches, hung_jiffies: None, lock: None, stack: ArrayVec::new() }
}

fn account(event: HungTask) -> Account {
    Account { event, place: None, holder_place: None, stack: Vec::new(), method: Method::RawTracepoint }
}

pub(super) fn full(at_s: u64, switches: u64) -> Account {
    account(event(at_s, Some(SECOND), Some(switches)))
}

pub(super) fn seen(start_ns: u64, switches: u64, state: State) -> Look {
    Look::Seen(Seen { tgid: TID, comm: [0; 16], switches, start_ns, state })
}

pub(super) fn rules() -> HungTaskRules {
    HungTaskRules::new(TICK)
}

pub(super) fn told(transitions: &Transitions) -> Vec<(u64, HangState)> {
    transitions.iter().map(|hang| (hang.number, hang.state)).collect()
}

#[test]
fn a_second_record_sustains_the_hang() {
    let mut rules = rules();
    assert_eq!(told(&rules.record(full(100, 5))), [(1, HangState::Raised)]);
    assert_eq!(told(&rules.record(full(110, 5))), [(1, HangState::Sustained)]);
    assert_eq!(rules.counts(), HangCounts { raised: 1, open: 1, ..HangCounts::default() });
}

#[test]
fn a_task_that_ran_and_hangs_again_hangs_anew() {
    let mut rules = rules();
    rules.record(full(100, 5));
    assert_eq!(told(&rules.record(full(110, 6))), [(1, HangState::Ran), (2, HangState::Raised)]);
}

#[test]
fn a_number_that_is_another_tasks_by_now_ends_the_hang() {
    let mut rules = rules();
    rules.record(full(100, 5));
    let other = account(event(110, Some(105 * SECOND), Some(5)));
    assert_eq!(told(&rules.record(other)), [(1, HangState::Exited), (2, HangState::Raised)]);
}

#[test]
fn a_look_ends_a_hang_only_if_the_task_ran_or_went() {
    let cases = [
        (seen(SECOND, 5, State::Uninterruptible), None),
        // `/proc` rounds down.
        (seen(SECOND - START_TOLERANCE_NS, 5, State::Uninterruptible), None),
        (seen(SECOND, 6, State::Uninterruptible), Some(HangState::Ran)),
        (seen(SECOND, 5, State::Other), Some(HangState::Ran)),
        (seen(SECOND, 6, State::Dead), Some(HangState::Exited)),
        (seen(90 * SECOND, 5, State::Uninterruptible), Some(HangState::Exited)),
        (Look::Gone, Some(HangState::Exited)),
    ];
    for (look, expected) in cases {
        let mut rules = rules();
        rules.record(full(100, 5));
        let end = rules.looked(TID, &look, 101 * SECOND);
        assert_eq!(end.map(|hang| hang.state), expected, "{look:?}");
        assert_eq!(rules.open().is_empty(), expected.is_some());
    }
}

#[test]
fn a_record_without_identity_gets_it_from_the_first_look() {
    let mut rules = rules();
    rules.record(account(event(100, None, None)));
    assert_eq!(rules.looked(TID, &seen(SECOND, 5, State::Uninterruptible), 101 * SECOND), None);
    assert_eq!(told(&rules.record(account(event(110, None, None)))), [(1, HangState::Sustained)]);
    let end = rules.looked(TID, &seen(SECOND, 6, State::Uninterruptible), 111 * SECOND).expect("it ran");
    assert_eq!((end.state, end.event.task.start_ns), (HangState::Ran, Some(SECOND)));
}

#[test]
fn a_look_at_a_task_that_does_not_hang_tells_nothing() {
    assert_eq!(rules().looked(TID, &Look::Gone, SECOND), None);
}

#[test]
fn the_length_is_the_kernels_or_ours_whichever_is_longer() {
    let mut rules = rules();
    let with = |at_s, jiffies| {
        let mut account = full(at_s, 5);
        account.event.hung_jiffies = jiffies;
        account
    };
    assert_eq!(rules.record(with(100, Some(1000)))[0].hung, Duration::from_secs(4));
    assert_eq!(rules.record(with(110, None))[0].hung, Duration::from_secs(14));
    assert_eq!(rules.record(with(120, Some(6000)))[0].hung, Duration::from_secs(24));
    assert_eq!(rules.record(with(121, Some(10_000)))[0].hung, Duration::from_secs(40));
}

#[test]
fn at_its_end_a_hang_is_as_long_as_it_was_seen_to_stand() {
    let mut rules = rules();
    rules.record(full(100, 5));
    rules.looked(TID, &seen(SECOND, 5, State::Uninterruptible), 107 * SECOND);
    let end = rules.looked(TID, &Look::Gone, 108 * SECOND).expect("it is gone");
    assert_eq!((end.hung, end.boot_ns), (Duration::from_secs(7), 108 * SECOND));
}

#[test]
fn an_absurd_number_of_jiffies_is_cut_at_the_boot() {
    let mut account = full(100, 5);
    account.event.hung_jiffies = Some(u64::MAX);
    assert_eq!(rules().record(account)[0].hung, Duration::from_secs(100));
}

#[test]
fn what_a_later_record_lacks_stays_known() {
    let mut rules = rules();
    let mut first = full(100, 5);
    first.event.task.comm = Some(Comm(*b"dd\0\0\0\0\0\0\0\0\0\0\0\0\0\0"));
    first.stack = vec![Frame::of_line("[<0>] io_schedule+0x1/0x2").expect("a frame")];
    rules.record(first.clone());
    let second = &rules.record(account(event(110, None, None)))[0];
    assert_eq!((second.event.task.comm, &second.stack), (first.event.task.comm, &first.stack));
    assert_eq!(second.event.switches, Some(5));
}

#[test]
fn a_record_that_waited_while_its_hang_ended_does_not_raise_it_again() {
    let mut rules = rules();
    rules.record(full(100, 5));
    rules.looked(TID, &seen(SECOND, 6, State::Other), 115 * SECOND).expect("it ran");
    assert_eq!(told(&rules.record(full(110, 5))), []);
    // Another hang of the same task waited as well: it was never told.
    assert_eq!(told(&rules.record(full(112, 6))), [(2, HangState::Raised)]);
}

#[test]
fn records_beyond_the_limit_and_without_a_task_are_counted() {
    let mut rules = rules();
    for tid in 0..=u32::try_from(MAX_OPEN).expect("small") {
        let mut account = full(100, 5);
        account.event.task.pid = Some(tid);
        rules.record(account);
    }
    let mut nameless = full(100, 5);
    nameless.event.task.pid = None;
    rules.record(nameless);
    let open = MAX_OPEN as u64;
    assert_eq!(rules.counts(), HangCounts { raised: open, open, beyond_limit: 1, nameless: 1 });
}

/// What may happen to one of a few tasks.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Runs,
    /// It is gone, and its number is another task's if the flag says so.
    Goes(bool),
    /// A record, with or without start and switches.
    Record(bool, bool),
    Look,
}

/// A number and the task that bears it.
#[derive(Clone, Copy, Debug)]
struct Actor {
    start_ns: Option<u64>,
    switches: u64,
    hangs: bool,
}

fn happenings() -> impl Strategy<Value = Vec<(u32, Happening)>> {
    let happening = prop_oneof![
        2 => Just(Happening::Runs),
        1 => any::<bool>().prop_map(Happening::Goes),
        5 => (any::<bool>(), any::<bool>()).prop_map(|(start, switches)| Happening::Record(start, switches)),
        4 => Just(Happening::Look),
    ];
    vec((0_u32..4, happening), 0..80)
}

/// Plays `happenings`; at the end all tasks go and are looked at. Returns what was told by thread id.
fn play(happenings: &[(u32, Happening)]) -> Vec<(u32, Hang)> {
    let mut rules = rules();
    let mut actors = [Actor { start_ns: Some(SECOND), switches: 0, hangs: false }; 4];
    let mut told = Vec::new();
    for (at_s, (tid, happening)) in (100..).zip(happenings) {
        let actor = &mut actors[*tid as usize];
        match *happening {
            Happening::Runs => {
                actor.switches += 1;
                actor.hangs = false;
            }
            Happening::Goes(reused) => {
                *actor = Actor { start_ns: reused.then_some(at_s * SECOND), switches: 0, hangs: false };
            }
            Happening::Record(with_start, with_switches) => {
                let Some(start_ns) = actor.start_ns else { continue };
                actor.hangs = true;
                let switches = with_switches.then_some(actor.switches);
                let mut event = event(at_s, with_start.then_some(start_ns), switches);
                event.task.pid = Some(*tid);
                told.extend(rules.record(account(event)).into_iter().map(|hang| (*tid, hang)));
            }
            Happening::Look => told.extend(rules.looked(*tid, &actor.look(), at_s * SECOND).map(|hang| (*tid, hang))),
        }
    }
    for tid in 0..4 {
        told.extend(rules.looked(tid, &Look::Gone, 1000 * SECOND).map(|hang| (tid, hang)));
    }
    assert!(rules.open().is_empty());
    told
}

impl Actor {
    fn look(&self) -> Look {
        let state = if self.hangs { State::Uninterruptible } else { State::Other };
        self.start_ns.map_or(Look::Gone, |start_ns| seen(start_ns / 10_000_000 * 10_000_000, self.switches, state))
    }
}

proptest! {
    #[test]
    fn every_hang_is_raised_once_then_sustained_then_ended_once(happenings in happenings()) {
        let mut open: BTreeMap<u32, (u64, Duration)> = BTreeMap::new();
        let mut raised = 0;
        for (tid, hang) in play(&happenings) {
            match hang.state {
                HangState::Raised => {
                    raised += 1;
                    prop_assert_eq!(hang.number, raised);
                    prop_assert_eq!(open.insert(tid, (hang.number, hang.hung)), None);
                }
                HangState::Sustained => {
                    let (number, hung) = open[&tid];
                    prop_assert_eq!(hang.number, number);
                    prop_assert!(hang.hung >= hung);
                    open.insert(tid, (number, hang.hung));
                }
                HangState::Ran | HangState::Exited => {
                    let (number, hung) = open.remove(&tid).expect("no end without a begin");
                    prop_assert_eq!(hang.number, number);
                    prop_assert!(hang.hung >= hung);
                }
            }
        }
        prop_assert!(open.is_empty());
    }

    #[test]
    fn a_task_is_told_the_same_whatever_the_others_do(happenings in happenings()) {
        let states = |told: Vec<(u32, Hang)>, tid| -> Vec<_> {
            let own = told.into_iter().filter(|(of, _)| *of == tid);
            own.map(|(_, hang)| (hang.state, hang.boot_ns, hang.hung)).collect()
        };
        let all = play(&happenings);
        for tid in 0..4 {
            // The others do nothing, at the same times.
            let alone: Vec<_> = happenings
                .iter()
                .map(|(of, happening)| if *of == tid { (*of, *happening) } else { (3 - tid, Happening::Runs) })
                .collect();
            prop_assert_eq!(states(play(&alone), tid), states(all.clone(), tid));
        }
    }

    #[test]
    fn with_whole_records_no_end_is_told_of_a_task_that_stands(happenings in happenings()) {
        let whole: Vec<_> = happenings
            .into_iter()
            .map(|(tid, happening)| match happening {
                Happening::Record(..) => (tid, Happening::Record(true, true)),
                // Nothing moves.
                Happening::Runs | Happening::Goes(_) | Happening::Look => (tid, Happening::Look),
            })
            .collect();
        let ends = play(&whole).into_iter().filter(|(_, hang)| {
            matches!(hang.state, HangState::Ran | HangState::Exited) && hang.boot_ns < 1000 * SECOND
        });
        prop_assert_eq!(ends.count(), 0);
    }
}
