//! The stages behind the source, in order: decode, locate, judge, tell.
//!
//! Both rings are drained together, the bulk ring first, so that the path of a cgroup is known before a kill in it is
//! told; where a kill is faster than that, the bulk ring is drained once more before the cgroup counts as unknown.

mod account;
mod completion;
mod containers;
mod hangs;
mod hung_task;
mod kill;
mod log;
mod logged;
mod notices;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use detector_common::{Kind, counter::Ring};

pub use self::{
    account::{End, counted::Settled},
    logged::Silent,
};
use self::{
    account::{counted::Strays, located::Located, losses::Losses, reads::Reads, reckoning::Reckoning},
    hangs::Hangs,
    log::Log,
    notices::{Notices, kind_of},
};
use super::{
    decode::{self, CgroupChange, CgroupKey, CgroupLife, DecodeError, KernelEvent},
    locate::{LocateError, Locator, LocatorSnapshot, NameReader, Place, View, Worker},
    options::{Detector, Method},
    problem::{domain::DomainFinder, oom::OomRules},
    sink::{Sink, Stage, Started, Status},
    source::{Records, bpf::health::UNCOUNTED_KILLS, last_words::Naming, task},
    watch::AgentError,
};
use crate::{
    cause::error_chain,
    clock::{self, BootClock, WallClock},
};

/// Containers whose names are asked for between two batches of records.
const NAMES_PER_BATCH: usize = 256;
/// After records of cgroup life were lost the tree is walked again, but not more often than this.
pub const WALK_INTERVAL_NS: u64 = 10 * 1_000_000_000;

/// Whether the flow goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It does.
    Waiting,
    /// As many kills and hangs as were asked for have been told.
    Enough,
}

/// Stages 2 to 5, and what they remember.
pub struct Pipeline<'a> {
    sink: &'a mut dyn Sink,
    locator: Locator,
    /// The sink keeps account of containers.
    tells_containers: bool,
    /// What became known of containers, where the probe on panic wants it.
    namings: Option<Vec<Naming>>,
    rules: OomRules,
    hangs: Hangs,
    reckoning: Reckoning,
    notices: Notices,
    losses: Losses,
    strays: Strays,
    located: Located,
    /// The sink could not save when it was last asked to.
    saving_failed: bool,
    reads: Reads,
    log: Log,
    /// How kills and hung tasks are learned of at present.
    oom_method: Option<Method>,
    hung_task_method: Option<Method>,
    /// Kills, and tasks that begin to hang, still to be told, where the number is limited.
    remaining: Option<u64>,
    unresolved: u64,
    /// Kills in a row that came without their decision, where a probe tells it.
    undecided: u32,
    last_walk_ns: u64,
    /// When the rings were last read.
    drained_ns: u64,
    /// When a detector last changed its method: what was told just before, no program of the new one could see.
    changed_ns: BTreeMap<Detector, u64>,
    /// Records in a row that did not come although the log told of what they tell.
    misses: BTreeMap<Detector, u32>,
    /// Records of cgroup life were lost since the last walk.
    walk_owed: bool,
    clock: BootClock<'a>,
    root: PathBuf,
    /// Tasks can be looked up by the numbers that the kernel tells.
    sees_tasks: bool,
    /// The record in work, and the one of the bulk ring that is read meanwhile: kept for their memory.
    record: Vec<u8>,
    bulk_record: Vec<u8>,
}

impl<'a> Pipeline<'a> {
    /// Joins the stages for the machine seen through `root` (`/` for this machine) and learns its cgroups. The probes must
    /// be attached before. `count`: end after so many kills and hangs.
    ///
    /// # Errors
    /// If the hierarchy of memory cgroups cannot be found.
    pub fn start(
        sink: &'a mut dyn Sink,
        root: &Path,
        count: Option<u64>,
        clock: BootClock<'a>,
    ) -> Result<Self, LocateError> {
        Self::start_with(sink, root, count, clock, Box::new(Worker::new(root)))
    }

    /// The same with another `reader` of the runtimes' files.
    ///
    /// # Errors
    /// As [`Pipeline::start`].
    pub fn start_with(
        sink: &'a mut dyn Sink,
        root: &Path,
        count: Option<u64>,
        clock: BootClock<'a>,
        reader: Box<dyn NameReader>,
    ) -> Result<Self, LocateError> {
        Self::resume(sink, root, count, clock, reader, &LocatorSnapshot::default())
    }

    /// The same with what an earlier run of this boot knew of cgroups ([`Pipeline::snapshot`]).
    ///
    /// # Errors
    /// As [`Pipeline::start`].
    pub fn resume(
        sink: &'a mut dyn Sink,
        root: &Path,
        count: Option<u64>,
        clock: BootClock<'a>,
        reader: Box<dyn NameReader>,
        snapshot: &LocatorSnapshot,
    ) -> Result<Self, LocateError> {
        let (mut locator, baselines) = Locator::resume(root, reader, snapshot, clock())?;
        let tells_containers = sink.wants_containers();
        if tells_containers {
            locator.watch_changes(clock());
        }
        // On cgroup v1 no file tells how often a limit led to the OOM killer.
        let counters = locator.counters();
        let whole = locator.hierarchy().view == View::Whole && counters.unreadable + counters.left_out == 0;
        let complete = locator.hierarchy().number == 0 && whole;
        let known = baselines.iter().filter_map(|baseline| Some((baseline.key.id, baseline.oom_events?)));
        let rules = OomRules::new(DomainFinder::new(known, complete, clock()));
        Ok(Self {
            sink,
            locator,
            tells_containers,
            namings: None,
            rules,
            hangs: Hangs::new(root, clock::tick()),
            log: Log::new(rustix::param::page_size() as u64, tick_ns(), logged::now(clock)),
            reckoning: Reckoning::begin(root, &baselines, clock),
            notices: Notices::default(),
            losses: Losses::default(),
            strays: Strays::default(),
            located: Located::default(),
            saving_failed: false,
            reads: Reads::default(),
            oom_method: None,
            hung_task_method: None,
            remaining: count,
            unresolved: 0,
            undecided: 0,
            last_walk_ns: clock(),
            drained_ns: clock(),
            changed_ns: BTreeMap::new(),
            misses: BTreeMap::new(),
            walk_owed: false,
            clock,
            root: root.to_owned(),
            sees_tasks: task::sees_the_machine(root),
            record: Vec::new(),
            bulk_record: Vec::new(),
        })
    }

    /// Number of living cgroups that are known.
    #[must_use]
    pub fn cgroups(&self) -> u64 {
        self.locator.sizes().0 as u64
    }

    /// Tells that the probes are attached.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn begin(&mut self, started: &Started) -> Result<(), AgentError> {
        self.sink.started(started).map_err(AgentError::Output)?;
        if self.locator.hierarchy().view == View::Part {
            self.notices.add(Stage::Locate, "partial_view", 1, started.boot_ns, || {
                let mount = self.locator.hierarchy().mount.display();
                format!("{mount} shows a part of the cgroups only: those made before the start have no known path")
            });
        }
        self.end_batch()
    }

    /// Detectors that began after the start have these methods, or none. What was noted meanwhile is told at once, so that who
    /// asks once the agent is ready does not miss it.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn attached_late(&mut self, statuses: &[Status]) -> Result<(), AgentError> {
        for status in statuses {
            self.set_method(status.detector, status.method);
            self.sink.attached(status).map_err(AgentError::Output)?;
        }
        self.tell_notices()
    }

    /// From now on times are told by this measurement.
    pub fn set_wall_clock(&mut self, wall: WallClock) {
        self.sink.set_wall_clock(wall);
    }

    /// An earlier run told of these losses, by kind: the kernel side's counters go on from there.
    pub fn knows_of_losses(&mut self, told: &[(String, u64)]) {
        self.losses.begin_at(told);
    }

    /// From now on `detector` uses this method; `None`: it is blind or off.
    pub fn set_method(&mut self, detector: Detector, method: Option<Method>) {
        match detector {
            Detector::Oom => self.oom_method = method,
            Detector::HungTask => self.hung_task_method = method,
            // It sends no records that would be told by its name.
            Detector::Panic => {}
        }
    }

    fn method_of(&self, detector: Detector) -> Option<Method> {
        match detector {
            Detector::Oom => self.oom_method,
            Detector::HungTask => self.hung_task_method,
            Detector::Panic => None,
        }
    }

    /// Gives notice of something. `kind` is one of a closed set of words.
    pub fn note(&mut self, stage: Stage, kind: &'static str, message: impl FnOnce() -> String) {
        self.notices.add(stage, kind, 1, (self.clock)(), message);
    }

    /// The same for something that happened `count` times.
    pub fn note_many(&mut self, stage: Stage, kind: &'static str, count: u64, message: impl FnOnce() -> String) {
        self.notices.add(stage, kind, count, (self.clock)(), message);
    }

    /// Whether as many happenings as were asked for have been told.
    #[must_use]
    pub fn progress(&self) -> Progress {
        if self.remaining == Some(0) { Progress::Enough } else { Progress::Waiting }
    }

    /// Reads all records that are ready and tells what they mean.
    ///
    /// # Errors
    /// If the output cannot be written, or the kernel side does not tell what it lost.
    pub fn drain(&mut self, records: &mut impl Records) -> Result<Progress, AgentError> {
        self.drained_ns = (self.clock)();
        self.drain_bulk(records);
        let progress = self.drain_precious(records)?;
        self.look_for_losses(records)?;
        self.locator.fetch_names(NAMES_PER_BATCH);
        self.end_batch()?;
        Ok(progress)
    }

    /// Tells what waits in the ring of kills and hangs, and nothing else: for between two pieces of work that are in no
    /// hurry. Costs a look at memory if nothing waits.
    ///
    /// # Errors
    /// As [`Pipeline::drain`].
    pub fn drain_precious(&mut self, records: &mut impl Records) -> Result<Progress, AgentError> {
        let mut progress = self.progress();
        let mut told = false;
        while progress == Progress::Waiting && records.next(Ring::Precious, &mut self.record) {
            progress = self.take(records)?;
            told = true;
        }
        // Before anything else: a reader waits for these lines.
        if told {
            self.sink.flush().map_err(AgentError::Output)?;
        }
        Ok(progress)
    }

    fn take(&mut self, records: &mut impl Records) -> Result<Progress, AgentError> {
        let event = decode::decode(&self.record).inspect(|event| self.reads.record(event));
        match event {
            Ok(KernelEvent::OomMark(mark)) => return self.marked(mark, records),
            Ok(KernelEvent::CgroupLife(life)) => self.learn(&life),
            Ok(KernelEvent::HungTask(event)) => return self.hung(*event, records),
            Err(error) => self.undecodable(&error),
        }
        Ok(Progress::Waiting)
    }

    fn learn(&mut self, life: &CgroupLife) {
        if life.change == CgroupChange::Made && life.key.hierarchy == self.locator.hierarchy().number {
            self.rules.cgroup_made(life.key);
        }
        self.locator.apply(life);
    }

    fn count_down(&mut self, happenings: u64) -> Progress {
        self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(happenings));
        self.progress()
    }

    /// Who owns cgroup `key`, in which task `pid` lives. Records of cgroup life that wait are read first.
    fn place(
        &mut self,
        key: Option<CgroupKey>,
        pid: Option<u32>,
        boot_ns: u64,
        records: &mut impl Records,
    ) -> Result<Option<Arc<Place>>, AgentError> {
        let Some(key) = key else { return Ok(None) };
        if self.locator.path(key).is_none() {
            self.drain_bulk(records);
        }
        if self.locator.path(key).is_none() {
            self.look_for_losses(records)?;
        }
        let place = self.locator.place(key, pid, boot_ns);
        if place.is_none() {
            self.notices.add(Stage::Locate, "unresolved", 1, (self.clock)(), || {
                format!("cgroup {} of hierarchy {} has no known path", key.id, key.hierarchy)
            });
        }
        Ok(place)
    }

    fn drain_bulk(&mut self, records: &mut impl Records) {
        while records.next(Ring::Bulk, &mut self.bulk_record) {
            let event = decode::decode(&self.bulk_record).inspect(|event| self.reads.record(event));
            match event {
                Ok(KernelEvent::CgroupLife(life)) => self.learn(&life),
                // The kernel side never writes kills to this ring.
                Ok(KernelEvent::OomMark(_)) => self.undecodable(&DecodeError::Kind { found: Kind::OOM_MARK.0 }),
                Ok(KernelEvent::HungTask(_)) => self.undecodable(&DecodeError::Kind { found: Kind::HUNG_TASK.0 }),
                Err(error) => self.undecodable(&error),
            }
        }
    }

    fn undecodable(&mut self, error: &DecodeError) {
        self.losses.undecodable(error);
        self.notices.add(Stage::Decode, error.reason(), 1, (self.clock)(), || error.to_string());
    }

    fn look_for_losses(&mut self, records: &impl Records) -> Result<(), AgentError> {
        let now = (self.clock)();
        let new = self.losses.ring_full(&records.dropped()?, now);
        for dropped in &new {
            self.notices.add(Stage::Source, dropped.kind, dropped.count, now, || match dropped.kind {
                UNCOUNTED_KILLS => "the map of counts was full: kills were not counted in the kernel".to_owned(),
                kind => format!("the ring was full: records of kind {kind} were lost"),
            });
        }
        self.walk_owed |= new.iter().any(|dropped| dropped.kind.starts_with("cgroup"));
        self.walk_if_owed(now);
        Ok(())
    }

    /// What was lost too soon after the last walk is mended by the first look after the interval.
    fn walk_if_owed(&mut self, now: u64) {
        if self.walk_owed && now >= self.last_walk_ns.saturating_add(WALK_INTERVAL_NS) {
            self.walk_owed = false;
            self.last_walk_ns = now;
            self.locator.walk_again(now);
        }
    }

    fn note_errors(&mut self) {
        let now = (self.clock)();
        for error in self.locator.take_errors() {
            self.notices.add(Stage::Locate, kind_of(&error), 1, now, || error_chain(&error));
        }
        for hangs::Trouble { stage, kind, count, message } in self.hangs.end_batch() {
            self.notices.add(stage, kind, count, now, || message);
        }
    }

    fn end_batch(&mut self) -> Result<(), AgentError> {
        self.tell_containers()?;
        self.note_errors();
        self.tell_counts();
        self.tell_notices()
    }

    fn tell_notices(&mut self) -> Result<(), AgentError> {
        for notice in self.notices.take_due((self.clock)()) {
            self.sink.notice(&notice).map_err(AgentError::Output)?;
        }
        self.sink.flush().map_err(AgentError::Output)
    }
}

/// Length of a jiffy in nanoseconds.
fn tick_ns() -> u64 {
    clock::nanoseconds(clock::tick())
}
