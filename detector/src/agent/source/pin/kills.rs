//! Kills per cgroup that the kernel side counted, also while nobody read its rings.

use std::{collections::BTreeMap, path::Path};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError},
};
use detector_common::kill_count::{CGROUPS, KillKey, UNKNOWN_CGROUP};
use thiserror::Error;

const NAME: &str = "OOM_KILLS";

/// The counts. They rise as long as the map lives: with pins, over restarts of this program.
pub struct KillCounts {
    map: HashMap<MapData, KillKey, u64>,
    id: u32,
}

/// All that one map counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The kernel's id of the map: another one counts from the beginning.
    pub map: u32,
    /// By cgroup, those with a kill.
    pub kills: Vec<Counted>,
}

/// Kills in one memory cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The victims' cgroup: number of its hierarchy, and its id. `None`: it could not be told.
    pub cgroup: Option<(u32, u64)>,
    /// Processes killed there. A process is counted once, also the chosen one of a group kill.
    pub kills: u64,
}

/// Why the counts cannot be read.
#[derive(Debug, Error)]
pub enum KillCountsError {
    /// The object has no such map: kernel side and user side are not of one build.
    #[error("the kernel object has no map {NAME}")]
    Missing,
    /// The kernel refused.
    #[error("{attempt} the counts of kills")]
    Map {
        /// What was attempted.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: MapError,
    },
}

impl KillCounts {
    /// Takes the counts out of the loaded object.
    ///
    /// # Errors
    /// If the object has none.
    pub fn of(ebpf: &mut Ebpf) -> Result<Self, KillCountsError> {
        Self::open(ebpf.take_map(NAME).ok_or(KillCountsError::Missing)?)
    }

    fn open(map: Map) -> Result<Self, KillCountsError> {
        let id = match &map {
            Map::HashMap(data) => data.info().map_err(failed("asking about"))?.id(),
            // Refused below.
            _ => 0,
        };
        let map = HashMap::try_from(map).map_err(failed("opening"))?;
        Ok(Self { map, id })
    }

    /// The counts of all cgroups, also of removed ones that were not [forgotten](Self::forget).
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn all(&self) -> Result<Counts, KillCountsError> {
        let mut all = BTreeMap::new();
        // One that is removed under our feet has the kernel begin anew; that must have an end.
        for entry in self.map.iter().take(2 * CGROUPS as usize) {
            let (key, kills) = match entry {
                Ok(entry) => entry,
                Err(MapError::KeyNotFound) => continue,
                Err(source) => return Err(failed("reading")(source)),
            };
            all.insert(key, kills);
        }
        let kills = all.into_iter().map(|(key, kills)| Counted { cgroup: of_key(key), kills }).collect();
        Ok(Counts { map: self.id, kills })
    }

    /// Forgets the count of a cgroup, which makes room for another. For one that was removed: in one that lives a kill
    /// between the last look and this would be counted for nobody. Nothing there is no error.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn forget(&mut self, cgroup: (u32, u64)) -> Result<(), KillCountsError> {
        match self.map.remove(&key(Some(cgroup))) {
            Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(failed("forgetting one of")),
        }
    }
}

/// The counts that are pinned in `directory`, whoever made them, if keys and values have the size of ours.
///
/// # Errors
/// If there are none that can be read.
pub(super) fn pinned(directory: &Path) -> Result<Counts, KillCountsError> {
    let map = MapData::from_pin(directory.join(NAME)).and_then(Map::from_map_data).map_err(failed("opening"))?;
    KillCounts::open(map)?.all()
}

fn failed(attempt: &'static str) -> impl FnOnce(MapError) -> KillCountsError {
    move |source| KillCountsError::Map { attempt, source }
}

fn key(cgroup: Option<(u32, u64)>) -> KillKey {
    cgroup.map_or(UNKNOWN_CGROUP, |(hierarchy, id)| [id, hierarchy.into()])
}

/// A hierarchy whose number does not fit was not written by us.
fn of_key(key: KillKey) -> Option<(u32, u64)> {
    let [id, hierarchy] = key;
    let hierarchy = u32::try_from(hierarchy).ok()?;
    (key != UNKNOWN_CGROUP).then_some((hierarchy, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_cgroup_and_back() {
        for cgroup in [None, Some((0, 1)), Some((9, u64::MAX))] {
            assert_eq!(of_key(key(cgroup)), cgroup);
        }
        assert_eq!(of_key([1, u64::MAX]), None);
    }
}
