//! When the flow looks again without being woken by records. At rest nothing is on it, so that nothing wakes the process.

use std::time::{Duration, Instant};

use detector_common::counter::BULK_LOOK_AGAIN_MS;

/// How long after a wake-up by the bulk ring it is read once more. For a part of this time the kernel side writes without
/// waking, and nothing of that may stay unseen.
const LOOK_AGAIN: Duration = Duration::from_millis(BULK_LOOK_AGAIN_MS);

/// How long the lines of the kernel's log wait to be read, if it is a witness only. Far less than its grace.
const LOG_LATER: Duration = Duration::from_millis(200);

/// How long after a sign of life it is checked that all programs are still attached. Not at rest: what was detached
/// there is noticed with the next sign of life, and a kill meanwhile by the kernel's log.
const CHECK: Duration = Duration::from_secs(5);

/// How long after a fall to a lower method the better ones are tried again, at the check that follows.
const CLIMB: Duration = Duration::from_secs(300);

/// What is due, and when.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// No reason to wake up: asked for when something else did.
    climb: Option<Instant>,
    look_again: Option<Instant>,
    log: Option<Instant>,
    check: Option<Instant>,
}

impl Agenda {
    /// Records or lines came.
    pub(super) fn active(&mut self, now: Instant) {
        self.look_again = Some(now + LOOK_AGAIN);
        self.check.get_or_insert(now + CHECK);
    }

    /// The next time at which the process must wake up, if there is one.
    pub(super) fn next(&self) -> Option<Instant> {
        self.look_again.into_iter().chain(self.log).chain(self.check).min()
    }

    /// Lines of the log came; they are read later, together with those that follow.
    pub(super) fn log_later(&mut self, now: Instant) {
        self.log.get_or_insert(now + LOG_LATER);
    }

    /// Whether lines of the log are to be read now; asked once each time.
    pub(super) fn takes_log(&mut self, now: Instant) -> bool {
        self.log.take_if(|due| *due <= now).is_some()
    }

    /// Takes the second look off, if it is due.
    pub(super) fn looked(&mut self, now: Instant) {
        self.look_again.take_if(|due| *due <= now);
    }

    /// Whether the programs are to be checked now; asked once each time.
    pub(super) fn takes_check(&mut self, now: Instant) -> bool {
        self.check.take_if(|due| *due <= now).is_some()
    }

    /// A detector fell to a lower method.
    pub(super) fn fell(&mut self, now: Instant) {
        self.climb = Some(now + CLIMB);
    }

    /// Whether better methods are to be tried now; asked once each time.
    pub(super) fn takes_climb(&mut self, now: Instant) -> bool {
        self.climb.take_if(|due| *due <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn at_rest_nothing_is_due() {
        let start = clock::monotonic_now();
        let mut agenda = Agenda::default();
        assert_eq!(agenda.next(), None);
        assert!(!agenda.takes_check(start + CHECK * 10));
    }

    #[test]
    fn after_a_sign_of_life_one_more_look_and_one_check_follow_and_then_nothing() {
        let start = clock::monotonic_now();
        let mut agenda = Agenda::default();
        agenda.active(start);
        assert_eq!(agenda.next(), Some(start + LOOK_AGAIN));
        agenda.looked(start + LOOK_AGAIN);
        assert_eq!(agenda.next(), Some(start + CHECK));
        assert!(agenda.takes_check(start + CHECK));
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn life_that_never_ceases_does_not_put_the_check_off() {
        let start = clock::monotonic_now();
        let mut agenda = Agenda::default();
        let step = Duration::from_millis(10);
        for n in 0..500 {
            agenda.active(start + step * n);
        }
        assert!(agenda.takes_check(start + CHECK));
    }

    #[test]
    fn lines_of_a_witness_are_read_together_and_not_put_off_by_further_ones() {
        let start = clock::monotonic_now();
        let mut agenda = Agenda::default();
        assert!(!agenda.takes_log(start));
        agenda.log_later(start);
        agenda.log_later(start + LOG_LATER / 2);
        assert_eq!(agenda.next(), Some(start + LOG_LATER));
        assert!(!agenda.takes_log(start + LOG_LATER / 2));
        assert!(agenda.takes_log(start + LOG_LATER));
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn better_methods_are_tried_again_some_minutes_after_the_last_fall() {
        let start = clock::monotonic_now();
        let mut agenda = Agenda::default();
        assert!(!agenda.takes_climb(start + CLIMB));
        agenda.fell(start);
        agenda.fell(start + CLIMB / 2);
        assert_eq!(agenda.next(), None);
        assert!(!agenda.takes_climb(start + CLIMB));
        assert!(agenda.takes_climb(start + CLIMB * 2));
        assert!(!agenda.takes_climb(start + CLIMB * 3));
    }
}
