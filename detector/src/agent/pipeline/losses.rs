//! What was lost, by stage and kind.

use std::collections::BTreeMap;

use crate::agent::{
    decode::{DecodeError, kernel_log::LogError},
    options::Detector,
    source::bpf::health::Dropped,
};

/// Counts of lost records.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// By kind of record: those that found their ring full, and lines that the kernel's log had overwritten.
    pub(super) ring: BTreeMap<&'static str, u64>,
    /// By reason: those that could not be decoded.
    pub(super) decode: BTreeMap<&'static str, u64>,
    /// When records of a detector were last lost, nanoseconds since boot.
    last: BTreeMap<Detector, u64>,
}

impl Losses {
    /// Takes over the kernel side's counters at the time `now_ns`; returns what is new since the last time.
    pub(super) fn ring_full(&mut self, dropped: &[Dropped], now_ns: u64) -> Vec<Dropped> {
        let mut new = Vec::new();
        for Dropped { kind, count } in dropped {
            let before = self.ring.insert(kind, *count).unwrap_or(0);
            if *count > before {
                new.push(Dropped { kind, count: count - before });
                if let Some(detector) = detector_of(kind) {
                    self.last.insert(detector, now_ns);
                }
            }
        }
        new
    }

    /// A record could not be decoded.
    pub(super) fn undecodable(&mut self, error: &DecodeError) {
        *self.decode.entry(error.reason()).or_default() += 1;
    }

    /// Records of the kernel's log were overwritten before they were read.
    pub(super) fn log_overrun(&mut self, count: u64) {
        *self.ring.entry("kernel_log").or_default() += count;
    }

    /// A record of the kernel's log could not be read.
    pub(super) fn unreadable_line(&mut self, error: LogError) {
        *self.decode.entry(error.reason()).or_default() += 1;
    }

    /// When a record of `detector` was last seen to be lost, nanoseconds since boot.
    pub(super) fn last_of(&self, detector: Detector) -> Option<u64> {
        self.last.get(&detector).copied()
    }

    /// All of them.
    pub(super) fn total(&self) -> u64 {
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
}
