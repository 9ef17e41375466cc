//! When conditions may be written: at once, spaced, after a failure, as heartbeat.

use std::time::Duration;

use crate::{clock::nanoseconds, digest::Digest};

/// Time between two writes at least, if a status changed.
const STATUS_SPACING: Duration = Duration::from_secs(1);
/// Time between two writes at least, if reasons or messages changed.
const MESSAGE_SPACING: Duration = Duration::from_secs(10);
/// Wait after the first failure; each further one doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest of these waits.
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Wait after a refusal that asking again does not change: rights may be given meanwhile.
const REFUSED_RETRY: Duration = Duration::from_secs(300);
/// `Retry-After` beyond this is cut: a server's mistake must not silence the node for a day.
const LONGEST_AFTER: Duration = Duration::from_secs(600);

/// Why something is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It is not known what stands there.
    Unknown,
    /// A status changed.
    Status,
    /// A reason or message changed.
    Message,
    /// Nothing changed.
    Heartbeat,
}

/// What was written when, and how the last attempt ended. All times in nanoseconds since boot.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    heartbeat: Duration,
    seed: u64,
    last_ns: Option<u64>,
    failures: u32,
    not_before_ns: u64,
}

impl Pace {
    /// Nothing was written yet. Each node has its own `heartbeat`: longer by up to a tenth, by a hash of its name.
    pub(super) fn new(heartbeat: Duration, node: &str) -> Self {
        let seed = hash(node.as_bytes());
        let spread = share(heartbeat / 10, seed);
        Self { heartbeat: heartbeat + spread, seed, last_ns: None, failures: 0, not_before_ns: 0 }
    }

    /// From now on this is the heartbeat, longer by the node's own share.
    pub(super) fn set_heartbeat(&mut self, heartbeat: Duration) {
        self.heartbeat = heartbeat + share(heartbeat / 10, self.seed);
    }

    /// When a write of this urgency is due.
    pub(super) fn due_ns(&self, urgency: Urgency) -> u64 {
        let spacing = match urgency {
            Urgency::Unknown => Duration::ZERO,
            Urgency::Status => STATUS_SPACING,
            Urgency::Message => MESSAGE_SPACING,
            Urgency::Heartbeat => self.heartbeat,
        };
        let spaced = self.last_ns.map_or(0, |last_ns| later(last_ns, spacing));
        spaced.max(self.not_before_ns)
    }

    /// It was written.
    pub(super) fn succeeded(&mut self, now_ns: u64) {
        (self.last_ns, self.failures, self.not_before_ns) = (Some(now_ns), 0, 0);
    }

    /// It failed, and may succeed later: not before `after`, if the server said so.
    pub(super) fn failed(&mut self, now_ns: u64, after: Option<Duration>) {
        let doubled = FIRST_RETRY.saturating_mul(1_u32 << self.failures.min(16)).min(LAST_RETRY);
        let after = after.unwrap_or_default().min(LONGEST_AFTER);
        self.wait(now_ns, doubled.max(after));
    }

    /// It was refused.
    pub(super) fn refused(&mut self, now_ns: u64) {
        self.wait(now_ns, REFUSED_RETRY);
    }

    /// Waits so long and up to half of it more, each node and attempt by its own share.
    fn wait(&mut self, now_ns: u64, wait: Duration) {
        self.failures = self.failures.saturating_add(1);
        let jitter = share(wait / 2, hash(&[self.seed.to_le_bytes(), u64::from(self.failures).to_le_bytes()].concat()));
        self.not_before_ns = later(now_ns, wait + jitter);
    }
}

/// `now_ns` and `wait` later.
pub(super) fn later(now_ns: u64, wait: Duration) -> u64 {
    now_ns.saturating_add(nanoseconds(wait))
}

/// A part of `whole`, in thousandths by `hash`.
fn share(whole: Duration, hash: u64) -> Duration {
    let thousandths = u32::try_from(hash % 1000).unwrap_or(0);
    whole / 1000 * thousandths
}

/// FNV-1a, whose bits are mixed once more (the end of SplitMix64), because names of nodes differ in their last letters.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = Digest::EMPTY.with(bytes).value();
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const HALF_HOUR: Duration = Duration::from_secs(1800);

    #[rstest]
    #[case::by_default(1800)]
    #[case::as_node_problem_detector(300)]
    fn heartbeats_of_a_cluster_are_spread_over_a_tenth(#[case] heartbeat_s: u64) {
        let waits: Vec<u64> = (0..100)
            .map(|number| {
                let mut pace = Pace::new(HALF_HOUR, &format!("node-{number}"));
                pace.set_heartbeat(Duration::from_secs(heartbeat_s));
                pace.succeeded(0);
                pace.due_ns(Urgency::Heartbeat) - heartbeat_s * SECOND
            })
            .collect();
        let tenth = heartbeat_s * SECOND / 10;
        assert!(waits.iter().all(|wait| *wait <= tenth), "{waits:?}");
        for quarter in 0..4 {
            let within = waits.iter().filter(|wait| (*wait * 4 / tenth).min(3) == quarter).count();
            assert!((10..=45).contains(&within), "{within} of 100 within quarter {quarter}");
        }
    }

    #[test]
    fn a_change_of_status_is_more_urgent_than_one_of_words() {
        let mut pace = Pace::new(HALF_HOUR, "a");
        assert_eq!(pace.due_ns(Urgency::Message), 0);
        pace.succeeded(100 * SECOND);
        assert_eq!(pace.due_ns(Urgency::Unknown), 100 * SECOND);
        assert_eq!(pace.due_ns(Urgency::Status), 101 * SECOND);
        assert_eq!(pace.due_ns(Urgency::Message), 110 * SECOND);
    }

    #[test]
    fn waits_after_failures_double_to_a_minute_with_up_to_half_more() {
        let mut pace = Pace::new(HALF_HOUR, "a");
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            pace.failed(0, None);
            let due = pace.due_ns(Urgency::Status);
            assert!((wait * SECOND..=wait * SECOND * 3 / 2).contains(&due), "{wait}: {due}");
        }
        pace.succeeded(0);
        pace.failed(0, None);
        assert!(pace.due_ns(Urgency::Status) < 2 * SECOND);
    }

    #[test]
    fn the_server_may_ask_for_a_longer_wait_but_not_for_a_day() {
        let mut pace = Pace::new(HALF_HOUR, "a");
        pace.failed(0, Some(Duration::from_secs(30)));
        assert!((30 * SECOND..=45 * SECOND).contains(&pace.due_ns(Urgency::Status)));
        pace.failed(0, Some(Duration::from_secs(86_400)));
        assert!(pace.due_ns(Urgency::Status) <= 900 * SECOND);
    }

    #[test]
    fn a_refusal_is_tried_again_after_minutes() {
        let mut pace = Pace::new(HALF_HOUR, "a");
        pace.refused(0);
        assert!((300 * SECOND..=450 * SECOND).contains(&pace.due_ns(Urgency::Unknown)));
    }
}
