//! The kernel side as a whole: loaded, attached, ready to be read.

use std::path::Path;

use detector_common::counter;
use thiserror::Error;

use super::{
    attach::{AttachError, Attached, Facts},
    cost::{self, Cost, CostError},
    event_fields::EventFields,
    health::{Dropped, Health, HealthError},
    object::{self, ObjectError},
    offsets::Offsets,
    ring::{Ring, RingError},
};
use crate::agent::{
    options::{Detector, Method},
    source::Records,
};

/// The loaded kernel side. Dropping it detaches everything.
pub struct Probe {
    /// Kills and what else must not be lost.
    pub precious: Ring,
    /// Life of cgroups.
    pub bulk: Ring,
    /// Counters of what did not fit.
    pub health: Health,
    offsets: Offsets,
    fields: EventFields,
    /// Holds programs to their hooks. Before the programs, so that it goes first.
    attached: Attached,
    /// Owns the programs.
    ebpf: aya::Ebpf,
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

/// A program that is attached no more, though nobody here detached it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Detector that needs it; `None`: it learns the paths of cgroups.
    pub detector: Option<Detector>,
    /// What is wrong, in a sentence that names the program.
    pub reason: String,
}

impl Probe {
    /// Loads the kernel side; nothing is attached yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn start(offsets: Offsets, memory_hierarchy: u32) -> Result<Self, ProbeError> {
        // The same tracefs that the loader library asks for the numbers of tracepoints.
        let fields = EventFields::read(Path::new("/"));
        let mut ebpf = object::load(&offsets, &fields, memory_hierarchy)?;
        let precious = Ring::take(&mut ebpf, "PRECIOUS")?;
        let bulk = Ring::take(&mut ebpf, "BULK")?;
        let health = Health::take(&mut ebpf)?;
        Ok(Self { precious, bulk, health, offsets, fields, attached: Attached::none(), ebpf })
    }

    /// Attaches what learns the paths of cgroups, by raw tracepoints, or by classic ones where the kernel tells nothing of
    /// its types; or attaches it anew, because it is [`Probe::broken`]. The cgroups must be walked after it: what was made or
    /// removed before was not seen. Returns the method.
    ///
    /// # Errors
    /// If the kernel refuses all methods; then none is attached.
    pub fn attach_cgroup_life(&mut self) -> Result<Method, AttachError> {
        self.attached.detach_cgroup_life(&mut self.ebpf);
        let facts = Facts { offsets: &self.offsets, fields: &self.fields };
        self.attached.cgroup_life(&mut self.ebpf, facts)
    }

    /// What is known of the kernel's structures.
    #[must_use]
    pub const fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    /// Attaches `method` of `detector`, which must have none attached. Returns what the method can do without and the
    /// kernel refused.
    ///
    /// # Errors
    /// If the kernel refuses what the method needs; then nothing of it is attached.
    pub fn attach(&mut self, detector: Detector, method: Method) -> Result<Vec<AttachError>, AttachError> {
        let facts = Facts { offsets: &self.offsets, fields: &self.fields };
        let attached = self.attached.attach(&mut self.ebpf, facts, detector, method);
        if attached.is_err() {
            self.detach(detector);
        }
        attached
    }

    /// Detaches whatever method `detector` has. What is in the rings stays there.
    pub fn detach(&mut self, detector: Detector) {
        self.attached.detach(&mut self.ebpf, detector);
    }

    /// What each loaded program has cost so far.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn costs(&self) -> Result<Vec<Cost>, CostError> {
        cost::of(&self.ebpf, &self.attached.programs())
    }

    /// Programs that are attached no more: somebody outside closed their links. Asks the kernel once for each program,
    /// about ten system calls. What is broken stays so until it is detached.
    #[must_use]
    pub fn broken(&self) -> Vec<Broken> {
        let broken = |(detector, program, hook)| Broken {
            detector,
            reason: format!("program {program} is attached to {hook} no more: its link was closed from outside"),
        };
        self.attached.broken().map(broken).collect()
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
