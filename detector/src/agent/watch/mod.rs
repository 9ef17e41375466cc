//! The flow of `detector watch`: attach, read, decode, locate, judge, tell.
//!
//! ```text
//! attach cgroup life ─▶ attach detectors ─▶ open the log ─▶ walk the cgroups ─▶ loop:
//!     bulk ring ─▶ locator        precious ring ─▶ locator ─▶ rules ─▶ sink
//!     log ─▶ witness: what the log tells and no ring did is told by the log, and the silent method is replaced
//! ```
//!
//! One task owns everything and sleeps until a ring or the log has data. At the end the count of kills is held against
//! the kernel's.

mod agenda;
mod counts;
pub(super) mod flow;
pub(super) mod input;
mod ladder;
mod last_words;
mod sources;

use std::{io, path::Path, time::Instant};

use thiserror::Error;

pub(crate) use self::input::StopSignals;
use self::sources::ReadyError;
pub(super) use self::{flow::Flow, input::Beside, sources::Inherited};
use super::{
    failure::Failure,
    locate::LocateError,
    options::{Detector, WatchOptions},
    sink::{Sink, Summary},
    source::{
        bpf::{health::HealthError, probe::ProbeError},
        machine::MachineError,
    },
};
use crate::clock;

/// Why the flow could not start or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// This binary has no kernel side.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// No method works of a detector that must run.
    #[error("detector `{detector}` has no method that works (`detector doctor` tells more): {}", .tried.join("; "))]
    Blind {
        /// Which detector.
        detector: Detector,
        /// Methods tried, each with its reason.
        tried: Vec<String>,
        /// One of them was refused for want of a right.
        denied: bool,
    },
    /// The kernel side does not tell what it lost.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// The memory cgroups cannot be found.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// `/proc` does not tell which kernel runs.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The program cannot wait for anything.
    #[error("setting up to wait for records and signals")]
    Runtime(#[source] io::Error),
    /// A ring or the kernel's log cannot be waited for.
    #[error(transparent)]
    Ready(#[from] ReadyError),
    /// The output cannot be written.
    #[error("writing the output")]
    Output(#[source] io::Error),
}

impl AgentError {
    /// What the one who typed the command can do about it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            Self::Blind { denied: true, .. } => Failure::Denied,
            Self::Probe(_) | Self::Blind { .. } => Failure::Unavailable,
            _ => Failure::Other,
        }
    }
}

/// Watches this machine until the count or the time is over, or Ctrl-C. Blocks.
///
/// # Errors
/// If the probes cannot be attached, or the output cannot be written.
pub fn watch(options: WatchOptions, sink: &mut dyn Sink) -> Result<Summary, AgentError> {
    let began = clock::monotonic_now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AgentError::Runtime)?;
    runtime.block_on(run(options, began, sink))
}

async fn run(options: WatchOptions, began: Instant, sink: &mut dyn Sink) -> Result<Summary, AgentError> {
    let mut signals = StopSignals::take().map_err(AgentError::Runtime)?;
    let mut flow = Flow::start(&options, began, sink, Path::new("/"))?;
    let deadline = options.duration.map(|duration| clock::monotonic_now() + duration);
    flow.run(&mut signals, deadline, &mut Beside::default()).await?;
    flow.finish()
}
