//! What the agent needs to be ready: each detector that the settings require, and one that works at all.
//!
//! A detector that is to run by the best method there is (`best`) may find none: then it stays off, and a node whose kernel
//! offers it no method is as ready as it will ever be.

use std::collections::BTreeSet;

use crate::{
    agent::options::{Choice, Chosen, Detector},
    ops::http::Readiness,
};

/// Stands in `/readyz` for "any detector".
const ANY: &str = "detectors";

/// Holds the page `/readyz` to what the detectors do.
#[derive(Debug)]
pub(super) struct Needs {
    chosen: Chosen,
    readiness: Readiness,
    working: BTreeSet<Detector>,
}

impl Needs {
    /// Nothing is attached yet.
    pub(super) fn of(chosen: Chosen) -> Self {
        let required = Detector::ALL.into_iter().filter(|detector| is_required(chosen.of(*detector)));
        let readiness = Readiness::new(required.map(Detector::name).chain([ANY]));
        Self { chosen, readiness, working: BTreeSet::new() }
    }

    /// What the page shows.
    pub(super) const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// `detector` watches now.
    pub(super) fn works(&mut self, detector: Detector) {
        self.working.insert(detector);
        self.readiness.there(detector.name());
        if detector.tells() {
            self.readiness.there(ANY);
        }
    }

    /// `detector` has no method, or none any more; why.
    pub(super) fn is_off(&mut self, detector: Detector, why: &str) {
        self.working.remove(&detector);
        if is_required(self.chosen.of(detector)) {
            self.readiness.gone(detector.name(), why.to_owned());
        }
        if !self.working.iter().any(|working| working.tells()) {
            self.readiness.gone(ANY, format!("none works; {}: {why}", detector.name()));
        }
    }
}

const fn is_required(choice: Choice) -> bool {
    matches!(choice, Choice::Required | Choice::Forced(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::options::Method;

    fn missing(needs: &Needs) -> Vec<&'static str> {
        needs.readiness().missing().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_detector_that_finds_no_method_does_not_keep_the_agent_from_being_ready() {
        let mut needs = Needs::of(Chosen::default());
        assert_eq!(missing(&needs), [ANY]);
        needs.is_off(Detector::HungTask, "this kernel has no such tracepoint");
        assert_eq!(missing(&needs), [ANY]);
        needs.works(Detector::Oom);
        assert_eq!(missing(&needs), [""; 0]);
    }

    #[test]
    fn an_agent_without_any_detector_is_not_ready() {
        let mut needs = Needs::of(Chosen::default());
        needs.works(Detector::Oom);
        needs.works(Detector::HungTask);
        needs.is_off(Detector::Oom, "detached");
        assert_eq!(missing(&needs), [""; 0]);
        needs.is_off(Detector::HungTask, "detached");
        assert_eq!(needs.readiness().missing(), [(ANY, "none works; hung_task: detached".to_owned())]);
        needs.works(Detector::Oom);
        assert_eq!(missing(&needs), [""; 0]);
    }

    #[test]
    fn a_detector_asked_for_by_name_or_by_method_is_required() {
        for choice in [Choice::Required, Choice::Forced(Method::Kmsg)] {
            let mut needs = Needs::of(Chosen { oom: Choice::Best, hung_task: choice, panic: Choice::Best });
            needs.works(Detector::Oom);
            assert_eq!(missing(&needs), ["hung_task"]);
            needs.works(Detector::HungTask);
            assert_eq!(missing(&needs), [""; 0]);
            needs.is_off(Detector::HungTask, "detached");
            assert_eq!(missing(&needs), ["hung_task"]);
        }
    }

    #[test]
    fn a_detector_that_is_switched_off_is_not_waited_for() {
        let mut needs = Needs::of(Chosen { oom: Choice::Required, hung_task: Choice::Off, panic: Choice::Off });
        needs.works(Detector::Oom);
        assert_eq!(missing(&needs), [""; 0]);
    }
}
