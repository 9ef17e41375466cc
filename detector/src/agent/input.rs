//! Everything that can wake the flow. Another way to wake it is another variant here.

use std::{io, time::Instant};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time,
};

use super::source::bpf::ring::{Ring, RingError};

/// What woke the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Records may be ready in one of the rings.
    Records,
    /// Ctrl-C, a request to terminate, a closed terminal, or the end of the time to watch.
    Stop,
    /// A notice that was held back may be told now.
    Notice,
}

/// Signals that ask for an end.
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl StopSignals {
    /// Takes the signals over. Must be called within a tokio runtime.
    pub(super) fn take() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits for the next input. Without a deadline and a held notice nothing wakes the process but records and signals.
pub(super) async fn next(
    precious: &Ring,
    bulk: &Ring,
    signals: &mut StopSignals,
    deadline: Option<Instant>,
    notice: Option<Instant>,
) -> Result<Input, RingError> {
    tokio::select! {
        biased;
        _ = signals.interrupt.recv() => Ok(Input::Stop),
        _ = signals.terminate.recv() => Ok(Input::Stop),
        _ = signals.hang_up.recv() => Ok(Input::Stop),
        // Before the rings: records that never cease must not hold up the end.
        () = at(deadline) => Ok(Input::Stop),
        () = at(notice) => Ok(Input::Notice),
        ready = precious.wait() => ready.map(|()| Input::Records),
        ready = bulk.wait() => ready.map(|()| Input::Records),
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
