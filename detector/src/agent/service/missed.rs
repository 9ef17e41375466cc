//! Kills that the kernel side counted and nobody told: the ring was full, or nobody read it for too long.
//!
//! The kernel counts a kill before it writes its record, and the counts are read before the records: what was counted at
//! one look is told by the next one, seconds later, or it is missed for good.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A memory cgroup: number of its hierarchy, and its id.
pub(super) type Key = (u32, u64);

/// Cgroups that kills are told of: twice as many as the map of the kernel side holds, for those that it has yet to count
/// and those that it has just forgotten.
const CGROUPS: usize = 16_384;

/// Kills told and missed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Missed {
    /// The kernel's id of the map that counts.
    map: Option<u32>,
    /// By cgroup. Written down as a list, because JSON knows no such keys.
    #[serde(with = "as_list")]
    cgroups: BTreeMap<Key, Account>,
    /// Kills told of which nobody knows the cgroup: as long as there are any, they may be those that seem to be missing.
    nowhere: u64,
    /// Those among them that the kernel could not place either.
    counted_nowhere: u64,
}

/// Kills in one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    /// Told, or given up as missed.
    told: u64,
    /// The same at the last look.
    told_before: u64,
    /// Counted at the last look.
    counted_before: u64,
    /// Somebody can be told whose they are.
    #[serde(skip)]
    placed: bool,
}

/// What the kernel side counted in one cgroup.
#[derive(Clone, Copy, Debug)]
pub(super) struct CgroupCount {
    /// `None`: it could not be told.
    pub(super) cgroup: Option<Key>,
    /// Somebody can be told whose they are. What cannot be placed is not missed, but waits.
    pub(super) placed: bool,
    pub(super) kills: u64,
}

impl Missed {
    /// A kill in `cgroup` was told, and the kernel side may have counted it.
    pub(super) fn told(&mut self, cgroup: Option<Key>) {
        let Some(cgroup) = cgroup else {
            self.nowhere += 1;
            return;
        };
        if self.cgroups.len() < CGROUPS || self.cgroups.contains_key(&cgroup) {
            self.cgroups.entry(cgroup).or_default().told += 1;
        }
    }

    /// Counts are read from the map with this id from now on, in which so much is counted already. To be called before any
    /// kill is told.
    ///
    /// Ids rise. So what a later map counted happened since: it is missed unless records tell it. An earlier map was out of
    /// use for a run, the kills of which it may have counted, too: all that is in it is taken as told.
    pub(super) fn begin(&mut self, map: u32, counts: &[CgroupCount]) {
        let before = self.map.replace(map).unwrap_or(map);
        if before == map {
            return;
        }
        let known = counts.iter().filter(|_| map < before).filter_map(|count| Some((count.cgroup?, count.kills)));
        let account = |kills| Account { told: kills, told_before: kills, counted_before: kills, placed: false };
        let cgroups = known.map(|(key, kills)| (key, account(kills))).collect();
        *self = Self { map: Some(map), cgroups, ..Self::default() };
    }

    /// The map with this id has counted so much. Returns what is missed for good, each once.
    pub(super) fn counted(&mut self, counts: &[CgroupCount]) -> Vec<(Key, u64)> {
        let mut now: BTreeMap<Key, CgroupCount> = BTreeMap::new();
        for count in counts {
            match count.cgroup {
                Some(key) => drop(now.insert(key, *count)),
                None => self.counted_nowhere = count.kills,
            }
        }
        for key in now.keys() {
            self.cgroups.entry(*key).or_default();
        }
        // The kernel side counts them no more, and nothing was told since: they died long ago.
        self.cgroups.retain(|key, account| now.contains_key(key) || account.told > account.told_before);
        let mut missed = Vec::new();
        for (key, account) in &mut self.cgroups {
            let (counted, placed) = now.get(key).map_or((0, false), |count| (count.kills, count.placed));
            // What was told by the last look is counted by now: if it is not, it never will be.
            account.told -= account.told_before.saturating_sub(counted).min(account.told);
            if placed {
                let missing = account.counted_before.min(counted).saturating_sub(account.told);
                let elsewhere = missing.min(self.nowhere.saturating_sub(self.counted_nowhere));
                self.nowhere -= elsewhere;
                account.told += missing;
                if missing > elsewhere {
                    missed.push((*key, missing - elsewhere));
                }
            }
            *account = Account { told_before: account.told, counted_before: counted, placed, ..*account };
        }
        missed
    }

    /// The map with this id has counted so much, and counts no more. Returns what is missed.
    pub(super) fn closed(&mut self, map: u32, counts: &[CgroupCount]) -> Vec<(Key, u64)> {
        if self.map.is_some_and(|ours| ours != map) {
            return Vec::new();
        }
        self.map = Some(map);
        // All of it was counted before, and told since or never.
        self.counted(counts);
        self.counted(counts)
    }

    /// Whether another look is needed.
    pub(super) fn suspects(&self) -> bool {
        self.cgroups.values().any(|account| account.placed && account.counted_before > account.told)
    }
}

/// A map as the list of its entries.
mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Account, Key};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<Key, Account>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(map)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Key, Account>, D::Error> {
        Vec::deserialize(from).map(|list| list.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Key = (4, 11);
    const B: Key = (4, 12);

    fn count(cgroup: Key, kills: u64) -> CgroupCount {
        CgroupCount { cgroup: Some(cgroup), placed: true, kills }
    }

    fn told(missed: &mut Missed, cgroup: Key, kills: u64) {
        (0..kills).for_each(|_| missed.told(Some(cgroup)));
    }

    fn begun(map: u32) -> Missed {
        let mut missed = Missed::default();
        missed.begin(map, &[]);
        missed
    }

    #[test]
    fn a_count_that_is_ahead_for_a_moment_is_no_miss() {
        let mut missed = begun(1);
        assert_eq!(missed.counted(&[count(A, 1)]), []);
        assert!(missed.suspects());
        missed.told(Some(A));
        assert_eq!(missed.counted(&[count(A, 1)]), []);
        assert!(!missed.suspects());
    }

    #[test]
    fn in_a_storm_a_count_that_is_always_ahead_by_one_is_no_miss() {
        let mut missed = begun(1);
        told(&mut missed, A, 5);
        assert_eq!(missed.counted(&[count(A, 6)]), []);
        missed.told(Some(A));
        assert_eq!(missed.counted(&[count(A, 7)]), []);
        missed.told(Some(A));
        assert_eq!(missed.counted(&[count(A, 7)]), []);
        assert!(!missed.suspects());
    }

    #[test]
    fn what_is_missing_twice_is_missed_once() {
        let mut missed = begun(1);
        missed.told(Some(A));
        assert_eq!(missed.counted(&[count(A, 4), count(B, 1)]), []);
        assert_eq!(missed.counted(&[count(A, 5), count(B, 1)]), [(A, 3), (B, 1)]);
        assert_eq!(missed.counted(&[count(A, 5), count(B, 1)]), [(A, 1)]);
        assert_eq!(missed.counted(&[count(A, 5), count(B, 1)]), []);
    }

    #[test]
    fn a_kill_told_before_its_cgroup_was_read_is_no_miss_later() {
        let mut missed = begun(1);
        missed.told(Some(A));
        // Read before the record was.
        assert_eq!(missed.counted(&[]), []);
        assert_eq!(missed.counted(&[count(A, 1)]), []);
        assert_eq!(missed.counted(&[count(A, 1)]), []);
    }

    #[test]
    fn what_the_kernel_side_has_forgotten_is_forgotten() {
        let mut missed = begun(1);
        missed.told(Some(A));
        for _ in 0..2 {
            assert_eq!(missed.counted(&[count(A, 1)]), []);
        }
        assert_eq!(missed.counted(&[]), []);
        assert!(missed.cgroups.is_empty());
        assert_eq!(missed.counted(&[count(A, 1)]), []);
        assert_eq!(missed.counted(&[count(A, 1)]), [(A, 1)]);
    }

    #[test]
    fn what_cannot_be_placed_waits_and_is_not_forgotten() {
        let mut missed = begun(1);
        missed.told(Some(A));
        let unplaced = |kills| [CgroupCount { placed: false, ..count(A, kills) }];
        assert_eq!(missed.counted(&[count(A, 2)]), []);
        assert_eq!(missed.counted(&unplaced(2)), []);
        assert!(!missed.suspects());
        assert_eq!(missed.counted(&[count(A, 2)]), [(A, 1)]);
    }

    #[test]
    fn kills_told_without_their_cgroup_are_not_missed_where_they_were_counted() {
        let mut missed = begun(1);
        missed.told(None);
        missed.told(None);
        assert_eq!(missed.counted(&[count(A, 3)]), []);
        assert_eq!(missed.counted(&[count(A, 3)]), [(A, 1)]);
        // They are used up.
        assert_eq!(missed.counted(&[count(A, 4)]), []);
        assert_eq!(missed.counted(&[count(A, 4)]), [(A, 1)]);
    }

    #[test]
    fn kills_that_the_kernel_could_not_place_either_explain_nothing() {
        let mut missed = begun(1);
        missed.told(None);
        let counts = [CgroupCount { cgroup: None, placed: false, kills: 1 }, count(A, 1)];
        assert_eq!(missed.counted(&counts), []);
        assert_eq!(missed.counted(&counts), [(A, 1)]);
    }

    #[test]
    fn what_the_kernel_side_never_counts_hides_no_later_loss() {
        let mut missed = begun(1);
        missed.told(Some(B));
        told(&mut missed, A, 3);
        for _ in 0..2 {
            assert_eq!(missed.counted(&[count(B, 1)]), []);
        }
        told(&mut missed, B, 2);
        for _ in 0..2 {
            assert_eq!(missed.counted(&[count(B, 1)]), []);
        }
        assert_eq!(missed.counted(&[count(A, 2), count(B, 2)]), []);
        assert_eq!(missed.counted(&[count(A, 2), count(B, 2)]), [(A, 2), (B, 1)]);
    }

    #[test]
    fn a_map_that_counts_from_the_beginning_hides_no_loss() {
        let mut missed = begun(1);
        told(&mut missed, A, 5);
        for _ in 0..2 {
            assert_eq!(missed.counted(&[count(A, 5)]), []);
        }
        missed.begin(2, &[count(A, 1)]);
        assert_eq!(missed.counted(&[count(A, 2)]), []);
        assert_eq!(missed.counted(&[count(A, 2)]), [(A, 2)]);
    }

    #[test]
    fn a_map_from_the_time_before_last_tells_nothing_twice() {
        let mut missed = begun(2);
        told(&mut missed, A, 3);
        // The first of them were told two runs ago, the others counted by both maps.
        missed.begin(1, &[count(A, 8)]);
        for _ in 0..3 {
            assert_eq!(missed.counted(&[count(A, 8)]), []);
        }
        assert_eq!(missed.counted(&[count(A, 9)]), []);
        assert_eq!(missed.counted(&[count(A, 9)]), [(A, 1)]);
    }

    #[test]
    fn what_another_version_counted_and_did_not_tell_is_missed_at_once() {
        let mut missed = begun(1);
        missed.told(Some(A));
        assert_eq!(missed.closed(1, &[count(A, 4)]), [(A, 3)]);
        assert_eq!(begun(2).closed(1, &[count(A, 4)]), []);
        assert_eq!(Missed::default().closed(1, &[count(A, 4)]), [(A, 4)]);
    }

    #[test]
    fn what_is_saved_is_known_again() {
        let mut missed = begun(1);
        missed.told(Some(A));
        missed.told(None);
        assert_eq!(missed.counted(&[count(A, 3)]), []);
        let saved = serde_json::to_string(&missed).unwrap();
        let mut again: Missed = serde_json::from_str(&saved).unwrap();
        again.begin(1, &[count(A, 3)]);
        assert_eq!(again.counted(&[count(A, 3)]), [(A, 1)]);
    }
}
