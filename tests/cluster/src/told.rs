//! What the agent told: its events, and how long after the kernel they were there for all to see.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};

use crate::{CONTROLLER, Namespace, Node, wait};

/// What shows the guest's clock to a fraction of a second: busybox's `date` does not.
const CLOCK: &str = "touch /run/clock && TZ=UTC stat -c %Y.%y /run/clock";

/// An event, and when a watch saw it.
#[derive(Clone, Debug)]
pub struct Told {
    /// As the API server has it.
    pub event: Event,
    /// When this machine saw it, since 1970.
    seen: Duration,
}

/// A guest's clock against this machine's.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What to add to the guest's time, in seconds.
    offset: f64,
    /// By how much that may be wrong, in seconds.
    pub doubt: f64,
}

impl Namespace {
    /// Waits for an event of the agent in this namespace. `what` words it for the error.
    ///
    /// # Errors
    /// There is none in time; the error shows those that are.
    pub async fn told(&self, what: &str, is_it: impl Fn(&Event) -> bool) -> Result<Told> {
        let mut seen = Duration::ZERO;
        let of_agent = ListParams::default().fields(&format!("reportingController={CONTROLLER}"));
        let events: Api<Event> = self.api();
        let all = wait::all(&events, &of_agent, what, wait::POD_PATIENCE, |events| {
            seen = now();
            events.iter().any(&is_it)
        });
        let event = all.await?.into_iter().find(is_it).context("an event that was there")?;
        Ok(Told { event, seen })
    }

    /// All events of the agent in this namespace.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn all_told(&self) -> Result<Vec<Event>> {
        let of_agent = ListParams::default().fields(&format!("reportingController={CONTROLLER}"));
        Ok(self.api().list(&of_agent).await.context("list the agent's events")?.items)
    }
}

impl Told {
    /// Seconds from the kernel's deed to the moment at which a watch saw the event.
    ///
    /// # Errors
    /// The event has no time.
    pub fn delay(&self, clock: Clock) -> Result<f64> {
        let time = self.event.event_time.as_ref().context("an event without eventTime")?;
        let happened = time.0.as_microsecond() as f64 / 1e6;
        Ok(self.seen.as_secs_f64() - happened - clock.offset)
    }

    /// What it says to people.
    pub fn note(&self) -> &str {
        self.event.note.as_deref().unwrap_or_default()
    }

    /// Why it was written.
    pub fn reason(&self) -> &str {
        self.event.reason.as_deref().unwrap_or_default()
    }

    /// Name, uid and field of what it is about.
    pub fn about(&self) -> (&str, &str, &str) {
        let regarding = self.event.regarding.as_ref();
        (
            regarding.and_then(|about| about.name.as_deref()).unwrap_or_default(),
            regarding.and_then(|about| about.uid.as_deref()).unwrap_or_default(),
            regarding.and_then(|about| about.field_path.as_deref()).unwrap_or_default(),
        )
    }
}

impl Node {
    /// The guest's time of day, since 1970.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn time(&self) -> Result<Duration> {
        let output = self.run(CLOCK).await?;
        clock(&output).with_context(|| format!("understand the time {output:?}"))
    }

    /// Compares the guest's clock with this machine's.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn clock(&self) -> Result<Clock> {
        let before = now().as_secs_f64();
        let there = self.time().await?.as_secs_f64();
        let after = now().as_secs_f64();
        ensure!(after >= before, "this machine's clock was set back");
        Ok(Clock { offset: f64::midpoint(before, after) - there, doubt: (after - before) / 2.0 })
    }
}

/// Time since 1970, from whole seconds and a date with nine digits behind its seconds.
fn clock(text: &str) -> Option<Duration> {
    let (seconds, date) = text.trim().split_once('.')?;
    let (_, rest) = date.split_once('.')?;
    Some(Duration::new(seconds.parse().ok()?, rest.split_whitespace().next()?.parse().ok()?))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_read_to_a_fraction_of_a_second() {
        assert_eq!(
            clock("1795343536.2026-11-22 09:24:37.250000000 +0000\n"),
            Some(Duration::new(1_795_343_536, 250_000_000))
        );
        assert_eq!(clock("stat: not found"), None);
    }
}
