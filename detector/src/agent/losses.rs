//! What was lost, by stage and kind.

use std::collections::BTreeMap;

use super::{decode::DecodeError, source::bpf::health::Dropped};

/// Counts of lost records.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// By kind of record: those that found their ring full.
    pub(super) ring: BTreeMap<&'static str, u64>,
    /// By reason: those that could not be decoded.
    pub(super) decode: BTreeMap<&'static str, u64>,
}

impl Losses {
    /// Takes over the kernel side's counters; returns what is new since the last time.
    pub(super) fn ring_full(&mut self, dropped: &[Dropped]) -> Vec<Dropped> {
        let mut new = Vec::new();
        for Dropped { kind, count } in dropped {
            let before = self.ring.insert(kind, *count).unwrap_or(0);
            if *count > before {
                new.push(Dropped { kind, count: count - before });
            }
        }
        new
    }

    /// A record could not be decoded.
    pub(super) fn undecodable(&mut self, error: &DecodeError) {
        *self.decode.entry(error.reason()).or_default() += 1;
    }

    /// All of them.
    pub(super) fn total(&self) -> u64 {
        self.ring.values().chain(self.decode.values()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told_and_the_sum_counts_once() {
        let mut losses = Losses::default();
        assert_eq!(losses.ring_full(&[Dropped { kind: "oom_mark", count: 3 }]).len(), 1);
        assert_eq!(losses.ring_full(&[Dropped { kind: "oom_mark", count: 3 }]), []);
        let new = losses.ring_full(&[Dropped { kind: "oom_mark", count: 5 }]);
        assert_eq!(new, [Dropped { kind: "oom_mark", count: 2 }]);
        losses.undecodable(&DecodeError::Abi { found: 9 });
        assert_eq!(losses.total(), 6);
    }
}
