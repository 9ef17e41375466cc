//! Stage 5: transitions, notices and the summary leave the program, as a table for people or as JSON for programs.
//!
//! A sink buffers whole lines; the flow calls [`Sink::flush`] once after each batch, so that a storm costs few writes
//! and a single kill is seen at once. A closed output (`| head`) comes back as [`io::ErrorKind::BrokenPipe`].

mod cell;
pub mod json;
pub mod page;
pub mod terminal;

use std::{io, time::Duration};

pub use crate::contract::watch::Summary;
use crate::{
    agent::{
        options::{Detector, Method},
        problem::{Limit, Process, Transition},
    },
    clock::WallClock,
};

/// Where the flow's results go. Every method fails only if the output cannot be written.
pub trait Sink {
    /// The probes are attached; called once, before anything else.
    fn started(&mut self, started: &Started) -> io::Result<()>;

    /// A problem changed its state.
    fn transition(&mut self, transition: &Transition) -> io::Result<()>;

    /// A detector goes on by another method.
    fn method_changed(&mut self, change: &MethodChange) -> io::Result<()>;

    /// Something was lost, refused or not understood.
    fn notice(&mut self, notice: &Notice) -> io::Result<()>;

    /// What was seen and what was not; called once, at the end.
    fn summary(&mut self, summary: &Summary) -> io::Result<()>;

    /// Ends a batch: everything so far reaches the reader now.
    fn flush(&mut self) -> io::Result<()>;

    /// From now on, times since boot become times of day by this measurement. Sinks are made with one; a program that
    /// runs long measures again now and then.
    fn set_wall_clock(&mut self, wall: WallClock);
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

/// The word for a process of a container in every output.
fn process_word(process: Process) -> &'static str {
    match process {
        Process::Init => "init",
        Process::Child => "child",
        Process::Unknown => "unknown",
    }
}

#[cfg(test)]
mod fixture;
