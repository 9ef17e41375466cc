//! The stages behind the source, in order: decode, locate, judge, tell.
//!
//! Both rings are drained together, the bulk ring first, so that the path of a cgroup is known before a kill in it is
//! told; where a kill is faster than that, the bulk ring is drained once more before the cgroup counts as unknown.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use detector_common::{Kind, counter::Ring};

use super::{
    decode::{self, CgroupChange, CgroupLife, DecodeError, KernelEvent, OomMark},
    locate::{LocateError, Locator, Place, View},
    losses::Losses,
    notices::Notices,
    problem::{
        OomKill, Transition,
        domain::DomainFinder,
        oom::{OomRules, Verdict},
    },
    reckoning::{QUIET_ATTEMPTS, Reckoning},
    sink::{Sink, Stage, Started, Summary},
    source::Records,
    watch::AgentError,
};
use crate::clock::{BootClock, WallClock};

/// Containers whose names are read between two batches of records.
const NAMES_PER_BATCH: usize = 16;
/// After records of cgroup life were lost the tree is walked again, but not more often than this.
pub const WALK_INTERVAL_NS: u64 = 10 * 1_000_000_000;

/// Whether the flow goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It does.
    Waiting,
    /// As many kills as were asked for have been told.
    Enough,
}

/// Stages 2 to 5, and what they remember.
pub struct Pipeline<'a> {
    sink: &'a mut dyn Sink,
    locator: Locator,
    rules: OomRules,
    reckoning: Reckoning,
    notices: Notices,
    losses: Losses,
    /// Kills still to be told, where the number is limited.
    remaining: Option<u64>,
    unresolved: u64,
    last_walk_ns: u64,
    /// Records of cgroup life were lost since the last walk.
    walk_owed: bool,
    clock: BootClock<'a>,
    root: PathBuf,
    /// The record in work, and the one of the bulk ring that is read meanwhile: kept for their memory.
    record: Vec<u8>,
    bulk_record: Vec<u8>,
}

impl<'a> Pipeline<'a> {
    /// Joins the stages for the machine seen through `root` (`/` for this machine) and learns its cgroups. The probes must
    /// be attached before. `count`: end after so many kills.
    ///
    /// # Errors
    /// If the hierarchy of memory cgroups cannot be found.
    pub fn start(
        sink: &'a mut dyn Sink,
        root: &Path,
        count: Option<u64>,
        clock: BootClock<'a>,
    ) -> Result<Self, LocateError> {
        let (locator, baselines) = Locator::start(root)?;
        // On cgroup v1 no file tells how often a limit led to the OOM killer.
        let counters = locator.counters();
        let whole = locator.hierarchy().view == View::Whole && counters.unreadable + counters.left_out == 0;
        let complete = locator.hierarchy().number == 0 && whole;
        let known = baselines.iter().filter_map(|baseline| Some((baseline.key.id, baseline.oom_events?)));
        let rules = OomRules::new(DomainFinder::new(known, complete, clock()));
        Ok(Self {
            sink,
            locator,
            rules,
            reckoning: Reckoning::begin(root, &baselines, clock),
            notices: Notices::default(),
            losses: Losses::default(),
            remaining: count,
            unresolved: 0,
            last_walk_ns: clock(),
            walk_owed: false,
            clock,
            root: root.to_owned(),
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

    /// From now on times are told by this measurement.
    pub fn set_wall_clock(&mut self, wall: WallClock) {
        self.sink.set_wall_clock(wall);
    }

    /// Fields that the running kernel lacks: what depends on them will be unknown.
    pub fn missing_fields(&mut self, message: impl FnOnce() -> String) {
        self.notices.add(Stage::Source, "missing_fields", 1, (self.clock)(), message);
    }

    /// How long until a notice that is held back may be told.
    #[must_use]
    pub fn next_notice(&self) -> Option<Duration> {
        let due = self.notices.next_due()?;
        Some(Duration::from_nanos(due.saturating_sub((self.clock)())))
    }

    /// Reads all records that are ready and tells what they mean.
    ///
    /// # Errors
    /// If the output cannot be written, or the kernel side does not tell what it lost.
    pub fn drain(&mut self, records: &mut impl Records) -> Result<Progress, AgentError> {
        self.drain_bulk(records);
        let mut progress = if self.remaining == Some(0) { Progress::Enough } else { Progress::Waiting };
        while progress == Progress::Waiting && records.next(Ring::Precious, &mut self.record) {
            progress = self.take(records)?;
        }
        // Before anything that is in no hurry: a reader waits for these lines.
        self.sink.flush().map_err(AgentError::Output)?;
        self.look_for_losses(records)?;
        self.locator.fetch_names(NAMES_PER_BATCH);
        self.end_batch()?;
        Ok(progress)
    }

    /// Tells the notices that are due.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn tell_notices(&mut self) -> Result<(), AgentError> {
        self.end_batch()
    }

    /// Reads what is left, holds the count against the kernel's, and tells the summary.
    ///
    /// # Errors
    /// As [`Pipeline::drain`].
    pub fn finish(mut self, records: &mut impl Records) -> Result<Summary, AgentError> {
        let kernel = self.settle(records)?;
        // Records that nobody asked for any more: the kernel's count includes them, ours does not.
        let unread = self.remaining == Some(0) && records.next(Ring::Precious, &mut self.record);
        self.look_for_losses(records)?;
        self.note_errors();
        for notice in self.notices.take_all() {
            self.sink.notice(&notice).map_err(AgentError::Output)?;
        }
        let unaccounted = kernel.filter(|_| !unread).map(|kernel| self.reckoning.unaccounted(kernel));
        let differences = match unaccounted {
            None | Some(0) => BTreeMap::new(),
            Some(_) => self.differences(),
        };
        let summary = self.summary(kernel, unaccounted, differences);
        self.sink.summary(&summary).and_then(|()| self.sink.flush()).map_err(AgentError::Output)?;
        Ok(summary)
    }

    /// Reads until no kill falls between the last record and the kernel's count, and returns that count. The kernel counts
    /// a moment before the record is written: a difference is looked at again.
    fn settle(&mut self, records: &mut impl Records) -> Result<Option<u64>, AgentError> {
        self.drain(records)?;
        let mut kernel = None;
        for _ in 0..QUIET_ATTEMPTS {
            let before = self.rules.counts();
            kernel = self.reckoning.kernel_kills(&self.root);
            self.drain(records)?;
            let quiet = self.rules.counts() == before;
            if quiet && kernel.is_none_or(|kernel| self.reckoning.unaccounted(kernel) == 0) {
                break;
            }
        }
        Ok(kernel)
    }

    fn take(&mut self, records: &mut impl Records) -> Result<Progress, AgentError> {
        match decode::decode(&self.record) {
            Ok(KernelEvent::OomMark(mark)) => {
                let place = self.place(&mark, records)?;
                match self.rules.judge(mark, place) {
                    Verdict::Kill(kill) => return self.tell(kill),
                    Verdict::AlreadyDying | Verdict::Duplicate => {}
                }
            }
            Ok(KernelEvent::CgroupLife(life)) => self.learn(&life),
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

    fn tell(&mut self, kill: Box<OomKill>) -> Result<Progress, AgentError> {
        self.reckoning.killed(&kill);
        self.unresolved += u64::from(kill.place.is_none());
        self.sink.transition(&Transition::OomKilled(kill)).map_err(AgentError::Output)?;
        match &mut self.remaining {
            None => Ok(Progress::Waiting),
            Some(remaining) => {
                *remaining = remaining.saturating_sub(1);
                Ok(if *remaining == 0 { Progress::Enough } else { Progress::Waiting })
            }
        }
    }

    fn place(&mut self, mark: &OomMark, records: &mut impl Records) -> Result<Option<Arc<Place>>, AgentError> {
        let Some(key) = mark.victim.cgroup else { return Ok(None) };
        if self.locator.path(key).is_none() {
            self.drain_bulk(records);
        }
        if self.locator.path(key).is_none() {
            self.look_for_losses(records)?;
        }
        let place = self.locator.place(key, mark.victim.pid, mark.stamp.boot_ns);
        if place.is_none() {
            self.notices.add(Stage::Locate, "unresolved", 1, (self.clock)(), || {
                format!("cgroup {} of hierarchy {} has no known path", key.id, key.hierarchy)
            });
        }
        Ok(place)
    }

    fn drain_bulk(&mut self, records: &mut impl Records) {
        while records.next(Ring::Bulk, &mut self.bulk_record) {
            match decode::decode(&self.bulk_record) {
                Ok(KernelEvent::CgroupLife(life)) => self.learn(&life),
                // The kernel side never writes kills to this ring.
                Ok(KernelEvent::OomMark(_)) => self.undecodable(&DecodeError::Kind { found: Kind::OOM_MARK.0 }),
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
        let new = self.losses.ring_full(&records.dropped()?);
        for dropped in &new {
            self.notices.add(Stage::Source, dropped.kind, dropped.count, now, || {
                format!("the ring was full: records of kind {} were lost", dropped.kind)
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
            self.notices.add(Stage::Locate, kind_of(&error), 1, now, || chain(&error));
        }
    }

    fn end_batch(&mut self) -> Result<(), AgentError> {
        self.note_errors();
        for notice in self.notices.take_due((self.clock)()) {
            self.sink.notice(&notice).map_err(AgentError::Output)?;
        }
        self.sink.flush().map_err(AgentError::Output)
    }

    fn differences(&mut self) -> BTreeMap<String, i64> {
        let hierarchical = self.locator.hierarchy().number == 0;
        let now = self.locator.walk_again((self.clock)());
        self.reckoning.differences(&now, hierarchical)
    }

    fn summary(&self, kernel: Option<u64>, unaccounted: Option<i64>, differences: BTreeMap<String, i64>) -> Summary {
        let counts = self.rules.counts();
        Summary {
            kills: counts.kills,
            incidents: counts.incidents,
            already_dying: counts.already_dying,
            duplicates: counts.duplicates,
            unresolved: self.unresolved,
            lost: self.losses.total(),
            lost_ring: self.losses.ring.clone(),
            lost_decode: self.losses.decode.clone(),
            kernel_kills: kernel,
            unaccounted,
            differences,
        }
    }
}

fn kind_of(error: &LocateError) -> &'static str {
    match error {
        LocateError::Hierarchy(_) => "hierarchy",
        LocateError::Walk(_) => "walk",
        LocateError::Names(_) => "names",
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
