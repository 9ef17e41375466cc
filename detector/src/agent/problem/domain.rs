//! Which cgroup's limit was hit.
//!
//! Where a probe of the decision is attached the kernel says it. Else two facts of each mark tell it:
//!
//! - what the trigger tried right before: to free memory of the machine, or of a cgroup ([`Reclaim`]);
//! - the counters of the walk from the victim's cgroup to the root: before the OOM killer runs, the kernel adds one to
//!   `memory_events_local[MEMCG_OOM]` of the cgroup whose limit was hit and of no other (`mem_cgroup_oom`,
//!   `mm/memcontrol.c`).
//!
//! The level whose counter rose since the last look is the domain. Several tasks may hit a limit at once: each adds its
//! one and then waits for its turn, so that a counter may rise by two before the first kill and not at all before the
//! second. Then the domain is among the levels that have had an OOM: the only one, else the only one that rose further than
//! kills explain, else the only one without room. Where this leaves a choice, or nobody told what the trigger tried, the
//! answer is unknown.
//!
//! [`Reclaim`]: crate::agent::decode::event::Reclaim

use std::collections::{HashMap, VecDeque};

use crate::agent::decode::event::{Level, OomMark, ReclaimScope};

/// Cgroups whose last counter is remembered; the oldest goes first.
pub const REMEMBERED_CGROUPS: usize = 16_384;

/// Pages by which the usage of a cgroup may stay below its limit when a charge fails: what 64 CPUs may hold back in
/// their stocks of `MEMCG_CHARGE_BATCH` pages (`include/linux/memcontrol.h`).
const CHARGE_SLACK_PAGES: u64 = 64 * 64;

/// The level of a mark whose limit was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Index into `mark.levels`.
    Level(usize),
    /// The whole machine.
    Node,
    /// Cannot be told.
    Unknown,
}

/// The counter of a cgroup at the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    events: u64,
    /// By how much it rose without a kill that explains it: tasks that wait for their turn, or OOMs without a kill.
    unexplained: u64,
}

/// Finds the domain of a mark by the counters of its levels.
#[derive(Debug)]
pub struct DomainFinder {
    last: HashMap<u64, Counter>,
    order: VecDeque<u64>,
    /// Whether a cgroup that is not remembered is known to have had no OOM.
    complete: bool,
    /// Marks up to this time may be older than the baselines.
    baseline_boot_ns: u64,
}

impl DomainFinder {
    /// Starts with the counters of the cgroups that had any at the time `boot_ns`. `complete`: all others had none.
    #[must_use]
    pub fn new(baselines: impl IntoIterator<Item = (u64, u64)>, complete: bool, boot_ns: u64) -> Self {
        let mut finder = Self { last: HashMap::new(), order: VecDeque::new(), complete, baseline_boot_ns: boot_ns };
        for (id, events) in baselines {
            finder.remember(id, Counter { events, unexplained: 0 });
        }
        finder
    }

    /// A cgroup was made: it has had no OOM yet. One that is known already was renamed, and keeps its counter.
    pub fn made(&mut self, id: u64) {
        if !self.complete && !self.last.contains_key(&id) {
            self.remember(id, Counter::default());
        }
    }

    /// Finds the domain of one kill that begins a new decision, and remembers the counters of all levels.
    pub fn find(&mut self, mark: &OomMark) -> Found {
        let found = self.judge(mark);
        for (index, level) in mark.levels.iter().enumerate() {
            let Some(events) = level.oom_events else { continue };
            let unknown = Counter { events: if self.complete { 0 } else { events }, unexplained: 0 };
            let last = self.last.get(&level.id).copied().unwrap_or(unknown);
            let rise = events.saturating_sub(last.events);
            let explained = u64::from(found == Found::Level(index));
            let unexplained = (last.unexplained + rise).saturating_sub(explained);
            self.remember(level.id, Counter { events, unexplained });
        }
        found
    }

    fn judge(&self, mark: &OomMark) -> Found {
        let scope = mark.reclaim.map(|reclaim| reclaim.scope);
        if scope == Some(ReclaimScope::Machine) {
            return Found::Node;
        }
        if mark.levels.is_empty() || mark.levels.iter().any(|level| level.oom_events.is_none()) {
            return Found::Unknown;
        }
        let Risen { surely, maybe } = self.risen(mark);
        let full = |indexes: &[usize]| -> Vec<usize> {
            indexes.iter().copied().filter(|index| mark.levels.get(*index).is_some_and(at_limit)).collect()
        };
        if let ([only], []) = (surely.as_slice(), maybe.as_slice()) {
            return Found::Level(*only);
        }
        match full(&[surely.as_slice(), maybe.as_slice()].concat()).as_slice() {
            [only] => return Found::Level(*only),
            [] if surely.len() == 1 => return Found::Level(surely[0]),
            [] => {}
            _ => return Found::Unknown,
        }
        match scope {
            Some(_) => self.without_rise(mark),
            None => Found::Unknown,
        }
    }

    /// The domain of a kill for a cgroup's limit whose rise was seen with another kill.
    fn without_rise(&self, mark: &OomMark) -> Found {
        let unexplained = |level: &Level| self.last.get(&level.id).is_some_and(|last| last.unexplained > 0);
        let rules: [&dyn Fn(&Level) -> bool; 3] = [&|_| true, &unexplained, &at_limit];
        for rule in rules {
            let had_oom = |level: &Level| level.oom_events > Some(0) && rule(level);
            let mut candidates = mark.levels.iter().enumerate().filter(|(_, level)| had_oom(level));
            if let (Some((index, _)), None) = (candidates.next(), candidates.next()) {
                return Found::Level(index);
            }
        }
        Found::Unknown
    }

    /// The levels whose counter rose since the last look, and those that may have, because there was no look.
    fn risen(&self, mark: &OomMark) -> Risen {
        let trust_baselines = mark.stamp.boot_ns > self.baseline_boot_ns;
        let mut risen = Risen::default();
        for (index, level) in mark.levels.iter().enumerate() {
            let events = level.oom_events.unwrap_or(0);
            let last = match self.last.get(&level.id) {
                Some(last) if trust_baselines => Some(last.events),
                None if trust_baselines && self.complete => Some(0),
                _ => None,
            };
            match last {
                Some(last) if events > last => risen.surely.push(index),
                None if events > 0 => risen.maybe.push(index),
                _ => {}
            }
        }
        risen
    }

    fn remember(&mut self, id: u64, counter: Counter) {
        if self.last.insert(id, counter).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED_CGROUPS
            && let Some(oldest) = self.order.pop_front()
        {
            self.last.remove(&oldest);
            // Without it "not remembered" no longer means "had none".
            self.complete = false;
        }
    }
}

/// Indexes of levels, leaf first.
#[derive(Debug, Default)]
struct Risen {
    surely: Vec<usize>,
    maybe: Vec<usize>,
}

/// Whether a cgroup uses all that it may, but for what CPUs hold back.
pub(super) fn at_limit(level: &Level) -> bool {
    match (level.limit_pages.flatten(), level.usage_pages) {
        (Some(limit), Some(usage)) => usage + CHARGE_SLACK_PAGES.min(limit / 16) >= limit,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::problem::oom::fixture::{level, mark};

    fn finder() -> DomainFinder {
        DomainFinder::new([], true, 0)
    }

    #[test]
    fn the_level_whose_counter_rose_is_the_domain() {
        let mut finder = finder();
        assert_eq!(finder.find(&mark(1).levels([level(9, 2, 0), level(5, 1, 1), level(1, 0, 0)])), Found::Level(1));
        assert_eq!(finder.find(&mark(2).levels([level(9, 2, 1), level(5, 1, 1), level(1, 0, 0)])), Found::Level(0));
    }

    #[test]
    fn without_a_rise_and_without_a_reclaim_nothing_can_be_told() {
        let mut finder = finder();
        assert_eq!(finder.find(&mark(1).levels([level(5, 1, 0), level(1, 0, 0)])), Found::Unknown);
    }

    #[test]
    fn counters_from_before_the_start_do_not_count() {
        let mut finder = DomainFinder::new([(5, 7)], true, 0);
        assert_eq!(finder.find(&mark(1).levels([level(5, 1, 7), level(1, 0, 0)])), Found::Unknown);
        assert_eq!(finder.find(&mark(2).levels([level(5, 1, 8), level(1, 0, 0)])), Found::Level(0));
    }

    #[test]
    fn a_mark_older_than_the_baselines_is_judged_by_usage() {
        let mut finder = DomainFinder::new([(5, 1)], true, 10);
        let mut full = level(5, 1, 1);
        full.limit_pages = Some(Some(100_000));
        full.usage_pages = Some(100_000);
        assert_eq!(finder.find(&mark(9).levels([full, level(1, 0, 0)])), Found::Level(0));
    }

    #[test]
    fn two_that_rose_and_are_both_full_are_unknown() {
        let mut finder = finder();
        let full = |id, depth| Level { limit_pages: Some(Some(1000)), usage_pages: Some(1000), ..level(id, depth, 1) };
        assert_eq!(finder.find(&mark(1).levels([full(9, 2), full(5, 1), level(1, 0, 0)])), Found::Unknown);
    }

    #[test]
    fn of_two_that_rose_the_full_one_is_the_domain() {
        let mut finder = finder();
        let full = Level { limit_pages: Some(Some(1000)), usage_pages: Some(1000), ..level(9, 2, 1) };
        let half = Level { limit_pages: Some(Some(1000)), usage_pages: Some(500), ..level(5, 1, 1) };
        assert_eq!(finder.find(&mark(1).levels([full, half, level(1, 0, 0)])), Found::Level(0));
    }

    #[test]
    fn on_cgroup_v1_an_old_counter_of_a_cgroup_with_room_is_not_the_domain() {
        let mut finder = DomainFinder::new([], false, 0);
        let roomy = Level { limit_pages: Some(Some(1000)), usage_pages: Some(10), ..level(5, 1, 4) };
        assert_eq!(finder.find(&mark(1).levels([roomy, level(1, 0, 0)])), Found::Unknown);
    }

    #[test]
    fn a_cgroup_made_after_the_start_has_had_none() {
        let mut finder = DomainFinder::new([], false, 0);
        finder.made(5);
        assert_eq!(finder.find(&mark(1).levels([level(5, 1, 1), level(1, 0, 0)])), Found::Level(0));
    }

    #[test]
    fn reclaim_of_the_machine_outweighs_a_counter_that_rose_beside_it() {
        let node = mark(1).levels([level(5, 1, 1), level(1, 0, 0)]).reclaimed(1, ReclaimScope::Machine);
        assert_eq!(finder().find(&node), Found::Node);
    }

    #[test]
    fn the_second_of_two_that_hit_a_limit_at_once_is_not_the_machine() {
        let mut finder = finder();
        let kill = |at, leaf, parent| {
            let levels = [level(9, 2, leaf), level(5, 1, parent), level(1, 0, 0)];
            mark(at).levels(levels).reclaimed(at, ReclaimScope::Cgroup)
        };
        assert_eq!(finder.find(&kill(1, 0, 2)), Found::Level(1));
        assert_eq!(finder.find(&kill(2, 0, 2)), Found::Level(1));
        // The leaf has had an OOM as well; the parent alone has one that no kill explains.
        assert_eq!(finder.find(&kill(3, 1, 2)), Found::Level(0));
        assert_eq!(finder.find(&kill(4, 1, 4)), Found::Level(1));
        assert_eq!(finder.find(&kill(5, 1, 4)), Found::Level(1));
    }

    #[test]
    fn of_several_that_had_an_oom_the_one_without_room_is_the_domain() {
        let mut finder = DomainFinder::new([(9, 1), (5, 1)], true, 0);
        let full = Level { limit_pages: Some(Some(1000)), usage_pages: Some(998), ..level(5, 1, 1) };
        let kill = mark(1).levels([level(9, 2, 1), full, level(1, 0, 0)]).reclaimed(1, ReclaimScope::Cgroup);
        assert_eq!(finder.find(&kill), Found::Level(1));
        let roomy = mark(2).levels([level(9, 2, 1), level(5, 1, 1), level(1, 0, 0)]).reclaimed(2, ReclaimScope::Cgroup);
        assert_eq!(finder.find(&roomy), Found::Unknown);
    }

    #[test]
    fn a_cgroup_without_a_trace_of_which_is_unknown() {
        let kill = mark(1).levels([level(5, 1, 0), level(1, 0, 0)]).reclaimed(1, ReclaimScope::Cgroup);
        assert_eq!(finder().find(&kill), Found::Unknown);
    }

    #[test]
    fn a_renamed_cgroup_keeps_its_counter() {
        let mut finder = DomainFinder::new([(5, 3)], false, 0);
        finder.made(5);
        assert_eq!(finder.find(&mark(1).levels([level(5, 1, 3), level(1, 0, 0)])), Found::Unknown);
    }

    #[test]
    fn a_tree_deeper_than_a_record_is_unknown_rather_than_the_machine() {
        let mut deep = mark(1).levels([level(5, 30, 0)]);
        deep.levels_cut = true;
        assert_eq!(finder().find(&deep), Found::Unknown);
    }

    #[test]
    fn what_a_cgroup_had_before_the_first_look_needs_no_explanation() {
        let mut finder = DomainFinder::new([], false, 0);
        finder.made(9);
        let kill = |at, leaf| {
            let full = |id, d, e| Level { limit_pages: Some(Some(1000)), usage_pages: Some(1000), ..level(id, d, e) };
            mark(at)
                .levels([full(9, 2, leaf), Level { usage_pages: Some(10), ..full(5, 1, 7) }, level(1, 0, 0)])
                .reclaimed(at, ReclaimScope::Cgroup)
        };
        assert_eq!(finder.find(&kill(1, 1)), Found::Level(0));
        assert_eq!(finder.find(&kill(2, 1)), Found::Level(0));
    }

    #[test]
    fn cgroups_that_come_and_go_do_not_push_out_a_counter() {
        let mut finder = DomainFinder::new([(5, 7)], true, 0);
        for id in 100..100 + REMEMBERED_CGROUPS as u64 {
            finder.made(id);
        }
        assert!(finder.complete && finder.last.contains_key(&5));
    }

    #[test]
    fn memory_is_bounded_and_forgetting_is_not_mistaken_for_zero() {
        let finder = DomainFinder::new((0..REMEMBERED_CGROUPS as u64 + 10).map(|id| (id, 1)), true, 0);
        assert_eq!(finder.last.len(), REMEMBERED_CGROUPS);
        assert!(!finder.complete);
    }
}
