//! When an object may be written again after a failure: each waits for itself.

use std::{collections::BTreeMap, time::Duration};

/// First pause after a failure; each further one of the same object is twice as long.
pub const FIRST: Duration = Duration::from_millis(500);

/// Longest pause of our own.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Objects that wait. Those beyond it do not.
pub const MAX_WAITING: usize = 5_000;

/// Doublings until [`LONGEST`] is reached surely.
const DOUBLINGS: u32 = 8;

/// Who waits until when.
#[derive(Debug, Default)]
pub struct Pace {
    waiting: BTreeMap<String, Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    until: Duration,
    failures: u32,
}

impl Pace {
    /// A write of `name` has failed at `now`; the server asked to come again `after` this time. Gives when it may be tried
    /// again.
    pub fn failed(&mut self, name: &str, after: Option<Duration>, now: Duration) -> Duration {
        let failures = self.waiting.get(name).map_or(0, |wait| wait.failures);
        let own = (FIRST * 2_u32.pow(failures.min(DOUBLINGS))).min(LONGEST);
        let until = now.saturating_add(own.max(after.unwrap_or_default()));
        if self.waiting.contains_key(name) || self.waiting.len() < MAX_WAITING {
            self.waiting.insert(name.to_owned(), Wait { until, failures: failures.saturating_add(1) });
        }
        until
    }

    /// A write of `name` stands, or it is not wanted any more.
    pub fn ended(&mut self, name: &str) {
        self.waiting.remove(name);
    }

    /// Whether `name` may be written at `now`.
    #[must_use]
    pub fn may(&self, name: &str, now: Duration) -> bool {
        self.waiting.get(name).is_none_or(|wait| wait.until <= now)
    }

    /// When `name` may be written.
    #[must_use]
    pub fn until(&self, name: &str) -> Duration {
        self.waiting.get(name).map_or(Duration::ZERO, |wait| wait.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_object_waits_for_itself_and_ever_longer() {
        let mut pace = Pace::default();
        assert!(pace.may("a", Duration::ZERO));
        let pauses: Vec<Duration> = (0..12).map(|_| pace.failed("a", None, SECOND) - SECOND).collect();
        assert_eq!(pauses[..3], [FIRST, FIRST * 2, FIRST * 4]);
        assert_eq!(pauses[11], LONGEST);
        assert!(!pace.may("a", SECOND) && pace.may("b", SECOND));
        pace.ended("a");
        assert!(pace.may("a", SECOND));
        assert_eq!(pace.failed("a", None, SECOND), SECOND + FIRST);
    }

    #[test]
    fn what_the_server_asks_for_is_kept() {
        assert_eq!(Pace::default().failed("a", Some(SECOND * 7), SECOND), SECOND * 8);
    }

    #[test]
    fn it_has_a_bound() {
        let mut pace = Pace::default();
        for number in 0..=MAX_WAITING {
            pace.failed(&number.to_string(), None, SECOND);
        }
        assert_eq!(pace.waiting.len(), MAX_WAITING);
    }
}
