//! Stage 5: transitions, notices and the summary leave the program, as a table for people or as JSON for programs.
//!
//! A sink buffers whole lines; the flow calls [`Sink::flush`] once after each batch, so that a storm costs few writes
//! and a single kill is seen at once. A closed output (`| head`) comes back as [`io::ErrorKind::BrokenPipe`].

mod cell;
pub mod condition;
pub mod delivery;
pub mod event;
pub mod hold;
pub mod json;
pub mod metric;
pub mod page;
pub mod report;
pub mod terminal;

use std::{io, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use crate::contract::watch::Summary;
use crate::{
    agent::{
        decode::event::{CgroupKey, LockKind},
        locate::{ContainerChange, LocatorSnapshot, Place},
        options::{Detector, Method},
        problem::{Limit, Process, Transition, hung_task::OpenHang},
        source::spool::Moment,
    },
    clock::WallClock,
    contract::metric::{NameRead, Unlocated},
};

/// Where the flow's results go. Every method fails only if the output cannot be written.
pub trait Sink {
    /// The probes are attached; called once, before anything else.
    fn started(&mut self, started: &Started) -> io::Result<()>;

    /// A detector began after the start; those that began with it are told by [`Sink::started`].
    fn attached(&mut self, _status: &Status) -> io::Result<()> {
        Ok(())
    }

    /// A problem changed its state.
    fn transition(&mut self, transition: &Transition) -> io::Result<()>;

    /// A container or pod was seen, or is gone. Told before the transitions that name it, as far as its names are known
    /// by then; told again when they become known.
    fn container(&mut self, _change: &ContainerChange) -> io::Result<()> {
        Ok(())
    }

    /// Whether [`Sink::container`] does anything: where not, nobody keeps account of what to tell it.
    fn wants_containers(&self) -> bool {
        false
    }

    /// A detector goes on by another method.
    fn method_changed(&mut self, change: &MethodChange) -> io::Result<()>;

    /// Something was lost, refused or not understood.
    fn notice(&mut self, notice: &Notice) -> io::Result<()>;

    /// What was seen and what was not; called once, at the end.
    fn summary(&mut self, summary: &Summary) -> io::Result<()>;

    /// The kernel's count of kills was held against ours: kills that it counted and we did not see, negative if we saw
    /// more.
    fn reconciled(&mut self, _unaccounted: i64) -> io::Result<()> {
        Ok(())
    }

    /// The flow counted so many `more`; told before the end of a batch. Losses are told by [`Sink::notice`].
    fn counted_up(&mut self, _count: Count, _more: u64) {}

    /// Ends a batch: everything so far reaches the reader now, and what the sink has held back until now is done.
    fn flush(&mut self) -> io::Result<()>;

    /// Whether [`Sink::save`] is to be called at `now_ns`, nanoseconds since boot.
    fn wants_saving(&self, _now_ns: u64) -> bool {
        false
    }

    /// Saves what must survive the process, together with what the flow hands over. Returns whether it is on disk: then
    /// the records may go.
    fn save(&mut self, _handover: Handover) -> bool {
        false
    }

    /// What the kernel side counted. Told when the flow begins, and some seconds after each sign of life: then of a moment
    /// before, and all records that were written until then were read since.
    fn counted(&mut self, _tally: &Tally) -> io::Result<Booked> {
        Ok(Booked::default())
    }

    /// When [`Sink::flush`] has something to do though nothing happens, nanoseconds since boot.
    fn next_due(&self) -> Option<u64> {
        None
    }

    /// From now on, times since boot become times of day by this measurement. Sinks are made with one; a program that
    /// runs long measures again now and then.
    fn set_wall_clock(&mut self, wall: WallClock);
}

/// Kills that the kernel side counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// What this says of the map that they are counted in.
    pub state: Counting,
    /// The kernel's id of that map: another one counts from the beginning.
    pub map: u32,
    /// Kills by cgroup.
    pub cgroups: Vec<Tallied>,
}

/// Where a map that counts kills stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// It counts no more, and all that is left of its records is lost.
    Over,
    /// The flow begins; no record was read yet.
    Begins,
    /// It goes on.
    GoesOn,
}

/// Kills in one cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tallied {
    /// The victims' cgroup; `None`: the kernel side could not tell.
    pub cgroup: Option<CgroupKey>,
    /// Who owns it, if that is known.
    pub place: Option<Arc<Place>>,
    /// How many since the map was made.
    pub kills: u64,
}

/// What a sink made of a [`Tally`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    /// Kills that it told now, because their records are lost.
    pub kills: u64,
    /// It wants to be told once more, soon.
    pub again: bool,
}

/// What the flow counts that is neither a happening nor a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Records of the kernel side, or lines of the kernel's log, by kind.
    Record(&'static str),
    /// Records that could not be written to the spool.
    Unspooled,
    /// Reads of a runtime's files.
    NameRead(NameRead),
    /// What had no room where owners of cgroups are known.
    Unlocated(Unlocated),
}

/// What the flow of one run hands over to the next one of this boot: means nothing after another boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Handover {
    /// Cgroups that are known.
    pub cgroups: LocatorSnapshot,
    /// Records that were taken: CPU, the newest.
    pub taken: Vec<(u32, Moment)>,
    /// Losses that the kernel side counted and that were told, by name of their kind. Its counters go on where it is kept.
    pub dropped: Vec<(String, u64)>,
    /// Hangs that are open and were told.
    pub hangs: Vec<OpenHang>,
}

/// What watches, and by which method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// When the last probe was attached, nanoseconds since boot.
    pub boot_ns: u64,
    /// `/proc/sys/kernel/osrelease`.
    pub kernel: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Which detectors run, and how.
    pub detectors: Vec<Status>,
    /// Cgroups known at the start.
    pub cgroups: u64,
    /// From the start of the program to the last probe attached.
    pub attached_after: Duration,
}

/// How a detector runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which one.
    pub detector: Detector,
    /// Method in use; `None`: none works, it is blind.
    pub method: Option<Method>,
    /// Methods that were refused, better ones or what else they could have added, and why.
    pub refused: Vec<(Method, String)>,
}

/// The method of a detector fell silent or failed, and another one took its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodChange {
    /// When the new one was attached, nanoseconds since boot.
    pub boot_ns: u64,
    /// Which detector.
    pub detector: Detector,
    /// Method that is in use no more.
    pub before: Method,
    /// Method in use from now on; `None`: none is left, the detector is blind.
    pub now: Option<Method>,
    /// What was wrong with the former, in a sentence.
    pub reason: String,
}

/// Something was lost, refused or not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// When the first of them was seen, nanoseconds since boot.
    pub boot_ns: u64,
    /// Stage that tells.
    pub stage: Stage,
    /// What it is, a closed set of words.
    pub kind: &'static str,
    /// How often since the last notice of this stage and kind.
    pub count: u64,
    /// The first of them, in a sentence.
    pub message: String,
}

/// Stages that give notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reading records.
    Source,
    /// Understanding them.
    Decode,
    /// Finding who owns a cgroup.
    Locate,
    /// Making problems of them.
    Problem,
}

impl Stage {
    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Decode => "decode",
            Self::Locate => "locate",
            Self::Problem => "problem",
        }
    }
}

/// What turns the kernel's numbers into people's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// Bytes of a page.
    pub page_size: u64,
    /// From times since boot to times of day.
    pub wall: WallClock,
}

impl Units {
    /// Those of the running machine, now.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self { page_size: rustix::param::page_size() as u64, wall: WallClock::measure() }
    }

    /// Pages in bytes. Cut at the end of the range: a foreign number must not overflow.
    fn bytes(&self, pages: u64) -> u64 {
        pages.saturating_mul(self.page_size)
    }
}

/// The word for a limit in every output.
fn limit_word(limit: Limit) -> &'static str {
    match limit {
        Limit::Container => "container",
        Limit::Pod => "pod",
        Limit::Ancestor => "ancestor",
        Limit::Node => "node",
        Limit::Nested => "nested",
        Limit::Cgroup => "cgroup",
        Limit::Unknown => "unknown",
    }
}

/// The word for a kind of lock in every output but the table.
fn lock_word(kind: LockKind) -> &'static str {
    match kind {
        LockKind::Mutex => "mutex",
        LockKind::Semaphore => "semaphore",
        LockKind::RwsemReader => "rwsem_reader",
        LockKind::RwsemWriter => "rwsem_writer",
    }
}

/// The word for a process of a container in every output.
fn process_word(process: Process) -> &'static str {
    match process {
        Process::Init => "init",
        Process::Child => "child",
        Process::Unknown => "unknown",
    }
}

#[cfg(test)]
pub(in crate::agent) mod fixture;
