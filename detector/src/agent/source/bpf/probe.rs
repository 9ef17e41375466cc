//! The kernel side as a whole: loaded, attached, ready to be read.

use detector_common::counter;
use thiserror::Error;

use super::{
    attach::{self, AttachError, Attached},
    health::{Dropped, Health, HealthError},
    object::{self, ObjectError},
    offsets::Offsets,
    ring::{Ring, RingError},
};
use crate::agent::{options::OomMethod, source::Records};

/// The attached kernel side. Dropping it detaches everything.
pub struct Probe {
    /// Kills and what else must not be lost.
    pub precious: Ring,
    /// Life of cgroups.
    pub bulk: Ring,
    /// Counters of what did not fit.
    pub health: Health,
    /// How OOM kills are seen.
    pub oom: Attached,
    /// Owns programs and links.
    _ebpf: aya::Ebpf,
}

/// Why the kernel side does not run.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// It cannot be loaded.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A ring cannot be opened.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The counters cannot be opened or read.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// A program cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl Probe {
    /// Loads the kernel side and attaches it: life of cgroups first, then OOM kills by `forced` or the best method that the
    /// kernel offers. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the kernel refuses what no method can do without, or `forced`.
    pub fn start(offsets: &Offsets, memory_hierarchy: u32, forced: Option<OomMethod>) -> Result<Self, ProbeError> {
        let mut ebpf = object::load(offsets, memory_hierarchy)?;
        let precious = Ring::take(&mut ebpf, "PRECIOUS")?;
        let bulk = Ring::take(&mut ebpf, "BULK")?;
        let health = Health::take(&mut ebpf)?;
        attach::cgroup_life(&mut ebpf)?;
        let oom = attach::oom(&mut ebpf, offsets, forced)?;
        Ok(Self { precious, bulk, health, oom, _ebpf: ebpf })
    }
}

impl Records for Probe {
    fn next(&mut self, ring: counter::Ring, record: &mut Vec<u8>) -> bool {
        match ring {
            counter::Ring::Precious => self.precious.next(record),
            counter::Ring::Bulk => self.bulk.next(record),
        }
    }

    fn dropped(&self) -> Result<Vec<Dropped>, HealthError> {
        self.health.dropped()
    }
}
