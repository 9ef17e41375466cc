//! Which incident a fact belongs to: one that stands, a new one, or none.
//!
//! One death is one incident, whoever tells it: two replicas that hear the same panic, the Lease that goes stale, the record
//! that the node finds after its reboot. They are joined by node and boot; where one of them does not know the boot, by node
//! and time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Evidence, Fact, NodeFacts, PreviousEnd};
use crate::contract::incident::{self, KernelIncident, KernelIncidentSpec, Phase};

/// Facts of one node that are no further apart than this may be about the same death, if no boot tells otherwise.
pub const TOGETHER: Duration = Duration::from_secs(10 * 60);

/// Where a fact belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// To the incident of this name.
    Existing(String),
    /// To a new one.
    New {
        /// Its name, which whoever opens it finds as well.
        name: String,
        /// Its identity.
        spec: Box<KernelIncidentSpec>,
    },
    /// To none: it tells of no death.
    Nowhere,
}

/// Finds the place of `evidence` among `incidents`, those of its node (others are passed over).
#[must_use]
pub fn place<'a>(
    evidence: &Evidence,
    node: Option<&NodeFacts>,
    incidents: impl IntoIterator<Item = &'a KernelIncident>,
) -> Place {
    let mut own: Vec<&KernelIncident> = incidents.into_iter().filter(|one| one.spec.node == evidence.node).collect();
    own.sort_by_key(|one| std::cmp::Reverse(one.spec.time.0));
    // What was found after the reboot tells of the boot before, and that is not what the Node says now.
    let found = matches!(evidence.fact, Fact::Found { .. });
    let of_node = node.and_then(|node| node.boot_id.as_deref()).filter(|_| !found);
    let boot = evidence.boot_id.as_deref().or(of_node);
    let (at, late) = match &evidence.fact {
        Fact::Found { at, .. } => (at.unwrap_or(evidence.at), true),
        _ => (evidence.at, false),
    };
    let joins = |one: &&&KernelIncident| (late || !closed(one)) && same_death(one, boot, at, late);
    if let Some(name) = own.iter().find(joins).and_then(|one| one.metadata.name.clone()) {
        return Place::Existing(name);
    }
    if !opens(&evidence.fact) {
        return Place::Nowhere;
    }
    let boot_id = boot.map(str::to_owned);
    let before = own.iter().filter(|one| one.spec.boot_id == boot_id && boot_id.is_some()).count();
    let before = u32::try_from(before).unwrap_or(u32::MAX);
    // Of those before some may be deleted by now: the number alone would give the name of one that is closed.
    let names = (1..=before.saturating_add(1))
        .map(|number| incident::name(&evidence.node, boot, at.as_second(), before.saturating_add(number)));
    let known = |name: &String| own.iter().any(|one| one.metadata.name.as_ref() == Some(name));
    let mut free = names.filter(|name| !known(name));
    let Some(name) = free.next() else { return Place::Nowhere };
    let node_uid = node.map(|node| node.uid.clone());
    let spec = KernelIncidentSpec { node: evidence.node.clone(), node_uid, boot_id, time: MicroTime(at) };
    Place::New { name, spec: Box::new(spec) }
}

fn closed(incident: &KernelIncident) -> bool {
    incident.status.as_ref().is_some_and(|status| status.phase == Some(Phase::Closed))
}

/// An incident that is open takes what comes from its node, but for what is surely about another boot.
fn same_death(incident: &KernelIncident, boot: Option<&str>, at: Timestamp, late: bool) -> bool {
    match (incident.spec.boot_id.as_deref(), boot) {
        (Some(died), Some(boot)) => died == boot,
        // A record without a boot may lie in the archive for years.
        _ if late => near(incident.spec.time.0, at),
        _ => true,
    }
}

fn near(one: Timestamp, other: Timestamp) -> bool {
    one.duration_since(other).abs() <= SignedDuration::try_from(TOGETHER).unwrap_or(SignedDuration::MAX)
}

/// Facts that tell of a death by themselves.
fn opens(fact: &Fact) -> bool {
    match fact {
        Fact::Spoke { findings, .. } => findings.panic.is_some(),
        Fact::Found { end, .. } => *end != PreviousEnd::Clean,
        Fact::LeaseStale { .. } => true,
        Fact::LeaseFresh { .. }
        | Fact::ReadyUnknown { .. }
        | Fact::OtherBoot { .. }
        | Fact::SameBoot
        | Fact::ClockStood
        | Fact::ClockWentOn
        | Fact::NodeDeleted => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        contract::incident::{Confidence, KernelIncidentStatus},
        controller::decode::Findings,
    };

    const BOOT: &str = "0f3c7a52-11aa-4b5c-9c7e-000000000000";
    const NEXT: &str = "ffffffff-11aa-4b5c-9c7e-000000000000";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn node(boot: &str) -> NodeFacts {
        NodeFacts {
            name: "node-a".to_owned(),
            uid: "u-1".to_owned(),
            boot_id: Some(boot.to_owned()),
            ..NodeFacts::default()
        }
    }

    fn panic(boot: Option<&str>, second: i64) -> Evidence {
        let findings = Findings { panic: Some("x".to_owned()), ..Findings::default() };
        let fact = Fact::Spoke { findings, author: Confidence::Low, log: String::new(), lines_missing: 0 };
        Evidence { node: "node-a".to_owned(), at: at(second), boot_id: boot.map(str::to_owned), fact }
    }

    fn found(boot: Option<&str>, second: i64) -> Evidence {
        let fact = Fact::Found {
            end: PreviousEnd::Panic,
            findings: Findings::default(),
            at: Some(at(second)),
            message: String::new(),
        };
        Evidence { node: "node-a".to_owned(), at: at(second + 90), boot_id: boot.map(str::to_owned), fact }
    }

    fn stands(place: Place, phase: Option<Phase>) -> KernelIncident {
        let Place::New { name, spec } = place else { panic!("a new incident, not {place:?}") };
        let status = KernelIncidentStatus { phase, ..KernelIncidentStatus::default() };
        KernelIncident { status: Some(status), ..KernelIncident::new(&name, *spec) }
    }

    fn existing(incident: &KernelIncident) -> Place {
        Place::Existing(incident.metadata.name.clone().expect("a name"))
    }

    #[test]
    fn two_replicas_that_hear_one_panic_open_one_incident() {
        let first = place(&panic(Some(BOOT), 10), Some(&node(BOOT)), []);
        let second = place(&panic(None, 11), Some(&node(BOOT)), []);
        let (Place::New { name: one, .. }, Place::New { name: other, .. }) = (first, second) else {
            panic!("new ones")
        };
        assert_eq!(one, other);
    }

    #[test]
    fn what_follows_joins_the_open_incident() {
        let incident = stands(place(&panic(Some(BOOT), 10), Some(&node(BOOT)), []), Some(Phase::Suspected));
        let stale = Evidence { fact: Fact::LeaseStale { renewed: at(1) }, ..panic(None, 40) };
        assert_eq!(place(&stale, Some(&node(BOOT)), [&incident]), existing(&incident));
        let back = Evidence { fact: Fact::OtherBoot { boot_id: NEXT.to_owned() }, ..panic(Some(BOOT), 90) };
        assert_eq!(place(&back, Some(&node(NEXT)), [&incident]), existing(&incident));
    }

    #[test]
    fn a_panic_of_the_next_boot_is_another_incident() {
        let incident = stands(place(&panic(Some(BOOT), 10), Some(&node(BOOT)), []), Some(Phase::Returned));
        let next = place(&panic(Some(NEXT), 100), Some(&node(NEXT)), [&incident]);
        assert!(matches!(next, Place::New { .. }), "{next:?}");
    }

    #[test]
    fn a_record_found_after_the_reboot_joins_even_what_is_closed() {
        let incident = stands(place(&panic(Some(BOOT), 10), Some(&node(BOOT)), []), Some(Phase::Closed));
        assert_eq!(place(&found(Some(BOOT), 10), Some(&node(NEXT)), [&incident]), existing(&incident));
        assert_eq!(place(&found(None, 60), Some(&node(NEXT)), [&incident]), existing(&incident), "by time");
        let old = place(&found(None, 100_000), Some(&node(NEXT)), [&incident]);
        assert!(matches!(old, Place::New { .. }), "{old:?}");
    }

    #[test]
    fn a_panic_that_nobody_heard_opens_an_incident_when_its_record_is_found() {
        let Place::New { spec, .. } = place(&found(Some(BOOT), 10), Some(&node(NEXT)), []) else { panic!("a new one") };
        assert_eq!((spec.boot_id.as_deref(), spec.time.0), (Some(BOOT), at(10)));
    }

    #[test]
    fn the_same_boot_may_be_lost_twice() {
        let first = stands(place(&panic(Some(BOOT), 10), Some(&node(BOOT)), []), Some(Phase::Closed));
        let Place::New { name, .. } = place(&panic(Some(BOOT), 900), Some(&node(BOOT)), [&first]) else {
            panic!("a new one")
        };
        let begin = first.metadata.name.clone().expect("a name");
        assert_eq!(name, format!("{begin}-2"));
        let mut second = first;
        second.metadata.name = Some(name);
        let third = place(&panic(Some(BOOT), 1800), Some(&node(BOOT)), [&second]);
        let is_third = matches!(&third, Place::New { name, .. } if *name == format!("{begin}-3"));
        assert!(is_third, "the first is deleted by now: {third:?}");
    }

    #[test]
    fn a_sign_of_life_opens_nothing() {
        let back = Evidence { fact: Fact::SameBoot, ..panic(None, 1) };
        assert_eq!(place(&back, Some(&node(BOOT)), []), Place::Nowhere);
        let clean =
            Fact::Found { end: PreviousEnd::Clean, findings: Findings::default(), at: None, message: String::new() };
        assert_eq!(place(&Evidence { fact: clean, ..panic(None, 1) }, Some(&node(BOOT)), []), Place::Nowhere);
    }

    #[test]
    fn incidents_of_other_nodes_are_passed_over() {
        let incident = stands(place(&panic(Some(BOOT), 10), Some(&node(BOOT)), []), None);
        let other = Evidence { node: "node-b".to_owned(), ..panic(Some(BOOT), 11) };
        assert!(matches!(place(&other, None, [&incident]), Place::New { .. }));
    }
}
