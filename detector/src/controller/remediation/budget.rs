//! What all incidents use up of the budget: counted from the steps that stand in their objects, so that it survives every
//! restart and is the same for each leader.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    Usage,
    plan::{FORTH, standing::Standing},
};
use crate::{
    contract::{
        incident::{KernelIncident, KernelIncidentStatus, Phase, StepState},
        remediation::BUDGET_HOUR,
    },
    controller::{
        incident::{Ready, weigh::Weight},
        source::nodes::Nodes,
    },
};

/// A node counts as being remediated for so long after the last step on it.
pub const UNDER_WAY: Duration = Duration::from_secs(10 * 60);

/// What a count depends on besides the incidents.
#[derive(Clone, Copy, Debug)]
pub struct Used<'a> {
    /// Incidents on which a step is being taken right now; the first may not stand yet.
    pub reserved: &'a BTreeSet<String>,
    /// When a person released the brake: steps before it do not pull it again.
    pub since: Option<Timestamp>,
    /// Steps are really taken: those that were only told use nothing.
    pub act: bool,
    /// Compared with the times of steps, which leaders wrote by their clocks.
    pub now: Timestamp,
}

/// What is used by other nodes than that of `incident`. Takes as long as there are incidents and Nodes.
///
/// A node is under remediation while a step is being taken, and for [`UNDER_WAY`] after the last one: one that stays dead does
/// not keep others from their remediation for ever. In dry run the steps that were only told count, so that what is told is
/// what would have been done.
#[must_use]
pub fn usage<'a>(
    incident: &KernelIncident,
    incidents: impl IntoIterator<Item = &'a KernelIncident>,
    nodes: &Nodes,
    used: &Used<'_>,
) -> Usage {
    let mut usage = Usage::default();
    for node in nodes.iter() {
        usage.cluster += 1;
        usage.not_ready += u32::from(node.ready != Ready::True);
    }
    let zone = |name: &str| nodes.get(name).and_then(|node| node.zone.as_deref());
    let own = zone(&incident.spec.node);
    let (mut remediated, mut lately) = (BTreeSet::new(), BTreeSet::new());
    for other in incidents.into_iter().filter(|other| other.spec.node != incident.spec.node) {
        let node = other.spec.node.as_str();
        if other.metadata.name.as_ref().is_some_and(|name| used.reserved.contains(name)) {
            remediated.insert(node);
            // What stands already counts by its own time below.
            if !other.status.as_ref().is_some_and(|status| is_begun(status, used.act)) {
                lately.insert(node);
            }
        }
        let Some(status) = &other.status else { continue };
        let standing = Standing::of(status, used.act);
        if status.phase != Some(Phase::Closed) && is_under_way(status, standing, used.now) {
            remediated.insert(node);
        }
        // What was taken back was done all the same.
        let counts =
            |first: Timestamp| within(first, BUDGET_HOUR, used.now) && used.since.is_none_or(|since| first > since);
        if standing.first(&Weight::of(&status.evidence)).is_some_and(counts) {
            lately.insert(node);
        }
    }
    usage.nodes = count(remediated.iter());
    usage.nodes_in_zone = count(remediated.iter().filter(|node| zone(node) == own));
    usage.nodes_in_hour = count(lately.iter());
    usage
}

fn count<T>(all: impl Iterator<Item = T>) -> u32 {
    u32::try_from(all.count()).unwrap_or(u32::MAX)
}

/// Its first step stands, so that its time is known.
fn is_begun(status: &KernelIncidentStatus, act: bool) -> bool {
    Standing::of(status, act).is_begun(&Weight::of(&status.evidence))
}

/// A step is being taken, or ended lately, and not all was taken back since.
fn is_under_way(status: &KernelIncidentStatus, standing: Standing<'_>, now: Timestamp) -> bool {
    let weight = Weight::of(&status.evidence);
    standing.is_remediated(&weight)
        && FORTH.iter().filter_map(|kind| standing.entry(*kind)).any(|entry| {
            let ended = entry.ended.as_ref().map_or(entry.time.0, |ended| ended.0);
            entry.state == StepState::Intended || within(ended, UNDER_WAY, now)
        })
}

fn within(at: Timestamp, time: Duration, now: Timestamp) -> bool {
    now.duration_since(at) < SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::{
        cluster::watch::Update,
        contract::incident::{EvidenceKind, KernelIncidentSpec, StepEntry, StepKind},
        controller::incident::{NodeFacts, fixture::entry},
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn incident(node: &str, steps: &[(StepKind, StepState, i64)], phase: Phase) -> KernelIncident {
        let spec = KernelIncidentSpec { node: node.to_owned(), node_uid: None, boot_id: None, time: MicroTime(at(0)) };
        let steps = steps.iter().map(|(kind, state, second)| StepEntry {
            kind: *kind,
            state: *state,
            time: MicroTime(at(*second)),
            ended: None,
            message: String::new(),
        });
        let evidence = vec![entry(EvidenceKind::Panic, 1)];
        let status =
            KernelIncidentStatus { phase: Some(phase), evidence, steps: steps.collect(), ..Default::default() };
        KernelIncident { status: Some(status), ..KernelIncident::new(node, spec) }
    }

    fn nodes(all: impl IntoIterator<Item = NodeFacts>) -> Nodes {
        let mut nodes = Nodes::default();
        for node in all {
            nodes.take(Update::Seen(node));
        }
        nodes
    }

    fn used<'a>(reserved: &'a BTreeSet<String>, since: Option<i64>, now: i64) -> Used<'a> {
        Used { reserved, since: since.map(at), act: true, now: at(now) }
    }

    fn node(name: &str, zone: Option<&str>, ready: Ready) -> NodeFacts {
        NodeFacts { name: name.to_owned(), zone: zone.map(str::to_owned), ready, ..NodeFacts::default() }
    }

    #[test]
    fn steps_that_stand_in_objects_are_counted() {
        let nodes = nodes([
            node("a", Some("x"), Ready::Unknown),
            node("b", Some("x"), Ready::Unknown),
            node("c", Some("y"), Ready::True),
            node("d", None, Ready::False),
        ]);
        let cordoned = |node, second, phase| incident(node, &[(StepKind::Cordon, StepState::Done, second)], phase);
        let all = [
            incident("a", &[(StepKind::Cordon, StepState::Done, 4000)], Phase::Dead),
            cordoned("b", 4000, Phase::Dead),
            cordoned("c", 3000, Phase::Returned),
            cordoned("gone", 10, Phase::Closed),
            incident("d", &[(StepKind::Annotate, StepState::Done, 4000)], Phase::Suspected),
        ];
        let none = BTreeSet::new();
        let counted = usage(&all[0], &all, &nodes, &used(&none, None, 4500));
        assert_eq!(counted, Usage { nodes: 1, nodes_in_zone: 1, nodes_in_hour: 2, cluster: 4, not_ready: 3 });
        let released = usage(&all[0], &all, &nodes, &used(&none, Some(3500), 4500));
        assert_eq!(released.nodes_in_hour, 1, "a brake that was released is not pulled again by what was before");
        let reserved = BTreeSet::from(["d".to_owned()]);
        let counted = usage(&all[0], &all, &nodes, &used(&reserved, None, 4500));
        assert_eq!((counted.nodes, counted.nodes_in_hour), (2, 3), "two at once do not both take the last place");
    }

    #[test]
    fn a_step_that_is_taken_now_on_a_node_that_was_begun_before_does_not_pull_a_released_brake_again() {
        let own = incident("own", &[], Phase::Dead);
        let all = [incident("a", &[(StepKind::Cordon, StepState::Done, 4000)], Phase::Dead)];
        let reserved = BTreeSet::from(["a".to_owned()]);
        let counted = |since, now| {
            let counted = usage(&own, &all, &Nodes::default(), &used(&reserved, since, now));
            (counted.nodes, counted.nodes_in_hour)
        };
        assert_eq!(counted(None, 4500), (1, 1));
        assert_eq!(counted(Some(4200), 4500), (1, 0), "it was begun before the brake was released");
        assert_eq!(counted(None, 9000), (1, 0), "it was begun more than an hour ago");
    }

    #[test]
    fn a_node_that_is_begun_anew_counts_before_that_is_written_down() {
        let own = incident("own", &[], Phase::Dead);
        let steps = [(StepKind::Cordon, StepState::Done, 100), (StepKind::Uncordon, StepState::Done, 200)];
        let all = [incident("a", &steps, Phase::Dead)];
        let reserved = BTreeSet::from(["a".to_owned()]);
        let counted = usage(&own, &all, &Nodes::default(), &used(&reserved, None, 9000));
        assert_eq!((counted.nodes, counted.nodes_in_hour), (1, 1));
    }

    fn of_others(all: &[KernelIncident], now: i64) -> (u32, u32) {
        let none = BTreeSet::new();
        let own = incident("own", &[], Phase::Dead);
        let counted = usage(&own, all, &Nodes::default(), &used(&none, None, now));
        (counted.nodes, counted.nodes_in_hour)
    }

    #[test]
    fn a_node_that_stays_dead_gives_its_place_to_others() {
        let dead = [incident("a", &[(StepKind::Cordon, StepState::Done, 1)], Phase::Dead)];
        assert_eq!(of_others(&dead, 100), (1, 1));
        assert_eq!(of_others(&dead, 1000), (0, 1));
        let slow = [incident("a", &[(StepKind::DeletePods, StepState::Intended, 1)], Phase::Dead)];
        assert_eq!(of_others(&slow, 1000), (1, 1), "it is still being taken");
    }

    #[test]
    fn a_node_that_dies_again_and_again_is_one_node_and_none_for_itself() {
        let cordoned = |phase| incident("a", &[(StepKind::Cordon, StepState::Done, 90)], phase);
        let all = [cordoned(Phase::Closed), cordoned(Phase::Returned), cordoned(Phase::Dead)];
        assert_eq!(of_others(&all, 100), (1, 1));
        let none = BTreeSet::new();
        assert_eq!(usage(&all[2], &all, &Nodes::default(), &used(&none, None, 100)), Usage::default());
    }

    #[test]
    fn a_reason_on_pods_of_a_node_that_is_only_silent_is_remediation() {
        let mut silent = incident("a", &[(StepKind::Annotate, StepState::Done, 90)], Phase::Suspected);
        assert_eq!(of_others(std::slice::from_ref(&silent), 100), (0, 0), "a panic was told");
        silent.status.as_mut().expect("a status").evidence.clear();
        assert_eq!(of_others(&[silent], 100), (1, 1));
    }

    #[test]
    fn what_failed_and_what_only_told_a_reason_uses_nothing() {
        let all = [
            incident("a", &[], Phase::Dead),
            incident(
                "b",
                &[(StepKind::Cordon, StepState::Failed, 1), (StepKind::Annotate, StepState::Done, 1)],
                Phase::Dead,
            ),
        ];
        let none = BTreeSet::new();
        assert_eq!(usage(&all[0], &all, &Nodes::default(), &used(&none, None, 2)), Usage::default());
    }
}
