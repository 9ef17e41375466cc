//! Which incidents are deleted: only closed ones, by age and by number.

use std::{cmp::Reverse, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::known::is_closed;
use crate::contract::{incident::KernelIncident, remediation::BUDGET_HOUR};

/// How long and how many closed incidents are kept: checked settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// A closed incident is kept for this time.
    pub age: Duration,
    /// Closed incidents that are kept at most; the latest.
    pub number: usize,
}

/// An incident that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surplus {
    /// Its name.
    pub name: String,
    /// Its uid, so that no other one of this name is deleted.
    pub uid: String,
}

/// Those of `incidents` that are kept no longer, the oldest first.
///
/// `now` is compared with times that leaders wrote by their clocks; an incident from the future is not too old. What was closed
/// within the hour stays in any case: its steps count against the budget.
#[must_use]
pub fn surplus<'a>(
    incidents: impl IntoIterator<Item = &'a KernelIncident>,
    retention: Retention,
    now: Timestamp,
) -> Vec<Surplus> {
    let mut closed: Vec<(Timestamp, &KernelIncident)> = incidents
        .into_iter()
        .filter(|incident| is_closed(incident))
        .map(|incident| (closed_at(incident), incident))
        .collect();
    closed.sort_by_key(|(at, incident)| (Reverse(*at), incident.metadata.name.clone()));
    let age = SignedDuration::try_from(retention.age).unwrap_or(SignedDuration::MAX);
    let too_old = |at: Timestamp| now.duration_since(at) > age;
    let hour = SignedDuration::try_from(BUDGET_HOUR).unwrap_or(SignedDuration::MAX);
    let counts = |at: Timestamp| (SignedDuration::ZERO..hour).contains(&now.duration_since(at));
    let over = closed.into_iter().enumerate();
    let over = over.filter(|(index, (at, _))| (*index >= retention.number || too_old(*at)) && !counts(*at));
    let mut surplus: Vec<Surplus> = over
        .filter_map(|(_, (_, incident))| {
            let (name, uid) = (incident.metadata.name.clone()?, incident.metadata.uid.clone()?);
            Some(Surplus { name, uid })
        })
        .collect();
    surplus.reverse();
    surplus
}

fn closed_at(incident: &KernelIncident) -> Timestamp {
    let written = incident.status.as_ref().and_then(|status| status.closed_at.as_ref());
    written.map_or(incident.spec.time.0, |at| at.0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::contract::incident::{KernelIncidentSpec, KernelIncidentStatus, Phase};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn incident(name: &str, phase: Phase, closed: Option<i64>) -> KernelIncident {
        let spec =
            KernelIncidentSpec { node: "node-a".to_owned(), node_uid: None, boot_id: None, time: MicroTime(at(0)) };
        let closed_at = closed.map(|second| MicroTime(at(second)));
        let status = KernelIncidentStatus { phase: Some(phase), closed_at, ..Default::default() };
        let mut incident = KernelIncident { status: Some(status), ..KernelIncident::new(name, spec) };
        incident.metadata.uid = Some(format!("u-{name}"));
        incident
    }

    fn names(incidents: &[KernelIncident], age: u64, number: usize) -> Vec<String> {
        let retention = Retention { age: Duration::from_secs(age), number };
        surplus(incidents, retention, at(10_000)).into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn what_is_closed_goes_by_age_and_by_number_and_the_oldest_first() {
        let all = [
            incident("new", Phase::Closed, Some(990)),
            incident("old", Phase::Closed, Some(100)),
            incident("older", Phase::Closed, Some(50)),
            incident("future", Phase::Closed, Some(50_000)),
        ];
        assert_eq!(names(&all, 9899, 10), ["older", "old"]);
        assert_eq!(names(&all, 90_000, 2), ["older", "old"]);
        assert_eq!(names(&all, 90_000, 4), [""; 0]);
        assert_eq!(names(&all, 0, 0), ["older", "old", "new", "future"]);
    }

    #[test]
    fn what_was_closed_within_the_hour_stays_for_the_budget() {
        let all = [incident("late", Phase::Closed, Some(6_500)), incident("early", Phase::Closed, Some(6_300))];
        assert_eq!(names(&all, 0, 0), ["early"]);
    }

    #[test]
    fn what_is_open_stays_however_old_it_is() {
        let all = [incident("open", Phase::Dead, None), incident("returned", Phase::Returned, None)];
        assert_eq!(names(&all, 0, 0), [""; 0]);
    }

    #[test]
    fn without_the_time_of_its_end_the_time_of_the_death_counts() {
        assert_eq!(names(&[incident("a", Phase::Closed, None)], 999, 10), ["a"]);
    }
}
