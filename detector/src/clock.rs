//! The only place that reads time.
//!
//! Three clocks, each for its purpose: records carry the boot clock, people read the wall clock, deadlines wait on the
//! monotonic clock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

const NANOSECONDS: i128 = 1_000_000_000;

/// How often [`WallClock::measure`] reads the clocks: one undisturbed pair among them is enough.
const ATTEMPTS: u32 = 5;

/// How far a measured distance between the clocks may be from the present one before it is measured again. A clock that
/// NTP slews moves by half as much a second at most (500 ppm, adjtimex(2)); a reading that was interrupted looks like a
/// step, and costs one measurement.
const TOLERANCE_NS: i128 = 1_000_000;

/// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`, clock_gettime(2)): the clock of all records.
#[must_use]
pub fn boot_ns() -> u64 {
    u64::try_from(read(ClockId::Boottime)).unwrap_or(0)
}

/// Tells the present time in nanoseconds since boot: [`boot_ns`], or the time at which records were made.
pub type BootClock<'a> = &'a dyn Fn() -> u64;

/// One jiffy: the kernel's own tick, in which it counts coarse times. The coarse clocks advance once a tick, and their
/// resolution tells its length (`posix_get_coarse_res`, `kernel/time/posix-timers.c`; clock_getres(2)).
#[must_use]
pub fn tick() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_getres(ClockId::MonotonicCoarse);
    Duration::new(u64::try_from(tv_sec).unwrap_or(0), u32::try_from(tv_nsec).unwrap_or(0))
}

/// A tick of user space in nanoseconds: `/proc` tells times in these, rounded down. There are 100 a second on all machines
/// that Linux programs know (`USER_HZ`, time(7)).
pub const USER_TICK_NS: u64 = 10_000_000;

/// `time` in nanoseconds, as records count; the largest number if it is longer than that holds (584 years).
#[must_use]
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Time that the machine was suspended since boot, in nanoseconds: what `CLOCK_BOOTTIME` is ahead of `CLOCK_MONOTONIC`.
#[must_use]
pub fn suspended_ns() -> u64 {
    let monotonic = read(ClockId::Monotonic);
    u64::try_from(read(ClockId::Boottime) - monotonic).unwrap_or(0)
}

/// Now, for deadlines and elapsed time.
#[must_use]
pub fn monotonic_now() -> Instant {
    Instant::now()
}

/// A moment on the clocks that the controller compares with each other and with those of other machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// `CLOCK_MONOTONIC`: goes on while this machine runs, and stands while it is suspended.
    pub monotonic: Duration,
    /// `CLOCK_BOOTTIME`: goes on while this machine is suspended, too.
    pub boot: Duration,
    /// Time of day.
    pub wall: Timestamp,
}

/// Tells the present moment: [`Moment::now`], or what a test wants it to be.
pub type Moments = Arc<dyn Fn() -> Moment + Send + Sync>;

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let span = |clock| Duration::from_nanos(u64::try_from(read(clock)).unwrap_or(0));
        let wall = Timestamp::from_nanosecond(read(ClockId::Realtime)).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { monotonic: span(ClockId::Monotonic), boot: span(ClockId::Boottime), wall }
    }
}

/// Processor time that this process has used (`CLOCK_PROCESS_CPUTIME_ID`, clock_gettime(2)).
#[must_use]
pub fn process_time() -> Duration {
    Duration::from_nanos(u64::try_from(read(ClockId::ProcessCPUTime)).unwrap_or(0))
}

/// Turns times since boot into times of day.
///
/// The distance between the two clocks changes when somebody sets the wall clock or NTP slews it: measure again once
/// [`WallClock::is_off`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// `CLOCK_REALTIME` less `CLOCK_BOOTTIME`, in nanoseconds.
    offset_ns: i128,
}

impl WallClock {
    /// A wall clock that was `offset_ns` nanoseconds after 1970-01-01 UTC at boot.
    #[must_use]
    pub const fn with_offset(offset_ns: i128) -> Self {
        Self { offset_ns }
    }

    /// Measures the distance between the clocks: the wall clock is read between two readings of the boot clock, and the
    /// tightest of a few attempts counts. Good to well under a microsecond unless the thread is interrupted each time.
    #[must_use]
    pub fn measure() -> Self {
        let attempt = || {
            let before = read(ClockId::Boottime);
            let wall = read(ClockId::Realtime);
            let after = read(ClockId::Boottime);
            (after - before, wall - i128::midpoint(before, after))
        };
        let mut best = attempt();
        for _ in 1..ATTEMPTS {
            best = best.min(attempt());
        }
        Self { offset_ns: best.1 }
    }

    /// Whether the distance between the clocks is another one now, by a millisecond or more. Reads each clock once.
    #[must_use]
    pub fn is_off(self) -> bool {
        let distance = read(ClockId::Realtime) - read(ClockId::Boottime);
        (distance - self.offset_ns).abs() >= TOLERANCE_NS
    }

    /// Time of day `boot_ns` nanoseconds after boot. What no calendar holds (a record's number may be anything) is cut
    /// to the last time that one does.
    #[must_use]
    pub fn time(self, boot_ns: u64) -> Timestamp {
        let nanoseconds = i128::from(boot_ns) + self.offset_ns;
        Timestamp::from_nanosecond(nanoseconds).unwrap_or(if nanoseconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
    }

    /// [`Self::time`] as RFC 3339 in UTC, always with six digits of a second, so that texts sort like times.
    #[must_use]
    pub fn rfc3339(self, boot_ns: u64) -> String {
        format!("{:.6}", self.time(boot_ns))
    }
}

fn read(clock: ClockId) -> i128 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    i128::from(tv_sec) * NANOSECONDS + i128::from(tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_since_boot_is_added_to_the_boot() {
        let wall = WallClock::with_offset(1_700_000_000 * NANOSECONDS);
        assert_eq!(wall.rfc3339(0), "2023-11-14T22:13:20.000000Z");
        assert_eq!(wall.rfc3339(1_234_567_891), "2023-11-14T22:13:21.234567Z");
    }

    #[test]
    fn a_time_beyond_the_calendar_is_cut() {
        assert_eq!(WallClock::with_offset(i128::from(i64::MAX) * NANOSECONDS).time(u64::MAX), Timestamp::MAX);
        assert_eq!(WallClock::with_offset(i128::from(i64::MIN) * NANOSECONDS).time(0), Timestamp::MIN);
    }

    #[test]
    fn a_time_that_is_too_long_for_nanoseconds_is_the_longest() {
        assert_eq!(nanoseconds(Duration::new(2, 3)), 2_000_000_003);
        assert_eq!(nanoseconds(Duration::MAX), u64::MAX);
    }

    #[test]
    fn a_tick_is_that_of_some_kernel_between_24_and_1024_a_second() {
        let tick = tick();
        assert!((Duration::from_micros(970)..=Duration::from_millis(42)).contains(&tick), "{tick:?}");
    }

    #[test]
    fn a_clock_that_was_set_is_off_and_one_just_measured_is_not() {
        // A reading may be interrupted, as every reading may.
        assert!((0..100).any(|_| !WallClock::measure().is_off()));
        let WallClock { offset_ns } = WallClock::measure();
        for step in [-3600 * NANOSECONDS, -TOLERANCE_NS * 2, NANOSECONDS, 3600 * NANOSECONDS] {
            assert!(WallClock::with_offset(offset_ns + step).is_off(), "{step} ns");
        }
    }

    #[test]
    fn the_measured_distance_maps_now_to_now() {
        let wall = WallClock::measure();
        let before = read(ClockId::Realtime);
        let now = wall.time(boot_ns()).as_nanosecond();
        let after = read(ClockId::Realtime);
        let tolerance = NANOSECONDS / 10;
        assert!((before - tolerance..=after + tolerance).contains(&now), "{before} <= {now} <= {after}");
    }
}
