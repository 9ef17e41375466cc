//! The flow of `detector watch`: attach, read, decode, locate, judge, tell.
//!
//! ```text
//! attach cgroup life ─▶ attach OOM ─▶ walk the cgroups ─▶ loop:  bulk ring ─▶ locator
//!                                                                precious ring ─▶ locator ─▶ rules ─▶ sink
//! ```
//!
//! One task owns everything and sleeps until a ring has data. At the end the count of kills is held against the kernel's.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{
    failure::Failure,
    input::{self, Input, StopSignals},
    locate::{Hierarchy, LocateError},
    options::WatchOptions,
    pipeline::{Pipeline, Progress, chain},
    sink::{Sink, Started, Summary},
    source::{
        bpf::{
            health::HealthError,
            object::ObjectError,
            offsets::{Offsets, OffsetsError},
            probe::{Probe, ProbeError},
            ring::RingError,
        },
        machine::{Machine, MachineError},
        memory,
    },
};
use crate::clock::{self, WallClock};

/// How old a measurement of the wall clock may be when a kill is told: it may be set at any time.
const WALL_CLOCK_AGE: Duration = Duration::from_secs(10);

/// Why the flow could not start or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The kernel's types cannot be read.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// The kernel side cannot be loaded or attached.
    #[error(transparent)]
    Probe(#[from] ProbeError),
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
    /// A ring cannot be waited for.
    #[error(transparent)]
    Ring(#[from] RingError),
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
            Self::Probe(ProbeError::Object(ObjectError::Stub)) => Failure::Unavailable,
            Self::Probe(ProbeError::Attach(_)) | Self::Offsets(OffsetsError::Read { .. }) => Failure::Unavailable,
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
    let (mut probe, mut pipeline) = start(&options, began, sink, Path::new("/"))?;
    let deadline = options.duration.map(|duration| clock::monotonic_now() + duration);
    let mut measure_at = clock::monotonic_now() + WALL_CLOCK_AGE;
    loop {
        let notice = pipeline.next_notice().map(|after| clock::monotonic_now() + after);
        match input::next(&probe.precious, &probe.bulk, &mut signals, deadline, notice).await? {
            Input::Records => {
                if clock::monotonic_now() >= measure_at {
                    pipeline.set_wall_clock(WallClock::measure());
                    measure_at = clock::monotonic_now() + WALL_CLOCK_AGE;
                }
                if pipeline.drain(&mut probe)? == Progress::Enough {
                    break;
                }
            }
            Input::Stop => break,
            Input::Notice => pipeline.tell_notices()?,
        }
    }
    pipeline.finish(&mut probe)
}

/// Attaches the probes and learns the cgroups, in the order that loses none: probes first.
fn start<'a>(
    options: &WatchOptions,
    began: Instant,
    sink: &'a mut dyn Sink,
    root: &Path,
) -> Result<(Probe, Pipeline<'a>), AgentError> {
    let machine = Machine::read(root)?;
    let offsets = Offsets::read(root)?;
    let hierarchy = Hierarchy::find(root).map_err(LocateError::from)?;
    let probe = Probe::start(&offsets, hierarchy.number, options.method)?;
    let attached_after = began.elapsed();
    let attached_at = clock::boot_ns();
    let mut pipeline = Pipeline::start(sink, root, options.count, &clock::boot_ns)?;
    let started = Started {
        boot_ns: attached_at,
        kernel: machine.kernel,
        boot_id: machine.boot_id,
        oom_method: probe.oom.method,
        cgroups: pipeline.cgroups(),
        attached_after,
        refused: probe.oom.refused.iter().map(|(method, error)| (method.name(), chain(error))).collect(),
    };
    if !offsets.missing().is_empty() {
        let missing: Vec<String> = offsets.missing().iter().map(|(_, error)| error.to_string()).collect();
        pipeline.missing_fields(|| format!("what depends on these stays unknown: {}", missing.join("; ")));
    }
    pipeline.begin(&started)?;
    memory::release_unused();
    Ok((probe, pipeline))
}
