//! Which records were taken before: of each CPU all up to a moment.

use std::collections::BTreeMap;

use detector_common::Header;
use serde::{Deserialize, Serialize};

/// CPUs that are told apart: the most that the kernel can be built for (`NR_CPUS_RANGE_END` with `MAXSMP`,
/// `arch/x86/Kconfig`).
const CPUS: usize = 8192;

/// A record of the precious ring, among all that its CPU has written in this boot.
///
/// Ordered by time first: numbers rise within one set of maps only, time over all of them that a boot sees. Two records of
/// one CPU have the same time only if its clock is coarser than the writer is fast; then their numbers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// When it was written, nanoseconds since boot ([`Header::boot_ns`]).
    pub boot_ns: u64,
    /// Its number ([`Header::sequence`]).
    pub sequence: u64,
}

impl Moment {
    /// That of the record with this header.
    #[must_use]
    pub const fn of(header: &Header) -> Self {
        Self { boot_ns: header.boot_ns, sequence: header.sequence }
    }
}

/// The newest record of the precious ring taken so far, for each CPU. Records of a CPU lie in the ring in their order, and
/// what is written to other maps later, because these could not be kept, is later in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    newest: BTreeMap<u32, Moment>,
}

impl Seen {
    /// As a [`Self::snapshot`] of this boot tells it; of another boot it must not be used.
    #[must_use]
    pub fn restore(saved: impl IntoIterator<Item = (u32, Moment)>) -> Self {
        let mut seen = Self::default();
        saved.into_iter().for_each(|(cpu, moment)| {
            seen.is_new(cpu, moment);
        });
        seen
    }

    /// Whether the record was not taken before; it is taken from now on. One of a CPU beyond the bound counts as new: a
    /// record told twice is better than none.
    pub fn is_new(&mut self, cpu: u32, moment: Moment) -> bool {
        let is_full = self.newest.len() >= CPUS;
        match self.newest.get_mut(&cpu) {
            Some(newest) if *newest >= moment => return false,
            Some(newest) => *newest = moment,
            None if is_full => {}
            None => {
                self.newest.insert(cpu, moment);
            }
        }
        true
    }

    /// CPUs and the newest of each, to be saved together with what the records led to.
    pub fn snapshot(&self) -> impl Iterator<Item = (u32, Moment)> {
        self.newest.iter().map(|(cpu, moment)| (*cpu, *moment))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(boot_ns: u64, sequence: u64) -> Moment {
        Moment { boot_ns, sequence }
    }

    #[test]
    fn each_cpu_counts_for_itself() {
        let mut seen = Seen::default();
        assert!(seen.is_new(0, at(50, 5)) && seen.is_new(1, at(50, 5)) && seen.is_new(0, at(60, 6)));
        assert!(!seen.is_new(0, at(60, 6)) && !seen.is_new(1, at(40, 4)));
    }

    #[test]
    fn what_was_saved_is_known_again() {
        let mut seen = Seen::restore([(0, at(70, 7)), (3, at(90, 9))]);
        assert_eq!(seen.snapshot().collect::<Vec<_>>(), [(0, at(70, 7)), (3, at(90, 9))]);
        assert!(!seen.is_new(0, at(70, 7)) && seen.is_new(0, at(80, 8)));
    }

    #[test]
    fn maps_that_number_from_the_beginning_again_hide_nothing() {
        let mut seen = Seen::restore([(0, at(70, 10_000_000_000_007))]);
        assert!(seen.is_new(0, at(80, 1)) && seen.is_new(0, at(90, 2)));
        // What the former maps hold of the time before is known, and what they hold of later is not.
        assert!(!seen.is_new(0, at(85, 10_000_000_000_008)) && seen.is_new(0, at(95, 10_000_000_000_009)));
    }

    #[test]
    fn a_clock_that_stands_still_hides_nothing() {
        let mut seen = Seen::default();
        assert!(seen.is_new(0, at(70, 7)) && seen.is_new(0, at(70, 8)) && !seen.is_new(0, at(70, 8)));
    }

    #[test]
    fn cpus_beyond_the_bound_are_never_held_back() {
        let mut seen = Seen::restore((0..2 * CPUS as u32).map(|cpu| (cpu, at(1, 1))));
        assert_eq!(seen.snapshot().count(), CPUS);
        assert!(seen.is_new(u32::MAX, at(1, 1)) && seen.is_new(u32::MAX, at(1, 1)));
    }

    proptest! {
        #[test]
        fn a_kill_at_any_moment_neither_loses_a_record_nor_tells_it_twice(
            cpus in proptest::collection::vec(0u32..3, 1..60), saved in 0usize..60, spooled in 0usize..60, freed: bool,
        ) {
            // Numbers as the kernel gives them; the first `saved` are in the state, those up to `spooled` in the spool, and
            // the last of those is still in the ring if its place was not given free.
            let mut last = [0u64; 3];
            let records: Vec<_> = cpus.iter().enumerate().map(|(time, cpu)| {
                last[*cpu as usize] += 1;
                (*cpu, at(time as u64, last[*cpu as usize]))
            }).collect();
            let saved = saved.min(records.len());
            let spooled = spooled.clamp(saved, records.len());
            let before = Seen::restore(records[..saved].iter().copied());
            let mut seen = Seen::restore(before.snapshot());
            let ring = if freed { spooled } else { spooled.saturating_sub(1) };
            let told: Vec<_> = records[..spooled].iter().chain(&records[ring..])
                .filter(|(cpu, moment)| seen.is_new(*cpu, *moment)).copied().collect();
            prop_assert_eq!(told, records[saved..].to_vec());
        }
    }
}
