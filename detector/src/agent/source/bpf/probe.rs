//! The kernel side as a whole: loaded, attached, ready to be read.

use std::{collections::VecDeque, path::Path};

use aya::maps::MapError;
use detector_common::counter;
use thiserror::Error;

use super::{
    attach::{AttachError, Attached, Facts},
    cost::{self, Cost, CostError},
    event_fields::EventFields,
    health::{self, Dropped, Health, HealthError},
    link::Link,
    object::{self, Constants, KeepError, ObjectError},
    offsets::Offsets,
    ring::{self, Ring, RingError},
    rung::Hook,
};
use crate::agent::{
    options::{Detector, Method},
    source::{
        Records,
        last_words::{LastWordsError, Prepared},
        pin::{
            Abandoned, Former, Keeper, KillCounts, KillCountsError, Lasting, Owner, PinError, Pins, SEQUENCES,
            begin_sequences,
        },
        spool::Spool,
    },
};

/// The loaded kernel side. Dropping it detaches everything that is not kept by [`Pins`].
pub struct Probe {
    /// Kills and what else must not be lost.
    pub precious: Ring,
    /// Life of cgroups.
    pub bulk: Ring,
    /// Counters of what did not fit.
    pub health: Health,
    /// Kills per cgroup.
    pub kills: KillCounts,
    /// What the kernel says when it dies.
    pub last_words: Prepared,
    offsets: Offsets,
    fields: EventFields,
    /// Rings of another size that earlier programs kept: what is left in them comes first.
    former: VecDeque<Former>,
    /// Where records go before their place in the ring is given free.
    spool: Option<Spool>,
    /// What is kept, if anything.
    keeper: Option<Keeper>,
    /// Why not all of it is, though it was wanted.
    refused: Option<PinError>,
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
    /// The counts of kills cannot be opened.
    #[error(transparent)]
    Kills(#[from] KillCountsError),
    /// The maps of the probe on panic cannot be opened.
    #[error(transparent)]
    LastWords(#[from] LastWordsError),
    /// Numbers of records cannot begin where no earlier ones were.
    #[error("setting the number of the first record")]
    Sequences(#[source] MapError),
    /// Another program holds the pins ([`PinError::InUse`]).
    #[error(transparent)]
    Pins(PinError),
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

/// An attached program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Detector that needs it; `None`: it learns the paths of cgroups.
    pub detector: Option<Detector>,
    /// Its name.
    pub program: &'static str,
    /// What it is attached to.
    pub hook: Hook,
    /// How long it stays so.
    pub lasting: Lasting,
    /// The kernel's id of the program, where it has links (not for kprobes and classic tracepoints before Linux 5.15).
    pub program_id: Option<u32>,
}

impl Probe {
    /// Loads the kernel side; nothing is attached by it yet. Must be called within a tokio runtime.
    ///
    /// With `pins`, maps are adopted that an earlier program kept, and what is attached later will be kept. If nothing can
    /// be kept, it works without: see [`Probe::not_kept`].
    ///
    /// # Errors
    /// If the kernel refuses, or another program uses the same pins.
    pub fn start(offsets: Offsets, memory_hierarchy: u32, pins: Option<&Pins>) -> Result<Self, ProbeError> {
        // The same tracefs that the loader library asks for the numbers of tracepoints.
        let fields = EventFields::read(Path::new("/"));
        let constants = Constants::of(&offsets, &fields, memory_hierarchy);
        let (mut keeper, refused) = match pins.map(|pins| object::keep(pins, &constants)).transpose() {
            Ok(keeper) => (keeper, None),
            Err(KeepError::Object(error)) => return Err(error.into()),
            Err(KeepError::Pin(error @ PinError::InUse { .. })) => return Err(ProbeError::Pins(error)),
            Err(KeepError::Pin(error)) => (None, Some(error)),
        };
        let mut ebpf = object::load(&constants, keeper.as_ref())?;
        // Maps that are kept have their numbers.
        if let (None, Some(sequences)) = (&keeper, ebpf.map_mut(SEQUENCES)) {
            begin_sequences(sequences).map_err(ProbeError::Sequences)?;
        }
        let precious = Ring::take(&mut ebpf, "PRECIOUS")?;
        let bulk = Ring::take(&mut ebpf, "BULK")?;
        let health = Health::take(&mut ebpf)?;
        let kills = KillCounts::of(&mut ebpf)?;
        let last_words = Prepared::of(&mut ebpf)?;
        let former = keeper.as_mut().map(Keeper::take_former).unwrap_or_default().into();
        let (spool, attached) = (None, Attached::none());
        Ok(Self {
            precious,
            bulk,
            health,
            kills,
            last_words,
            offsets,
            fields,
            former,
            spool,
            keeper,
            refused,
            attached,
            ebpf,
        })
    }

    /// Attaches what learns the paths of cgroups, by raw tracepoints, or by classic ones where the kernel tells nothing of
    /// its types; or attaches it anew, because it is [`Probe::broken`]. The cgroups must be walked after it: what was made or
    /// removed before was not seen. Returns the method.
    ///
    /// # Errors
    /// If the kernel refuses all methods; then none is attached.
    pub fn attach_cgroup_life(&mut self) -> Result<Method, AttachError> {
        self.detach_owner(None);
        self.attach_and_keep(None, Attached::cgroup_life)
    }

    /// Tells the probe on panic where the kernel has what it looks at, of the machine seen through `root`.
    ///
    /// # Errors
    /// If some of it is not to be known.
    pub fn find_symbols(&mut self, root: &Path) -> Result<(), LastWordsError> {
        self.last_words.find_symbols(root, &self.offsets)
    }

    /// What is known of the kernel's structures.
    #[must_use]
    pub const fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    /// Attaches `method` of `detector`, which must have none attached by this process; what an earlier one kept is adopted
    /// as far as it belongs to the method, and the rest removed. Returns what the method can do without and the kernel
    /// refused.
    ///
    /// # Errors
    /// If the kernel refuses what the method needs; then nothing of it is attached, but what was kept stays as it was.
    pub fn attach(&mut self, detector: Detector, method: Method) -> Result<Vec<AttachError>, AttachError> {
        self.attach_and_keep(Some(detector), |attached, ebpf, facts| attached.attach(ebpf, facts, detector, method))
    }

    /// Detaches whatever method `detector` has, and keeps it no more. What is in the rings stays there.
    pub fn detach(&mut self, detector: Detector) {
        self.detach_owner(Some(detector));
    }

    /// Removes what an earlier program kept and nobody here attached: detectors that are off now, methods that were
    /// replaced. To be called once all detectors are attached that shall be.
    pub fn settle(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            let used: Vec<_> = self.attached.links().iter().filter_map(Link::pin).collect();
            let settled = keeper.settle(&used);
            self.note_refusal(settled);
        }
    }

    /// Why nothing, or not all, is kept for the next process, though it was wanted; `None` also if it was not wanted.
    #[must_use]
    pub const fn not_kept(&self) -> Option<&PinError> {
        self.refused.as_ref()
    }

    /// Whether maps of an earlier process were adopted: then counters go on from where they stood, and the rings may hold
    /// what happened since.
    #[must_use]
    pub fn adopted_maps(&self) -> bool {
        self.keeper.as_ref().is_some_and(Keeper::adopted_maps)
    }

    /// Whether counters of an earlier process go on.
    #[must_use]
    pub fn adopted_counters(&self) -> bool {
        self.adopted_maps() && !self.replaced_maps().iter().any(|name| name == health::COUNTERS)
    }

    /// Names of maps that were kept in another shape, or replaced by something else: what was counted there is lost, but
    /// records that were left in a ring are told.
    #[must_use]
    pub fn replaced_maps(&self) -> &[String] {
        self.keeper.as_ref().map_or(&[], Keeper::replaced)
    }

    /// What versions of this program with other records left behind: it is removed, and its records are lost. Known after
    /// [`Probe::settle`].
    #[must_use]
    pub fn abandoned(&self) -> &[Abandoned] {
        self.keeper.as_ref().map_or(&[], Keeper::abandoned)
    }

    /// All attached programs.
    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        let attachment = |link: &Link| Attachment {
            detector: link.detector,
            program: link.program,
            hook: link.hook,
            lasting: link.lasting.clone(),
            program_id: link.program_id(),
        };
        self.attached.links().iter().map(attachment).collect()
    }

    /// From now on each record of the precious ring is written to `spool` before its place in the ring is given free.
    pub fn set_spool(&mut self, spool: Spool) {
        self.spool = Some(spool);
    }

    /// The spool, to clear it and to ask how it fares.
    pub const fn spool(&mut self) -> Option<&mut Spool> {
        self.spool.as_mut()
    }

    /// What each program that this process loaded has cost so far; those that it adopted are left out.
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

    /// Attaches; then has it kept, and only then what was kept before of `owner` is silenced and removed.
    fn attach_and_keep<T>(
        &mut self,
        owner: Owner,
        attach: impl Fn(&mut Attached, &mut aya::Ebpf, Facts<'_>) -> Result<T, AttachError>,
    ) -> Result<T, AttachError> {
        loop {
            let facts = Facts { offsets: &self.offsets, fields: &self.fields, keeper: self.keeper.as_ref() };
            let attached = attach(&mut self.attached, &mut self.ebpf, facts);
            if attached.is_err() {
                self.attached.let_go(&mut self.ebpf, owner);
                return attached;
            }
            let Some(keeper) = &mut self.keeper else { return attached };
            if self.refused.is_none()
                && let Err(error) = self.attached.keep(&mut self.ebpf, keeper, owner)
            {
                // A link that the kernel would not pin is gone. Once more, without pins.
                self.refused = Some(error);
                self.attached.let_go(&mut self.ebpf, owner);
                continue;
            }
            let taken_over = keeper.take_over(owner, &self.attached.pins(owner));
            self.note_refusal(taken_over);
            return attached;
        }
    }

    fn detach_owner(&mut self, owner: Owner) {
        let is_held = self.attached.links().iter().any(|link| link.detector == owner);
        if let (Some(keeper), true) = (&mut self.keeper, is_held) {
            let given_up = keeper.give_up(owner, &self.attached.pins(owner));
            self.note_refusal(given_up);
        }
        self.attached.let_go(&mut self.ebpf, owner);
    }

    /// The next record of rings that were replaced. One that is empty is kept no more: whoever wrote to it is silent since
    /// all detectors are attached.
    fn next_of_former(&mut self, record: &mut Vec<u8>) -> bool {
        while let Some(former) = self.former.front_mut() {
            if ring::take(former.ring(), record, self.spool.as_mut()) {
                return true;
            }
            if let Some(empty) = self.former.pop_front() {
                empty.remove();
            }
        }
        false
    }

    fn note_refusal(&mut self, outcome: Result<(), PinError>) {
        if let (Err(error), None) = (outcome, &self.refused) {
            self.refused = Some(error);
        }
    }
}

impl Records for Probe {
    fn next(&mut self, ring: counter::Ring, record: &mut Vec<u8>) -> bool {
        match ring {
            counter::Ring::Precious => self.next_of_former(record) || self.precious.next(record, self.spool.as_mut()),
            counter::Ring::Bulk => self.bulk.next(record, None),
        }
    }

    fn dropped(&self) -> Result<Vec<Dropped>, HealthError> {
        self.health.dropped()
    }
}
