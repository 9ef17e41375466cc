//! Times of the kernel's log become times since boot.
//!
//! The log is stamped by a clock of its own (`local_clock`, `kernel/sched/clock.c`): microseconds since boot, without
//! suspended time, never disciplined by NTP. Over weeks it strays from `CLOCK_MONOTONIC` by seconds. No file tells by how
//! much; but a line is never read before it was written, so that the least delay lately seen bounds it.

/// How long a delay is remembered at least, and at most twice as long: neither the clock's straying nor a line with a
/// wrong time has an effect for longer.
const WINDOW_NS: u64 = 60 * 1_000_000_000;

/// Two clocks read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boot_ns: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds: the same without suspended time.
    pub monotonic_ns: u64,
}

/// The distance between the log's clock and `CLOCK_MONOTONIC`, learned from the lines that are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogClock {
    /// Least distance in the present window and in the one before.
    least: [Option<i128>; 2],
    /// When the present window began.
    began_ns: u64,
}

impl LogClock {
    /// When a line was written, nanoseconds since boot: approximate, and never after `now`, at which it was read.
    ///
    /// Good to the delay with which the most promptly read line of the last minute was read, as a rule well under a
    /// millisecond. Lines must be shown in their order.
    pub fn boot_ns(&mut self, time_us: u64, now: Now) -> u64 {
        match now.monotonic_ns.saturating_sub(self.began_ns) / WINDOW_NS {
            0 => {}
            windows => {
                self.least = [None, self.least[0].filter(|_| windows == 1)];
                self.began_ns = now.monotonic_ns;
            }
        }
        let time_ns = i128::from(time_us) * 1_000;
        let seen = i128::from(now.monotonic_ns) - time_ns;
        let least = self.least.iter().flatten().fold(seen, |least, earlier| least.min(*earlier));
        self.least[0] = Some(self.least[0].map_or(seen, |earlier| earlier.min(seen)));
        let suspended_ns = now.boot_ns.saturating_sub(now.monotonic_ns);
        let boot_ns = u64::try_from(time_ns + least).unwrap_or(0).saturating_add(suspended_ns);
        boot_ns.min(now.boot_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nanoseconds of a second.
    const SECOND: u64 = 1_000_000_000;

    fn now(boot_ns: u64, suspended_ns: u64) -> Now {
        Now { boot_ns, monotonic_ns: boot_ns - suspended_ns }
    }

    #[test]
    fn a_line_read_late_is_dated_by_the_promptest_one() {
        let mut clock = LogClock::default();
        assert_eq!(clock.boot_ns(10_000_000, now(10 * SECOND, 0)), 10 * SECOND);
        assert_eq!(clock.boot_ns(11_000_000, now(15 * SECOND, 0)), 11 * SECOND);
    }

    #[test]
    fn a_first_line_read_late_is_mended_by_the_next() {
        let mut clock = LogClock::default();
        assert_eq!(clock.boot_ns(9_000_000, now(10 * SECOND, 0)), 10 * SECOND);
        assert_eq!(clock.boot_ns(11_000_000, now(11 * SECOND, 0)), 11 * SECOND);
        assert_eq!(clock.boot_ns(12_000_000, now(15 * SECOND, 0)), 12 * SECOND);
    }

    #[test]
    fn time_slept_is_added() {
        let mut clock = LogClock::default();
        clock.boot_ns(10_000_000, now(10 * SECOND, 0));
        assert_eq!(clock.boot_ns(10_000_100, now(110 * SECOND + 100_000, 100 * SECOND)), 110 * SECOND + 100_000);
    }

    #[test]
    fn a_clock_that_strays_is_followed_either_way() {
        for stray in [-400_i64, 400] {
            let mut clock = LogClock::default();
            let mut furthest = 0;
            for second in 1..20_000_u64 {
                let read = second * SECOND;
                let time_us = u64::try_from(i64::try_from(second).unwrap() * (1_000_000 + stray)).unwrap();
                furthest = furthest.max(read - clock.boot_ns(time_us, now(read, 0)));
            }
            assert!(furthest < SECOND / 10, "{furthest} ns off at {stray} ppm");
        }
    }

    #[test]
    fn a_wrong_time_is_forgotten_soon() {
        let mut clock = LogClock::default();
        assert_eq!(clock.boot_ns(500_000_000, now(100 * SECOND, 0)), 100 * SECOND);
        let after = 100 + 2 * WINDOW_NS / SECOND;
        assert_eq!(clock.boot_ns(after * 1_000_000, now(after * SECOND, 0)), after * SECOND);
    }

    #[test]
    fn no_line_is_from_the_future() {
        assert!(LogClock::default().boot_ns(u64::MAX, now(SECOND, 0)) <= SECOND);
        assert!(LogClock::default().boot_ns(0, now(SECOND, SECOND)) <= SECOND);
    }
}
