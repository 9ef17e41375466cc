//! What was lost, by stage and kind.

use std::collections::BTreeMap;

use crate::agent::{
    decode::{DecodeError, kernel_log::LogError},
    options::Detector,
    source::bpf::health::{Dropped, UNCOUNTED_KILLS},
};

/// Counts of lost records.
#[derive(Debug, Default)]
pub(in crate::agent::pipeline) struct Losses {
    /// By kind of record: those that found their ring full, and lines that the kernel's log had overwritten.
    pub(in crate::agent::pipeline) ring: BTreeMap<&'static str, u64>,
    /// By kind: what the kernel side's counters said when they were last read, or when an earlier run told of them.
    counters: BTreeMap<String, u64>,
    /// By reason: those that could not be decoded.
    pub(in crate::agent::pipeline) decode: BTreeMap<&'static str, u64>,
    /// When records of a detector were last lost, nanoseconds since boot.
    last: BTreeMap<Detector, u64>,
}

impl Losses {
    /// What lies before these counts was told by an earlier run.
    pub(in crate::agent::pipeline) fn begin_at(&mut self, counters: &[(String, u64)]) {
        self.counters.extend(counters.iter().cloned());
    }

    /// Takes over the kernel side's counters at the time `now_ns`; returns what is new since the last time.
    pub(in crate::agent::pipeline) fn ring_full(&mut self, dropped: &[Dropped], now_ns: u64) -> Vec<Dropped> {
        let mut new = Vec::new();
        for Dropped { kind, count } in dropped {
            let before = self.counters.insert((*kind).to_owned(), *count).unwrap_or(0);
            // A counter that went back began anew.
            let more = count.checked_sub(before).unwrap_or(*count);
            if more == 0 {
                continue;
            }
            new.push(Dropped { kind, count: more });
            // These have their records, and so are not lost.
            if *kind != UNCOUNTED_KILLS {
                *self.ring.entry(kind).or_default() += more;
            }
            if let Some(detector) = detector_of(kind) {
                self.last.insert(detector, now_ns);
            }
        }
        new
    }

    /// What a later run need not tell again: the counters, less what is `waiting` to be told of each kind.
    pub(in crate::agent::pipeline) fn told(&self, waiting: impl Fn(&str) -> u64) -> Vec<(String, u64)> {
        let told = |(kind, count): (&String, &u64)| (kind.clone(), count.saturating_sub(waiting(kind)));
        self.counters.iter().map(told).collect()
    }

    /// A record could not be decoded.
    pub(in crate::agent::pipeline) fn undecodable(&mut self, error: &DecodeError) {
        *self.decode.entry(error.reason()).or_default() += 1;
    }

    /// Records of the kernel's log were overwritten before they were read.
    pub(in crate::agent::pipeline) fn log_overrun(&mut self, count: u64) {
        *self.ring.entry("kernel_log").or_default() += count;
    }

    /// A record of the kernel's log could not be read.
    pub(in crate::agent::pipeline) fn unreadable_line(&mut self, error: LogError) {
        *self.decode.entry(error.reason()).or_default() += 1;
    }

    /// When a record of `detector` was last seen to be lost, nanoseconds since boot.
    pub(in crate::agent::pipeline) fn last_of(&self, detector: Detector) -> Option<u64> {
        self.last.get(&detector).copied()
    }

    /// All of them.
    pub(in crate::agent::pipeline) fn total(&self) -> u64 {
        self.ring.values().chain(self.decode.values()).sum()
    }
}

/// Whose records are of that kind.
fn detector_of(kind: &str) -> Option<Detector> {
    match kind {
        "oom_mark" => Some(Detector::Oom),
        "hung_task" => Some(Detector::HungTask),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told_and_the_sum_counts_once() {
        let mut losses = Losses::default();
        assert_eq!(losses.ring_full(&[Dropped { kind: "oom_mark", count: 3 }], 7).len(), 1);
        assert_eq!(losses.ring_full(&[Dropped { kind: "oom_mark", count: 3 }], 7), []);
        let new = losses.ring_full(&[Dropped { kind: "oom_mark", count: 5 }], 7);
        assert_eq!(new, [Dropped { kind: "oom_mark", count: 2 }]);
        losses.undecodable(&DecodeError::Abi { found: 9 });
        assert_eq!(losses.total(), 6);
        assert_eq!((losses.last_of(Detector::Oom), losses.last_of(Detector::HungTask)), (Some(7), None));
    }

    #[test]
    fn what_an_earlier_run_told_is_not_told_again_and_what_came_since_is() {
        let mut losses = Losses::default();
        losses.begin_at(&[("oom_mark".to_owned(), 3), ("cgroup_made".to_owned(), 8)]);
        let counters = [Dropped { kind: "oom_mark", count: 5 }, Dropped { kind: "cgroup_made", count: 8 }];
        assert_eq!(losses.ring_full(&counters, 7), [Dropped { kind: "oom_mark", count: 2 }]);
        assert_eq!(losses.total(), 2);
        let waiting = |kind: &str| if kind == "oom_mark" { 2 } else { 0 };
        assert_eq!(losses.told(waiting), [("cgroup_made".to_owned(), 8), ("oom_mark".to_owned(), 3)]);
    }

    #[test]
    fn counters_that_began_anew_are_told_whole() {
        let mut losses = Losses::default();
        losses.begin_at(&[("oom_mark".to_owned(), 30)]);
        let counters = [Dropped { kind: "oom_mark", count: 4 }];
        assert_eq!(losses.ring_full(&counters, 7), counters);
    }

    #[test]
    fn a_kill_that_was_not_counted_is_told_and_not_lost() {
        let mut losses = Losses::default();
        let counters = [Dropped { kind: UNCOUNTED_KILLS, count: 4 }];
        assert_eq!(losses.ring_full(&counters, 7), counters);
        assert_eq!(losses.total(), 0);
    }
}
