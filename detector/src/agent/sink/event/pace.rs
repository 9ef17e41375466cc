//! How fast writes may follow each other: token buckets, and the back-off after failures.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(super) use crate::clock::nanoseconds;
use crate::config::Budget;

/// First wait after a write that failed for the moment.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait, unless the server asks for more.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Longest wait that a server may ask for, before what is added at random.
const LONGEST_ASKED: Duration = Duration::from_secs(300);
/// Between an answered failure and whatever is written next: many series that fail must not ask without a pause.
const PAUSE: Duration = Duration::from_millis(250);

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bucket {
    tokens: u32,
    /// When the last token was added, nanoseconds since boot; meaningless while full.
    since_ns: u64,
}

impl Bucket {
    pub(super) fn full(budget: Budget) -> Self {
        Self { tokens: budget.burst, since_ns: 0 }
    }

    /// One that was written down, in this boot or another, or with other settings.
    pub(super) fn restored(self, budget: Budget, now_ns: u64) -> Self {
        Self { tokens: self.tokens.min(budget.burst), since_ns: self.since_ns.min(now_ns) }
    }

    fn fill(&mut self, budget: Budget, now_ns: u64) {
        let every = nanoseconds(budget.every).max(1);
        let due = now_ns.saturating_sub(self.since_ns) / every;
        let room = u64::from(budget.burst.saturating_sub(self.tokens));
        if due >= room {
            self.tokens = self.tokens.max(budget.burst);
        } else {
            // Fewer than `room`, which fits.
            self.tokens = self.tokens.saturating_add(u32::try_from(due).unwrap_or(u32::MAX));
            self.since_ns = self.since_ns.saturating_add(due.saturating_mul(every));
        }
    }

    pub(super) fn is_full(&mut self, budget: Budget, now_ns: u64) -> bool {
        self.fill(budget, now_ns);
        self.tokens >= budget.burst
    }

    /// When one may be taken so that `reserve` remain: now or later, nanoseconds since boot.
    pub(super) fn available_at(&mut self, budget: Budget, reserve: u32, now_ns: u64) -> u64 {
        self.fill(budget, now_ns);
        let wanted = reserve.min(budget.burst.saturating_sub(1)).saturating_add(1);
        let missing = u64::from(wanted.saturating_sub(self.tokens));
        if missing == 0 {
            return now_ns;
        }
        self.since_ns.saturating_add(missing.saturating_mul(nanoseconds(budget.every).max(1)))
    }

    pub(super) fn take(&mut self, budget: Budget, now_ns: u64) {
        self.fill(budget, now_ns);
        if self.tokens >= budget.burst {
            self.since_ns = now_ns;
        }
        self.tokens = self.tokens.saturating_sub(1);
    }

    /// Gives back a token whose write did not come to stand.
    pub(super) fn give_back(&mut self, budget: Budget) {
        self.tokens = self.tokens.saturating_add(1).min(budget.burst);
    }
}

/// Waits of the whole queue after failures, and the random numbers of all waits, so that agents do not ask all at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    failures: u32,
    random: u64,
    /// Nothing is written before this time, nanoseconds since boot.
    pub(super) until_ns: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        // xorshift never leaves 0.
        Self { failures: 0, random: seed | 1, until_ns: 0 }
    }

    /// The server as a whole could not; it asked for `asked`.
    pub(super) fn failed(&mut self, asked: Option<Duration>, now_ns: u64) {
        self.until_ns = now_ns.saturating_add(self.wait_ns(self.failures, asked));
        self.failures = self.failures.saturating_add(1);
    }

    /// The server answered, but did not take that one write: others hardly wait.
    pub(super) fn answered(&mut self, now_ns: u64) {
        self.failures = 0;
        self.until_ns = now_ns.saturating_add(nanoseconds(PAUSE));
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.until_ns = 0;
    }

    /// How long to wait after one more failure than `failures`: doubled each time, and shortened at random by up to a half.
    /// Never shorter than the server asked for, but up to half as long again.
    pub(super) fn wait_ns(&mut self, failures: u32, asked: Option<Duration>) -> u64 {
        let doubled = nanoseconds(FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT));
        let wait = doubled - self.below(doubled / 2);
        let asked = nanoseconds(asked.unwrap_or_default().min(LONGEST_ASKED));
        wait.max(asked.saturating_add(self.below(asked / 2)))
    }

    /// A random number below `end`; 0 below 0.
    fn below(&mut self, end: u64) -> u64 {
        self.next_random() % end.max(1)
    }

    /// Marsaglia's xorshift, 64 bits.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const BUDGET: Budget = Budget { burst: 3, every: Duration::from_secs(10) };

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_a_while() {
        let mut bucket = Bucket::full(BUDGET);
        let start = 1000 * SECOND;
        for _ in 0..3 {
            assert_eq!(bucket.available_at(BUDGET, 0, start), start);
            bucket.take(BUDGET, start);
        }
        assert_eq!(bucket.available_at(BUDGET, 0, start), start + 10 * SECOND);
        assert_eq!(bucket.available_at(BUDGET, 1, start), start + 20 * SECOND, "one more is to remain");
        bucket.take(BUDGET, start + 15 * SECOND);
        assert_eq!(bucket.available_at(BUDGET, 0, start + 15 * SECOND), start + 20 * SECOND);
        assert!(bucket.is_full(BUDGET, start + 50 * SECOND));
        assert!(!bucket.is_full(BUDGET, start + 50 * SECOND - SECOND) || bucket.tokens == 3);
    }

    #[test]
    fn a_bucket_of_another_boot_or_setting_does_not_wait_for_ever() {
        let mut bucket = Bucket { tokens: 0, since_ns: u64::MAX }.restored(BUDGET, 5 * SECOND);
        assert_eq!(bucket.available_at(BUDGET, 0, 5 * SECOND), 15 * SECOND);
        let bucket = Bucket { tokens: 9, since_ns: 0 }.restored(BUDGET, 5 * SECOND);
        assert_eq!(bucket.tokens, 3);
    }

    #[test]
    fn waits_double_up_to_a_minute_and_the_server_may_ask_for_more() {
        let mut backoff = Backoff::new(7);
        for longest in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            backoff.failed(None, 0);
            assert!((longest * SECOND / 2..=longest * SECOND).contains(&backoff.until_ns), "{}", backoff.until_ns);
        }
        backoff.failed(Some(Duration::from_secs(120)), 0);
        assert!((120 * SECOND..180 * SECOND).contains(&backoff.until_ns), "{}", backoff.until_ns);
        backoff.failed(Some(Duration::MAX), 0);
        assert!((300 * SECOND..450 * SECOND).contains(&backoff.until_ns), "{}", backoff.until_ns);
        backoff.succeeded();
        backoff.failed(None, 0);
        assert!(backoff.until_ns <= SECOND);
    }

    #[test]
    fn agents_that_are_asked_to_wait_the_same_time_come_back_one_after_the_other() {
        let mut waits: Vec<u64> =
            (0..100).map(|seed| Backoff::new(seed * 7919).wait_ns(0, Some(Duration::from_secs(60)))).collect();
        waits.sort_unstable();
        waits.dedup();
        assert!(waits.len() > 45, "{waits:?}");
        assert!(waits.iter().all(|wait| (60 * SECOND..90 * SECOND).contains(wait)), "{waits:?}");
        assert!(waits[waits.len() - 1] - waits[0] > 15 * SECOND, "{waits:?}");
    }

    #[test]
    fn an_answered_failure_hardly_delays_what_is_written_next() {
        let mut backoff = Backoff::new(7);
        (0..5).for_each(|_| backoff.failed(None, 0));
        backoff.answered(SECOND);
        assert_eq!(backoff.until_ns, SECOND + SECOND / 4);
        backoff.failed(None, 0);
        assert!(backoff.until_ns <= SECOND, "the server was there in between");
    }
}
