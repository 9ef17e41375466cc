//! Which of the steps written down in an incident still stand: pure.
//!
//! An entry stands no more once its opposite was taken later: a node that is lost again is cordoned again. What was only told
//! in dry run does not stand once steps are really taken: nothing of it was done.

use jiff::{SignedDuration, Timestamp};

use super::FORTH;
use crate::{
    contract::incident::{KernelIncidentStatus, StepEntry, StepKind, StepState},
    controller::incident::weigh::Weight,
};

/// Steps as a plan sees them.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    steps: &'a [StepEntry],
    act: bool,
}

impl<'a> Standing<'a> {
    /// Those of `status`. `act`: steps are really taken.
    #[must_use]
    pub fn of(status: &'a KernelIncidentStatus, act: bool) -> Self {
        Self { steps: &status.steps, act }
    }

    /// The entry of `kind`, if it stands.
    #[must_use]
    pub fn entry(self, kind: StepKind) -> Option<&'a StepEntry> {
        let entry = self.steps.iter().find(|entry| entry.kind == kind)?;
        let only_told = self.act && entry.state == StepState::Told;
        let undone = opposite(kind).is_some_and(|opposite| {
            let later = |other: &&StepEntry| other.kind == opposite && other.time.0 > entry.time.0;
            // What is being taken back still stands; what is done again was not taken back for good.
            let counts = |other: &StepEntry| match takes_back(kind) {
                true => other.state != StepState::Told,
                false => other.state == StepState::Done,
            };
            self.steps.iter().find(later).is_some_and(counts)
        });
        (!only_told && !undone).then_some(entry)
    }

    /// It will not be taken (again).
    #[must_use]
    pub fn ended(self, kind: StepKind) -> bool {
        self.entry(kind).is_some_and(|entry| entry.state != StepState::Intended)
    }

    /// Done, or told in dry run: what comes next may build on it.
    #[must_use]
    pub fn stands(self, kind: StepKind) -> bool {
        self.entry(kind).is_some_and(|entry| matches!(entry.state, StepState::Done | StepState::Told))
    }

    /// Intended: it was begun, and goes on.
    #[must_use]
    pub fn under_way(self, kind: StepKind) -> bool {
        self.entry(kind).is_some_and(|entry| entry.state == StepState::Intended)
    }

    /// Perhaps done, at least in part, and not taken back since.
    #[must_use]
    pub fn begun(self, kind: StepKind) -> bool {
        self.entry(kind).is_some_and(|entry| entry.state != StepState::Told)
    }

    /// When the first step was written down that the budget counts. The reason of a panic that was told moves nothing, and
    /// what failed did not either.
    #[must_use]
    pub fn first(self, weight: &Weight) -> Option<Timestamp> {
        self.counted(weight).map(|entry| entry.time.0).min()
    }

    /// Whether a step that counts was written down, and nothing was taken back since.
    #[must_use]
    pub fn is_begun(self, weight: &Weight) -> bool {
        let back = self.last_back();
        self.counted(weight).any(|entry| Some(entry.time.0) > back)
    }

    /// The same, or what was done has not been taken back wholly: the node is still kept from its work.
    #[must_use]
    pub fn is_remediated(self, weight: &Weight) -> bool {
        let back = self.last_back();
        self.counted(weight).any(|entry| match opposite(entry.kind) {
            Some(_) => self.entry(entry.kind).is_some(),
            None => Some(entry.time.0) > back,
        })
    }

    fn last_back(self) -> Option<Timestamp> {
        self.steps.iter().filter(|entry| takes_back(entry.kind)).map(|entry| entry.time.0).max()
    }

    fn counted(self, weight: &Weight) -> impl Iterator<Item = &'a StepEntry> {
        let told = weight.told.is_some();
        self.steps.iter().filter(move |entry| {
            let moves = FORTH.contains(&entry.kind) && (entry.kind != StepKind::Annotate || !told);
            moves && entry.state != StepState::Failed && !(self.act && entry.state == StepState::Told)
        })
    }

    /// The time of a new entry: later than that of all others, whoever's clock they were written by.
    #[must_use]
    pub fn next(self, now: Timestamp) -> Timestamp {
        let last = self.steps.iter().map(|entry| entry.time.0).max();
        last.and_then(|last| last.checked_add(SignedDuration::from_micros(1)).ok()).map_or(now, |next| next.max(now))
    }
}

/// The step that takes `kind` back, or that it takes back.
const fn opposite(kind: StepKind) -> Option<StepKind> {
    match kind {
        StepKind::Cordon => Some(StepKind::Uncordon),
        StepKind::Annotate => Some(StepKind::Retract),
        StepKind::TaintOutOfService => Some(StepKind::Untaint),
        StepKind::Uncordon => Some(StepKind::Cordon),
        StepKind::Retract => Some(StepKind::Annotate),
        StepKind::Untaint => Some(StepKind::TaintOutOfService),
        StepKind::DeletePods | StepKind::FailPods | StepKind::ForceDeletePods | StepKind::DeleteNode => None,
    }
}

/// Whether it takes something back.
#[must_use]
pub const fn takes_back(kind: StepKind) -> bool {
    matches!(kind, StepKind::Retract | StepKind::Untaint | StepKind::Uncordon)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn status(steps: &[(StepKind, StepState, i64)]) -> KernelIncidentStatus {
        let steps = steps.iter().map(|(kind, state, second)| StepEntry {
            kind: *kind,
            state: *state,
            time: MicroTime(at(*second)),
            ended: None,
            message: String::new(),
        });
        KernelIncidentStatus { steps: steps.collect(), ..Default::default() }
    }

    #[test]
    fn what_was_taken_back_may_be_done_again_and_taken_back_again() {
        let once = status(&[(StepKind::Cordon, StepState::Done, 1), (StepKind::Uncordon, StepState::Done, 2)]);
        let standing = Standing::of(&once, true);
        assert!(!standing.stands(StepKind::Cordon) && standing.ended(StepKind::Uncordon));
        let twice = status(&[(StepKind::Cordon, StepState::Done, 3), (StepKind::Uncordon, StepState::Done, 2)]);
        let standing = Standing::of(&twice, true);
        assert!(standing.stands(StepKind::Cordon) && !standing.ended(StepKind::Uncordon));
    }

    #[test]
    fn what_is_being_taken_back_stands_until_it_is() {
        let begun = status(&[(StepKind::Annotate, StepState::Done, 1), (StepKind::Retract, StepState::Intended, 2)]);
        let standing = Standing::of(&begun, true);
        assert!(standing.begun(StepKind::Annotate) && standing.under_way(StepKind::Retract));
    }

    #[test]
    fn what_was_only_told_is_nothing_to_build_on_once_steps_are_taken() {
        let told = status(&[(StepKind::Cordon, StepState::Told, 1)]);
        assert!(Standing::of(&told, false).stands(StepKind::Cordon));
        assert!(!Standing::of(&told, true).stands(StepKind::Cordon));
        assert!(!Standing::of(&told, true).ended(StepKind::Cordon));
    }

    #[test]
    fn a_clock_that_lags_does_not_change_the_order() {
        let one = status(&[(StepKind::Cordon, StepState::Done, 100)]);
        assert!(Standing::of(&one, true).next(at(50)) > at(100));
        assert_eq!(Standing::of(&one, true).next(at(150)), at(150));
    }
}
