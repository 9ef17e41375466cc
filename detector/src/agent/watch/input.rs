//! Everything that can wake the flow. Another way to wake it is another variant here.

use std::{io, time::Instant};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time,
};

use super::sources::{Ready, ReadyError, Sources};
use crate::{
    agent::source::pods::PodUpdate,
    ops::http::{Asked, Heart},
};

/// What woke the flow.
#[derive(Debug)]
pub(super) enum Input {
    /// Records may be ready in a ring.
    Records,
    /// Lines may be ready in the kernel's log.
    Log,
    /// Ctrl-C, a request to terminate, a closed terminal, or the end of the time to watch.
    Stop,
    /// Something that waited for its time is due: a held notice, a look at a hung task, a check of the programs.
    Due,
    /// Somebody asks whether the flow lives; answered when this is dropped.
    Asked(#[allow(dead_code, reason = "held until the turn is over")] Asked),
    /// The watch of pods told something.
    Pods(PodUpdate),
}

/// Those who work beside the flow on the same thread, and may ask it for a turn. None of them, for who works alone.
#[derive(Default)]
pub(in crate::agent) struct Beside {
    /// Asks whether the flow lives.
    pub(in crate::agent) heart: Option<Heart>,
    /// Tells of pods.
    pub(in crate::agent) pods: Option<mpsc::Receiver<PodUpdate>>,
}

impl Beside {
    async fn asked(heart: &mut Option<Heart>) -> Asked {
        match heart {
            Some(heart) => heart.asked().await,
            None => std::future::pending().await,
        }
    }

    async fn told(pods: &mut Option<mpsc::Receiver<PodUpdate>>) -> PodUpdate {
        if let Some(receiver) = pods {
            if let Some(update) = receiver.recv().await {
                return update;
            }
            *pods = None;
        }
        std::future::pending().await
    }
}

/// Signals that ask for an end.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl StopSignals {
    /// Takes the signals over. Must be called within a tokio runtime.
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self { hang_up: Some(signal(SignalKind::hangup())?), ..Self::without_hang_up()? })
    }

    /// Waits for any of them.
    pub(crate) async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = Self::hung_up(&mut self.hang_up) => {}
        }
    }

    /// The same for who has another use of SIGHUP.
    pub(in crate::agent) fn without_hang_up() -> io::Result<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hang_up: None })
    }

    async fn hung_up(hang_up: &mut Option<Signal>) {
        match hang_up {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Waits for the next input. Without a deadline and anything due nothing wakes the process but records, lines and signals.
pub(super) async fn next(
    sources: &Sources,
    signals: &mut StopSignals,
    deadline: Option<Instant>,
    due: Option<Instant>,
    beside: &mut Beside,
) -> Result<Input, ReadyError> {
    tokio::select! {
        biased;
        _ = signals.interrupt.recv() => Ok(Input::Stop),
        _ = signals.terminate.recv() => Ok(Input::Stop),
        () = StopSignals::hung_up(&mut signals.hang_up) => Ok(Input::Stop),
        // Before the arrivals: records that never cease must not hold up the end.
        () = at(deadline) => Ok(Input::Stop),
        () = at(due) => Ok(Input::Due),
        asked = Beside::asked(&mut beside.heart) => Ok(Input::Asked(asked)),
        update = Beside::told(&mut beside.pods) => Ok(Input::Pods(update)),
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
