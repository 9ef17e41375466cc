//! How long the flow waits for names when a kill must be told now: a moment, not often, and not at all while the reader
//! is stuck. Pure: times come in as numbers.

use std::time::Duration;

/// Longest wait within [`REFILL_NS`]. A healthy read takes less than a millisecond, one from a busy disk some ten; a
/// machine that is out of memory may be slow to let the reader run.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_millis(100);

/// After this time, by the kernel's times of the events that names are wanted for, patience is whole again: a storm of
/// kills is slowed by a tenth at the most.
pub(crate) const REFILL_NS: u64 = 1_000_000_000;

/// What is left of it.
#[derive(Debug, Default)]
pub(super) struct Patience {
    left: Duration,
    /// Time of the event for which it was last whole, nanoseconds since boot.
    whole_at: Option<u64>,
    /// It ended without any answer, and none has come since.
    stuck: bool,
}

impl Patience {
    /// How long an event of the time `boot_ns` may wait.
    pub(super) fn left(&mut self, boot_ns: u64) -> Duration {
        if self.stuck {
            return Duration::ZERO;
        }
        if self.whole_at.is_none_or(|whole_at| boot_ns.saturating_sub(whole_at) >= REFILL_NS) {
            (self.left, self.whole_at) = (ANSWER_PATIENCE, Some(boot_ns));
        }
        self.left
    }

    /// A wait took so long, and brought an answer or none. One without ends all patience, however short it was.
    pub(super) fn spend(&mut self, spent: Duration, answered: bool) {
        self.left = self.left.saturating_sub(spent);
        self.stuck = !answered;
    }

    /// An answer came.
    pub(super) fn answered(&mut self) {
        self.stuck = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Duration = Duration::from_millis(20);

    #[test]
    fn events_of_the_same_second_share_one_patience() {
        let mut patience = Patience::default();
        assert_eq!(patience.left(5), ANSWER_PATIENCE);
        patience.spend(PART, true);
        assert_eq!(patience.left(6), ANSWER_PATIENCE - PART);
        patience.spend(ANSWER_PATIENCE, true);
        assert_eq!(patience.left(4 + REFILL_NS), Duration::ZERO);
        assert_eq!(patience.left(5 + REFILL_NS), ANSWER_PATIENCE);
    }

    #[test]
    fn after_a_wait_in_vain_nobody_waits_until_an_answer_came() {
        let mut patience = Patience::default();
        patience.left(0);
        patience.spend(PART, false);
        assert_eq!(patience.left(100 * REFILL_NS), Duration::ZERO);
        patience.answered();
        assert_eq!(patience.left(100 * REFILL_NS), ANSWER_PATIENCE);
    }

    #[test]
    fn an_event_that_is_told_out_of_order_does_not_renew_patience() {
        let mut patience = Patience::default();
        patience.left(10 * REFILL_NS);
        patience.spend(PART, true);
        assert_eq!(patience.left(REFILL_NS), ANSWER_PATIENCE - PART);
    }
}
