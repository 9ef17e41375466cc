//! Everything that can wake the flow. Another way to wake it is another variant here.

use std::{io, time::Instant};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time,
};

use super::sources::{Ready, ReadyError, Sources};

/// What woke the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Records may be ready in a ring.
    Records,
    /// Lines may be ready in the kernel's log.
    Log,
    /// Ctrl-C, a request to terminate, a closed terminal, or the end of the time to watch.
    Stop,
    /// Something that waited for its time is due: a held notice, a look at a hung task, a check of the programs.
    Due,
}

/// Signals that ask for an end.
pub(in crate::agent) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl StopSignals {
    /// Takes the signals over. Must be called within a tokio runtime.
    pub(in crate::agent) fn take() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits for the next input. Without a deadline and anything due nothing wakes the process but records, lines and signals.
pub(super) async fn next(
    sources: &Sources,
    signals: &mut StopSignals,
    deadline: Option<Instant>,
    due: Option<Instant>,
) -> Result<Input, ReadyError> {
    tokio::select! {
        biased;
        _ = signals.interrupt.recv() => Ok(Input::Stop),
        _ = signals.terminate.recv() => Ok(Input::Stop),
        _ = signals.hang_up.recv() => Ok(Input::Stop),
        // Before the arrivals: records that never cease must not hold up the end.
        () = at(deadline) => Ok(Input::Stop),
        () = at(due) => Ok(Input::Due),
        ready = sources.ready() => ready.map(|ready| match ready {
            Ready::Rings => Input::Records,
            Ready::Log => Input::Log,
        }),
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
