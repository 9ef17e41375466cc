//! Kills that the kernel side counted by cgroup, on their way to a sink that knows which were told; and which of these counts
//! nobody needs any more.

use std::collections::BTreeSet;

use crate::agent::{
    decode::CgroupKey,
    locate::View,
    pipeline::Pipeline,
    sink::{Booked, Counting, Tallied, Tally},
    source::pin::{Counted, Counts},
    watch::AgentError,
};

/// What became of counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// They are to be told again soon.
    pub again: bool,
    /// Cgroups that died so long ago that nobody knows them: their counts may go.
    pub forgotten: Vec<(u32, u64)>,
}

/// Cgroups that are counted and not known.
#[derive(Debug, Default)]
pub(in crate::agent::pipeline) struct Strays(BTreeSet<(u32, u64)>);

impl Strays {
    /// These are not known at present. Returns those that were not at the last look either: what made them has been read
    /// since, if it was not lost.
    fn look(&mut self, unknown: BTreeSet<(u32, u64)>) -> Vec<(u32, u64)> {
        let forgotten = self.0.intersection(&unknown).copied().collect();
        self.0 = unknown;
        forgotten
    }
}

impl Pipeline<'_> {
    /// Tells how many kills the kernel side counted, by cgroup.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn count_kills(&mut self, counts: &Counts, state: Counting) -> Result<Settled, AgentError> {
        let now = (self.clock)();
        let mut unknown = BTreeSet::new();
        let mut cgroups = Vec::with_capacity(counts.kills.len());
        for Counted { cgroup, kills } in &counts.kills {
            let key = cgroup.map(|(hierarchy, id)| CgroupKey { hierarchy, id });
            let known = key.filter(|key| self.locator.path(*key).is_some());
            let place = known.and_then(|key| self.locator.place(key, None, now));
            if known.is_none() {
                unknown.extend(*cgroup);
            }
            cgroups.push(Tallied { cgroup: key, place, kills: *kills });
        }
        let tally = Tally { state, map: counts.map, cgroups };
        let Booked { kills, again } = self.sink.counted(&tally).map_err(AgentError::Output)?;
        self.reckoning.booked(kills, &self.root);
        let is_settled = state == Counting::GoesOn && self.knows_all_cgroups();
        let forgotten = if is_settled { self.strays.look(unknown) } else { Vec::new() };
        Ok(Settled { again, forgotten })
    }

    /// Whether a cgroup that is not known is dead: none is out of sight, beyond the bounds, or was made while records were
    /// lost.
    fn knows_all_cgroups(&self) -> bool {
        let counters = self.locator.counters();
        let missing = counters.unreadable + counters.left_out + counters.tree.refused;
        self.locator.hierarchy().view == View::Whole && missing == 0 && !self.walk_owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_at_two_looks_is_forgotten_and_what_becomes_known_is_not() {
        let mut strays = Strays::default();
        assert_eq!(strays.look([(4, 1), (4, 2)].into()), []);
        assert_eq!(strays.look([(4, 1), (4, 3)].into()), [(4, 1)]);
        assert_eq!(strays.look([(4, 2)].into()), []);
        assert_eq!(strays.look([(4, 2)].into()), [(4, 2)]);
    }
}
