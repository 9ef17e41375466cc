//! Token bucket in one number: the time at which all that was taken is paid off.

use std::time::Duration;

/// How much may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Time that one takes to pay off.
    each: Duration,
    /// Debt at most.
    depth: Duration,
}

impl Rate {
    /// `burst` at once, and `per_second` in the long run. Zeros are taken for ones.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self { each, depth: each * burst.max(1) }
    }

    /// Debt of somebody who took `count` at once.
    pub(super) fn debt_of(self, count: u32) -> Duration {
        self.each * count
    }
}

/// A bucket; full at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    paid_at: Duration,
}

impl Pace {
    pub(super) fn in_debt(debt: Duration, now: Duration) -> Self {
        Self { paid_at: now + debt }
    }

    /// What is not paid off.
    pub(super) fn debt(self, now: Duration) -> Duration {
        self.paid_at.saturating_sub(now)
    }

    pub(super) fn has_room(self, rate: Rate, now: Duration) -> bool {
        self.debt(now) + rate.each <= rate.depth
    }

    /// Takes one, if there is room for it.
    pub(super) fn take(&mut self, rate: Rate, now: Duration) -> bool {
        let room = self.has_room(rate, now);
        if room {
            self.paid_at = self.paid_at.max(now) + rate.each;
        }
        room
    }
}
