//! How far an incident is: a function of its evidence, so that whoever asks gets the same answer.
//!
//! ```text
//!              dead                    back                 back for `close_after`,
//! Suspected ──────────▶ Dead ──────────────────▶ Returned ─────────────────────────▶ Closed
//!     │                  ▲                        │  ▲                                 ▲
//!     │ back             └────── lost again ──────┘  │                                 │
//!     ├──────────────────────────────────────────────┘                                 │
//!     └─ refuted, or its Node deleted, and nothing left to do or to take back ─────────┘
//! ```
//!
//! Lost again and not known to be dead, it is `Suspected` again.
//!
//! | phase | holds when |
//! |---|---|
//! | `Closed` | it was closed before; or nothing is left to do and the evidence will not grow: back for long enough, refuted, or the Node is gone |
//! | `Returned` | the Lease is renewed after it was stale |
//! | `Dead` | two independent witnesses ([`Weight::is_dead`]) |
//! | `Suspected` | else |

use std::time::Duration;

use jiff::Timestamp;

use super::weigh::Weight;
use crate::contract::incident::Phase;

/// What else a phase depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// The phase that stands in the object.
    pub before: Option<Phase>,
    /// Steps have been written down and not ended, or something that we did has still to be taken back.
    pub unfinished: bool,
    /// An incident of a node that is back is closed after this time.
    pub close_after: Duration,
    /// By the clock of this replica.
    pub now: Timestamp,
}

/// The phase, and when it will change by time alone.
#[must_use]
pub fn phase(weight: &Weight, at: Circumstances) -> (Phase, Option<Timestamp>) {
    if at.before == Some(Phase::Closed) {
        return (Phase::Closed, None);
    }
    if weight.deleted || weight.refuted() {
        let ended = if at.unfinished { open(weight) } else { Phase::Closed };
        return (ended, None);
    }
    let Some(since) = weight.fresh else { return (open(weight), None) };
    let closes = since.checked_add(at.close_after).unwrap_or(Timestamp::MAX);
    if at.now < closes {
        return (Phase::Returned, Some(closes));
    }
    (if at.unfinished { Phase::Returned } else { Phase::Closed }, None)
}

fn open(weight: &Weight) -> Phase {
    match (weight.is_back(), weight.is_dead()) {
        (true, _) => Phase::Returned,
        (false, true) => Phase::Dead,
        (false, false) => Phase::Suspected,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::incident::Confidence;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    const CLOSE_AFTER: Duration = Duration::from_secs(300);

    fn at(now: i64, unfinished: bool) -> Circumstances {
        Circumstances { before: None, unfinished, close_after: CLOSE_AFTER, now: second(now) }
    }

    fn told() -> Weight {
        Weight { told: Some(Confidence::Medium), ..Weight::default() }
    }

    #[test]
    fn one_witness_is_a_suspicion_and_two_are_a_death() {
        assert_eq!(phase(&told(), at(1, false)).0, Phase::Suspected);
        let dead = Weight { stale: Some(second(1)), given_up: true, ..told() };
        assert_eq!(phase(&dead, at(1, false)).0, Phase::Dead);
    }

    #[test]
    fn a_node_that_is_back_is_watched_for_a_while() {
        let back = Weight { stale: Some(second(1)), fresh: Some(second(100)), other_boot: true, ..told() };
        assert_eq!(phase(&back, at(101, false)), (Phase::Returned, Some(second(400))));
        assert_eq!(phase(&back, at(400, true)).0, Phase::Returned, "something is still to be taken back");
        assert_eq!(phase(&back, at(400, false)).0, Phase::Closed);
    }

    #[test]
    fn a_false_alarm_is_closed_as_soon_as_all_is_taken_back() {
        let refuted = Weight { fresh: Some(second(20)), same_boot: true, outlived: true, ..told() };
        assert_eq!(phase(&refuted, at(21, true)).0, Phase::Returned);
        assert_eq!(phase(&refuted, at(21, false)).0, Phase::Closed);
    }

    fn any_weight() -> impl Strategy<Value = Weight> {
        let flags = prop::array::uniform9(any::<bool>());
        (flags, prop::option::of(0_i64..900), prop::option::of(0_i64..900), any::<bool>()).prop_map(
            |(flags, stale, fresh, told)| {
                let [found_panic, found_unclean, found_clean, given_up, other_boot, same_boot, stood, spoke, deleted] =
                    flags;
                Weight {
                    told: told.then_some(Confidence::Low),
                    told_at: told.then_some(Timestamp::UNIX_EPOCH),
                    found_panic,
                    found_unclean,
                    found_clean,
                    stale: stale.map(second),
                    fresh: fresh.filter(|at| stale.is_none_or(|stale| *at > stale)).map(second),
                    given_up,
                    other_boot,
                    same_boot,
                    outlived: same_boot,
                    clock_stood: stood,
                    clock_went_on: !stood,
                    kernel_spoke: spoke,
                    deleted,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_closed_stays_closed(weight in any_weight(), now in 0_i64..2000, unfinished in any::<bool>()) {
            let at = Circumstances { before: Some(Phase::Closed), ..at(now, unfinished) };
            prop_assert_eq!(phase(&weight, at), (Phase::Closed, None));
        }

        #[test]
        fn nothing_is_closed_while_something_is_unfinished(weight in any_weight(), now in 0_i64..2000) {
            prop_assert_ne!(phase(&weight, at(now, true)).0, Phase::Closed);
        }

        #[test]
        fn nobody_is_dead_who_is_back(weight in any_weight(), now in 0_i64..2000) {
            let (phase, _) = phase(&weight, at(now, false));
            prop_assert!(phase != Phase::Dead || !weight.is_back());
        }

        #[test]
        fn a_phase_that_waits_for_time_changes_then(weight in any_weight(), now in 0_i64..2000) {
            if let (before, Some(until)) = phase(&weight, at(now, false)) {
                let later = Circumstances { now: until, ..at(now, false) };
                prop_assert_ne!(phase(&weight, later).0, before);
            }
        }
    }
}
