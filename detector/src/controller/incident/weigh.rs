//! What all evidence of one incident amounts to, whoever told it and in whatever order it came.
//!
//! ```text
//! evidence (a set) ─▶ Weight: which witnesses there are ─▶ assess: cause, suspect, what remains possible
//!                                                        ─▶ lifecycle: phase       ─▶ plan: which steps
//! ```

use jiff::Timestamp;

use crate::contract::incident::{Confidence, EvidenceEntry, EvidenceKind, Origin};

/// Which witnesses there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// The kernel itself told its panic over netconsole: the best author of it.
    pub told: Option<Confidence>,
    /// When it was told first.
    pub told_at: Option<Timestamp>,
    /// The node found a record of its panic after the reboot.
    pub found_panic: bool,
    /// The node found that the boot before ended without a shutdown.
    pub found_unclean: bool,
    /// The node found that the boot before was shut down.
    pub found_clean: bool,
    /// The Lease is stale: since then.
    pub stale: Option<Timestamp>,
    /// The node is back: since then. Later than `stale` and `told_at`, else it is not back.
    pub fresh: Option<Timestamp>,
    /// The control plane gave the node up.
    pub given_up: bool,
    /// The node runs another boot.
    pub other_boot: bool,
    /// The node runs the same boot as before, and has not been silent since it said so.
    pub same_boot: bool,
    /// It said so after a panic was told.
    pub outlived: bool,
    /// The node's clock stood still while it was silent.
    pub clock_stood: bool,
    /// The node's clock went on while it was silent.
    pub clock_went_on: bool,
    /// Its kernel spoke while the Lease was stale, and of nothing that goes before a panic.
    pub kernel_spoke: bool,
    /// The Node object is gone.
    pub deleted: bool,
}

impl Weight {
    /// Weighs `evidence`; its order does not matter.
    #[must_use]
    pub fn of(evidence: &[EvidenceEntry]) -> Self {
        let mut weight = Self::default();
        for entry in evidence {
            weight.add(entry);
        }
        let last = |kind| evidence.iter().filter(|entry| entry.kind == kind).map(|entry| entry.time.0).max();
        let (same_boot, spoke) = (last(EvidenceKind::SameBoot), last(EvidenceKind::KernelSpoke));
        weight.same_boot = same_boot.is_some() && same_boot > weight.stale;
        weight.outlived = same_boot.is_some() && same_boot > weight.lost();
        let trouble = evidence.iter().any(|entry| entry.kind == EvidenceKind::Signature);
        weight.kernel_spoke = spoke.is_some() && spoke > weight.stale && !trouble;
        // Lost again after it was back: it is not back.
        if weight.fresh.is_some() && weight.fresh <= weight.lost() {
            weight.fresh = None;
        }
        weight
    }

    fn add(&mut self, entry: &EvidenceEntry) {
        let at = Some(entry.time.0);
        match entry.kind {
            EvidenceKind::Panic if entry.origin == Origin::Netconsole => {
                self.told = self.told.max(Some(entry.confidence));
                self.told_at = Some(self.told_at.map_or(entry.time.0, |told| told.min(entry.time.0)));
            }
            // Lines before a panic and the suspect's name prove no death; the others depend on what came before them.
            EvidenceKind::Panic
            | EvidenceKind::Signature
            | EvidenceKind::LastWords
            | EvidenceKind::SameBoot
            | EvidenceKind::KernelSpoke => {}
            EvidenceKind::LeaseStale => self.stale = self.stale.max(at),
            EvidenceKind::LeaseFresh => self.fresh = self.fresh.max(at),
            EvidenceKind::ReadyUnknown => self.given_up = true,
            EvidenceKind::OtherBoot => self.other_boot = true,
            EvidenceKind::ClockStood => self.clock_stood = true,
            EvidenceKind::ClockWentOn => self.clock_went_on = true,
            EvidenceKind::FoundPanic => self.found_panic = true,
            EvidenceKind::FoundUnclean => self.found_unclean = true,
            EvidenceKind::FoundClean => self.found_clean = true,
            EvidenceKind::NodeDeleted => self.deleted = true,
        }
    }

    /// When it was lost last: only what comes later is a sign of life.
    #[must_use]
    pub fn lost(&self) -> Option<Timestamp> {
        self.stale.max(self.told_at)
    }

    /// Somebody says that the kernel panicked.
    #[must_use]
    pub fn panicked(&self) -> bool {
        self.told.is_some() || self.found_panic
    }

    /// The node is back and has been heard of since it was lost.
    #[must_use]
    pub fn is_back(&self) -> bool {
        self.fresh.is_some()
    }

    /// A panic was told, and the node lives on with the same boot: what was told is not true. A node that is back and has not
    /// said which boot it runs refutes nothing.
    ///
    /// A record that the node itself found after a reboot is never wrong in this way.
    #[must_use]
    pub fn refuted(&self) -> bool {
        self.told.is_some() && !self.found_panic && self.outlived && self.is_back() && !self.deleted
    }

    /// Whether it is known which boot is back.
    #[must_use]
    pub fn knows_boot(&self) -> bool {
        self.same_boot || self.other_boot
    }

    /// The kernel of that boot is dead: two independent witnesses.
    ///
    /// A stale Lease and a Node that was given up are one and the same witness, of silence: without a panic that was told
    /// only another boot proves a death. Who comes back with the same boot never was dead.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        let silent = self.stale.is_some() && self.given_up;
        self.other_boot || (self.told.is_some() && silent && !self.same_boot)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::fixture::entry, *};

    const KINDS: [EvidenceKind; 16] = [
        EvidenceKind::Panic,
        EvidenceKind::Signature,
        EvidenceKind::LastWords,
        EvidenceKind::LeaseStale,
        EvidenceKind::LeaseFresh,
        EvidenceKind::ReadyUnknown,
        EvidenceKind::OtherBoot,
        EvidenceKind::SameBoot,
        EvidenceKind::ClockStood,
        EvidenceKind::ClockWentOn,
        EvidenceKind::KernelSpoke,
        EvidenceKind::FoundPanic,
        EvidenceKind::FoundUnclean,
        EvidenceKind::FoundClean,
        EvidenceKind::NodeDeleted,
        EvidenceKind::Panic,
    ];

    proptest! {
        #[test]
        fn the_order_in_which_evidence_comes_does_not_matter(
            mut told in prop::collection::vec((0_usize..16, 0_i64..20), 0..12),
            seed in any::<u64>(),
        ) {
            let weigh = |told: &[(usize, i64)]| {
                Weight::of(&told.iter().map(|(kind, at)| entry(KINDS[*kind], *at)).collect::<Vec<_>>())
            };
            let before = weigh(&told);
            let turn = usize::try_from(seed % 13).unwrap_or(0).min(told.len());
            told.rotate_left(turn);
            prop_assert_eq!(weigh(&told), before);
            told.reverse();
            prop_assert_eq!(weigh(&told), before);
        }

        #[test]
        fn nobody_is_dead_by_silence_alone(told in prop::collection::vec((3_usize..6, 0_i64..20), 0..12)) {
            let evidence: Vec<_> = told.iter().map(|(kind, at)| entry(KINDS[*kind], *at)).collect();
            prop_assert!(!Weight::of(&evidence).is_dead());
        }
    }

    #[test]
    fn a_told_panic_and_a_silent_node_are_a_death() {
        let evidence =
            [EvidenceKind::Panic, EvidenceKind::LeaseStale, EvidenceKind::ReadyUnknown].map(|kind| entry(kind, 1));
        assert!(Weight::of(&evidence).is_dead());
        assert!(!Weight::of(&evidence[..2]).is_dead(), "the control plane has not given it up");
    }

    #[test]
    fn a_node_that_is_lost_again_is_not_back() {
        let (stale, fresh) = (EvidenceKind::LeaseStale, EvidenceKind::LeaseFresh);
        assert!(Weight::of(&[entry(stale, 1), entry(fresh, 2)]).is_back());
        assert!(!Weight::of(&[entry(stale, 3), entry(fresh, 2)]).is_back());
    }

    #[test]
    fn a_panic_is_refuted_by_life_of_the_same_boot_and_not_by_another() {
        let told = [entry(EvidenceKind::Panic, 1), entry(EvidenceKind::LeaseFresh, 20)];
        let and = |kind| Weight::of(&[told[0].clone(), told[1].clone(), entry(kind, 20)]);
        assert!(and(EvidenceKind::SameBoot).refuted());
        assert!(!and(EvidenceKind::OtherBoot).refuted());
        assert!(!Weight::of(&told).refuted(), "a kubelet that starts renews its Lease before it tells its boot");
    }

    #[test]
    fn a_sign_of_life_before_a_panic_was_told_refutes_nothing() {
        let stall = [(EvidenceKind::LeaseStale, 1), (EvidenceKind::LeaseFresh, 20), (EvidenceKind::SameBoot, 35)];
        let mut all: Vec<_> = stall.map(|(kind, second)| entry(kind, second)).to_vec();
        assert!(Weight::of(&all).is_back());
        all.push(entry(EvidenceKind::Panic, 100));
        assert!(!Weight::of(&all).is_back() && !Weight::of(&all).refuted());
        all.push(entry(EvidenceKind::ReadyUnknown, 2));
        assert!(!Weight::of(&all).is_dead(), "its Lease is not stale again");
        all.push(EvidenceEntry { id: "again".to_owned(), ..entry(EvidenceKind::LeaseFresh, 120) });
        assert!(!Weight::of(&all).refuted(), "which boot is back has not been said yet");
        all.push(entry(EvidenceKind::SameBoot, 135));
        assert!(Weight::of(&all).refuted());
    }

    #[test]
    fn a_node_that_stalled_and_panicked_then_is_dead() {
        let stall = [(EvidenceKind::LeaseStale, 1), (EvidenceKind::ReadyUnknown, 2), (EvidenceKind::LeaseFresh, 20)];
        let panic = [(EvidenceKind::SameBoot, 35), (EvidenceKind::Panic, 100), (EvidenceKind::LeaseStale, 122)];
        let all: Vec<_> = stall.iter().chain(&panic).map(|(kind, second)| entry(*kind, *second)).collect();
        assert!(Weight::of(&all).is_dead());
    }

    #[test]
    fn a_kernel_that_spoke_before_it_fell_silent_or_of_trouble_excludes_nothing() {
        let spoke = |stale: i64, kind| {
            let all = [(EvidenceKind::LeaseStale, stale), (EvidenceKind::KernelSpoke, 30), (kind, 30)];
            Weight::of(&all.map(|(kind, second)| entry(kind, second))).kernel_spoke
        };
        assert!(spoke(20, EvidenceKind::ReadyUnknown));
        assert!(!spoke(40, EvidenceKind::ReadyUnknown));
        assert!(!spoke(20, EvidenceKind::Signature), "a soft lockup may be the end");
    }
}
