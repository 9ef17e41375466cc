//! Which incidents may be opened on the word of an address alone. Whoever can forge the addresses of Nodes can tell of a panic
//! of each of them, again and again; each incident costs several writes and a list of pods.
//!
//! What is held back waits: if the node really died, its Lease and the control plane open the incident, and it joins.

use std::{cell::RefCell, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::super::core::Core;
use crate::{
    contract::incident::{Cause, Confidence, KernelIncident},
    controller::incident::{Evidence, Fact, merge::TOGETHER},
};

/// Incidents that are opened at once.
const BURST: u32 = 50;
/// Between two further ones.
const APART: Duration = Duration::from_secs(1);
/// How often it is looked whether a panic of a node that was said to be dead, and lived, is true this time.
const DOUBTED: Duration = Duration::from_secs(30);

/// A token bucket.
#[derive(Debug)]
pub(super) struct Openings {
    left: u32,
    /// When the last one was given back.
    filled: Duration,
}

impl Default for Openings {
    fn default() -> Self {
        Self { left: BURST, filled: Duration::ZERO }
    }
}

/// Why it is not opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It may be after this time.
    For(Duration),
    /// It waited too long.
    TooLong,
}

impl Openings {
    /// Takes one, or tells when there is one.
    fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let since = now.saturating_sub(self.filled);
        let more = u32::try_from(since.as_nanos() / APART.as_nanos()).unwrap_or(u32::MAX);
        let full = more >= BURST.saturating_sub(self.left);
        self.left = self.left.saturating_add(more).min(BURST);
        self.filled = if full { now } else { self.filled + APART * more };
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Err((self.filled + APART).saturating_sub(now)),
        }
        Ok(())
    }
}

/// It is told by an address alone.
pub(super) fn is_weak(fact: &Evidence) -> bool {
    matches!(fact.fact, Fact::Spoke { author, .. } if author <= Confidence::Low)
}

/// Whether an incident may be opened for `fact` now.
pub(super) fn may(core: &Core, openings: &RefCell<Openings>, fact: &Evidence) -> Result<(), Held> {
    let now = core.wall();
    if !is_weak(fact) {
        return Ok(());
    }
    if is_past(fact.at, now) {
        return Err(Held::TooLong);
    }
    let doubted = |incident: &KernelIncident| {
        let status = incident.status.as_ref().filter(|status| status.cause == Some(Cause::FalseAlarm));
        let closed = status.and_then(|status| status.closed_at.as_ref());
        incident.spec.node == fact.node && closed.is_some_and(|at| !is_past(at.0, now))
    };
    if core.incidents.borrow().iter().any(doubted) {
        return Err(Held::For(DOUBTED));
    }
    openings.borrow_mut().take(core.monotonic()).map_err(Held::For)
}

/// It is too long ago to be about the same death as what happens now.
fn is_past(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at) > SignedDuration::try_from(TOGETHER).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_opened_at_once_and_then_one_after_the_other() {
        let mut openings = Openings::default();
        let now = Duration::from_secs(1000);
        let opened = (0..200).filter(|_| openings.take(now).is_ok()).count();
        assert_eq!(opened, usize::try_from(BURST).unwrap());
        assert_eq!(openings.take(now + APART / 4), Err(APART * 3 / 4));
        assert_eq!(openings.take(now + APART), Ok(()));
        assert!(openings.take(now + APART).is_err());
        let later = now + APART * 1000;
        assert_eq!((0..200).filter(|_| openings.take(later).is_ok()).count(), usize::try_from(BURST).unwrap());
    }
}
