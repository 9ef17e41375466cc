//! What the kernel side counted of itself.

use aya::{
    Ebpf,
    maps::{MapData, MapError, PerCpuArray},
};
use detector_common::{Kind, counter};
use thiserror::Error;

/// Name of the map.
pub(super) const COUNTERS: &str = "COUNTERS";

/// Counters of the kernel side.
pub struct Health {
    counters: PerCpuArray<MapData, u64>,
}

/// Kills that the kernel side could not count by their cgroup, because the map of counts is full: their records came, but
/// would they be lost, nobody would know.
pub const UNCOUNTED_KILLS: &str = "uncounted_kills";

/// Records that found their ring full, of one kind, or [`UNCOUNTED_KILLS`], since the map of counters was made: where the
/// kernel side is kept, by an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Name of the kind of record, or [`UNCOUNTED_KILLS`].
    pub kind: &'static str,
    /// How many.
    pub count: u64,
}

/// Records of one kind since the object was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Name of the kind.
    pub kind: &'static str,
    /// Records that reached their ring.
    pub written: u64,
    /// Records that found it full.
    pub dropped: u64,
}

/// Why the counters cannot be read.
#[derive(Debug, Error)]
pub enum HealthError {
    /// The object has no such map: kernel side and user side are not of one build.
    #[error("the kernel object has no map COUNTERS")]
    Missing,
    /// The kernel refused.
    #[error("reading the counters of the kernel side")]
    Read(#[from] MapError),
}

impl Health {
    /// Takes the counters out of the loaded object.
    ///
    /// # Errors
    /// If the object has none.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, HealthError> {
        let map = ebpf.take_map(COUNTERS).ok_or(HealthError::Missing)?;
        Ok(Self { counters: PerCpuArray::try_from(map)? })
    }

    /// Records lost to a full ring, for each kind of which any was lost, and kills that were not counted, if there are any.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn dropped(&self) -> Result<Vec<Dropped>, HealthError> {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            let count = self.sum(counter::dropped(kind))?;
            if let (Some(kind), 1..) = (kind.name(), count) {
                all.push(Dropped { kind, count });
            }
        }
        let uncounted = self.sum(counter::UNCOUNTED_KILLS)?;
        if uncounted > 0 {
            all.push(Dropped { kind: UNCOUNTED_KILLS, count: uncounted });
        }
        Ok(all)
    }

    /// Records of every kind, those that were never written too.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn traffic(&self) -> Result<Vec<Traffic>, HealthError> {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            let Some(name) = kind.name() else { continue };
            let (written, dropped) = (self.sum(counter::written(kind))?, self.sum(counter::dropped(kind))?);
            all.push(Traffic { kind: name, written, dropped });
        }
        Ok(all)
    }

    fn sum(&self, index: u32) -> Result<u64, HealthError> {
        Ok(self.counters.get(&index, 0)?.iter().sum())
    }
}
