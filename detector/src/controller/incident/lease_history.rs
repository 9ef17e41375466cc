//! What one node's Lease tells by how it changes while it is looked at, never by its clock against ours. Pure.
//!
//! ```text
//! readings ─▶ since when one value was there and no other ─▶ LeaseView (for plans)
//!                                                          ─▶ LeaseStale, LeaseFresh, ClockStood, ClockWentOn
//! ```
//!
//! A value is known to have stood from the answer that first told it until the question that last got it as an answer: a
//! time in which the server was not asked, or did not answer, proves no silence.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Evidence, Fact};
use crate::{
    clock::Moment,
    controller::source::lease::{Lease, LeaseView, Reading, STALE_AFTER, surely},
};

/// Renewals after a silence that are asked what the clock did meanwhile. Later ones could come from a clock that stood and was
/// set right since.
const TRIES: u8 = 4;

/// A node's Lease since it is suspected.
#[derive(Clone, Debug)]
pub struct LeaseHistory {
    node: String,
    /// First evidence against it.
    begun: Duration,
    now: Now,
    /// Changes seen since the first evidence.
    changes: u32,
    /// The last of them came after this moment.
    changed: Option<Duration>,
    stale: Option<Told>,
    fresh: Option<Told>,
    is_stale: bool,
    clock: Option<Clock>,
    /// What stood during a silence that is over, while it is not known what the node's clock did meanwhile.
    silence: Option<Silence>,
}

/// What the last answer said.
#[derive(Clone, Debug)]
enum Now {
    Unread,
    Missing { asked: Duration },
    Stands(Stands),
}

/// A value that stands.
#[derive(Clone, Copy, Debug)]
struct Stands {
    renewed: Timestamp,
    interval: Duration,
    /// The answer that told it first.
    first: Moment,
    /// The question that last got it as an answer.
    last: Moment,
}

/// A fact, as it was when it became one.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: Timestamp,
    renewed: Timestamp,
}

/// A silence of which it is not known what the clock did meanwhile.
#[derive(Clone, Copy, Debug)]
struct Silence {
    /// The value that stood.
    stood: Stands,
    /// Renewals that may still tell.
    tries: u8,
}

/// What the node's clock did while it was silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    Stood,
    WentOn,
}

impl Stands {
    fn unchanged(&self) -> Duration {
        self.last.monotonic.saturating_sub(self.first.monotonic)
    }

    fn view(&self) -> LeaseView {
        LeaseView::Seen { renewed: self.renewed, unchanged: self.unchanged(), interval: self.interval }
    }
}

impl LeaseHistory {
    /// A history that begins with the first evidence against `node`, at `begun` ([`Moment::monotonic`]).
    #[must_use]
    pub fn new(node: &str, begun: Duration) -> Self {
        Self {
            node: node.to_owned(),
            begun,
            now: Now::Unread,
            changes: 0,
            changed: None,
            stale: None,
            fresh: None,
            is_stale: false,
            clock: None,
            silence: None,
        }
    }

    /// Something new is held against the node, at `begun`: signs of life before it tell nothing about it.
    pub fn accuse(&mut self, begun: Duration) {
        self.fresh = None;
        // Of a node that is silent already any renewal is a sign of life, and how long it was silent is still to be told.
        if !self.is_stale {
            (self.begun, self.changes, self.stale, self.clock, self.silence) = (begun, 0, None, None, None);
        }
    }

    /// Takes what was read. Readings of other nodes, and those asked before one that was taken already, are passed over.
    pub fn take(&mut self, reading: &Reading) {
        if reading.node != self.node || self.asked().is_some_and(|last| reading.asked.monotonic < last) {
            return;
        }
        match (&reading.lease, &mut self.now) {
            (Lease::Unread { .. }, _) => {}
            (Lease::Missing, now) => *now = Now::Missing { asked: reading.asked.monotonic },
            (Lease::There { renewed, interval }, Now::Stands(stands)) if stands.renewed == *renewed => {
                stands.last = reading.asked;
                stands.interval = *interval;
                self.look(reading);
            }
            (Lease::There { renewed, interval }, _) => self.changed(reading, *renewed, *interval),
        }
    }

    fn asked(&self) -> Option<Duration> {
        match &self.now {
            Now::Unread => None,
            Now::Missing { asked } => Some(*asked),
            Now::Stands(stands) => Some(stands.last.monotonic),
        }
    }

    fn look(&mut self, reading: &Reading) {
        let Now::Stands(stands) = &self.now else { return };
        if !self.is_stale && stands.view().missed() >= STALE_AFTER {
            self.is_stale = true;
            (self.clock, self.silence) = (None, None);
            self.stale = Some(Told { at: reading.answered.wall, renewed: stands.renewed });
        }
    }

    fn changed(&mut self, reading: &Reading, renewed: Timestamp, interval: Duration) {
        let before = self.asked();
        let was = std::mem::replace(
            &mut self.now,
            Now::Stands(Stands { renewed, interval, first: reading.answered, last: reading.asked }),
        );
        // The first value of all is no change.
        let Some(asked) = before else { return };
        (self.changes, self.changed) = (self.changes.saturating_add(1), Some(asked));
        // A renewal may have been on its way when the kernel died: it counts if it came surely later than that, or if
        // another followed it.
        let late = asked >= self.begun.saturating_add(interval * 3 / 2);
        if !late && self.changes < 2 {
            return;
        }
        if self.fresh.is_none() || self.is_stale {
            self.fresh = Some(Told { at: reading.answered.wall, renewed });
        }
        let back = std::mem::replace(&mut self.is_stale, false);
        let Now::Stands(was) = was else { return };
        self.compare(&was, back, reading, renewed);
    }

    /// A renewal by a clock that went on says so at once. One that seems to come from a clock that stood may have been on its
    /// way all the time, kept by a network that was cut: the next one tells.
    fn compare(&mut self, was: &Stands, back: bool, reading: &Reading, renewed: Timestamp) {
        if back {
            let clock = compare(was, was, reading, renewed);
            self.clock = clock.filter(|clock| *clock == Clock::WentOn);
            self.silence = Some(Silence { stood: *was, tries: TRIES }).filter(|_| self.clock.is_none());
        } else if let Some(Silence { stood, tries }) = self.silence.take() {
            self.clock = compare(&stood, was, reading, renewed);
            self.silence =
                Some(Silence { stood, tries: tries - 1 }).filter(|left| self.clock.is_none() && left.tries > 0);
        }
    }

    /// The Lease as plans want it.
    #[must_use]
    pub fn view(&self) -> LeaseView {
        match &self.now {
            Now::Unread => LeaseView::Unread,
            Now::Missing { .. } => LeaseView::Missing,
            Now::Stands(stands) => stands.view(),
        }
    }

    /// What there is to say by now, the same each time until there is more: silence and sign of life in the order in which
    /// they were seen, so that the last of the two holds. `boot_id`: the boot whose death is suspected;
    /// `same_boot`: the Node still reports it.
    #[must_use]
    pub fn evidence(&self, boot_id: Option<&str>, same_boot: bool) -> Vec<Evidence> {
        let evidence = |at: Timestamp, fact: Fact| Evidence {
            node: self.node.clone(),
            at,
            boot_id: boot_id.map(str::to_owned),
            fact,
        };
        let stale = self.stale.map(|told| evidence(told.at, Fact::LeaseStale { renewed: told.renewed }));
        let fresh = self.fresh.map(|told| evidence(told.at, Fact::LeaseFresh { renewed: told.renewed }));
        let clock = self.clock.zip(self.fresh).filter(|_| same_boot).map(|(clock, told)| {
            let fact = if clock == Clock::Stood { Fact::ClockStood } else { Fact::ClockWentOn };
            evidence(told.at, fact)
        });
        let (first, last) = if self.is_stale { (fresh, stale) } else { (stale, fresh) };
        first.into_iter().chain(last).chain(clock).collect()
    }

    /// Whether it is stale by now.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Whether it was seen to be renewed and has not fallen silent since.
    #[must_use]
    pub const fn is_fresh(&self) -> bool {
        self.fresh.is_some() && !self.is_stale
    }

    /// Whether it has been renewed after `moment` ([`Moment::monotonic`]), and lately.
    fn renewed_after(&self, moment: Duration) -> bool {
        self.changed.is_some_and(|changed| changed >= moment) && self.view().missed() == 0
    }

    /// Whether its silence is its own: another one was renewed since this one should have been. If none of `others` was,
    /// the fault is likely ours or the control plane's.
    #[must_use]
    pub fn is_alone<'a>(&self, others: impl IntoIterator<Item = &'a Self>) -> bool {
        let Now::Stands(stands) = &self.now else { return false };
        let due = stands.first.monotonic.saturating_add(stands.interval);
        others.into_iter().any(|other| other.renewed_after(due))
    }
}

/// How far the node's clock lags behind ours at the moment of a renewal, before the silence of the value `silent` and after
/// it. `last` is the value that stood before this one.
///
/// A clock that went on lags no more than before. One that stood lags at least by the time for which `silent` was seen to
/// stand, less the interval: so long may the machine have run on with that value. Half of that separates the two, whenever
/// in an interval a machine stopped and however late it was looked at: a stale value stands for two intervals, and readings
/// are half an interval apart.
fn compare(silent: &Stands, last: &Stands, reading: &Reading, renewed: Timestamp) -> Option<Clock> {
    let signed = |span: Duration| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    let limit = signed(silent.unchanged().saturating_sub(surely(silent.interval)) / 2);
    let since = reading.answered.monotonic.checked_sub(silent.first.monotonic).map(signed)?;
    // Somebody set our own clock meanwhile.
    let ours = reading.answered.wall.duration_since(silent.first.wall).checked_sub(since)?;
    if ours.abs() > limit / 4 {
        return None;
    }
    let lag = |wall: Timestamp, renewed: Timestamp| wall.duration_since(renewed);
    let before = lag(silent.first.wall, silent.renewed);
    // It was renewed after the last question that got the former value, and before this answer.
    let least = lag(last.last.wall, renewed).checked_sub(before)?;
    let most = lag(reading.answered.wall, renewed).checked_sub(before)?;
    if least > limit {
        Some(Clock::Stood)
    } else if most <= limit {
        Some(Clock::WentOn)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
