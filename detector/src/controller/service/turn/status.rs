//! All evidence of one incident → the status that the leader writes. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};

use crate::{
    contract::incident::{
        AffectedPod, EvidenceEntry, HoldEntry, HoldReason, KernelIncident, KernelIncidentStatus, MAX_MESSAGE_BYTES,
        Phase, StepKind,
    },
    controller::{
        incident::{assess::assess, weigh::Weight},
        remediation::{Policy, plan},
    },
    text,
};

/// What a status is made of.
pub(super) struct Material<'a> {
    pub(super) incident: &'a KernelIncident,
    pub(super) evidence: Vec<EvidenceEntry>,
    /// The pods of the node, if they have just been listed.
    pub(super) pods: Option<(Vec<AffectedPod>, i64)>,
    /// The node had netconsole set up.
    pub(super) heard: bool,
    pub(super) policy: &'a Policy,
    pub(super) now: Timestamp,
}

/// The status, and when it changes by time alone.
pub(super) fn made(material: Material<'_>) -> (KernelIncidentStatus, Option<Timestamp>) {
    let Material { incident, evidence, pods, heard, policy, now } = material;
    let mut status = incident.status.clone().unwrap_or_default();
    let found = assess(&evidence, heard);
    status.evidence = evidence;
    status.cause = Some(found.cause);
    status.confidence = Some(found.confidence);
    status.possible = found.possible;
    status.suspect = found.suspect;
    status.message = Some(text::cut(&text::harmless(&found.message), MAX_MESSAGE_BYTES));
    if let Some((named, count)) = pods {
        (status.pods, status.pod_count) = (named, Some(count));
    }
    let (phase, again) = plan::phase(&status, policy, now);
    status.phase = Some(phase);
    if phase == Phase::Closed && status.closed_at.is_none() {
        status.closed_at = Some(MicroTime(now));
    }
    conditions(&mut status, now);
    (status, again)
}

/// `Dead` and `Returned`, for those who wait for a condition.
fn conditions(status: &mut KernelIncidentStatus, now: Timestamp) {
    let weight = Weight::of(&status.evidence);
    let dead = match (weight.is_dead(), weight.is_back()) {
        (true, _) => ("True", "TwoWitnesses", "the kernel of that boot is dead, by two witnesses"),
        (false, true) => ("False", "Returned", "the node is back"),
        (false, false) => ("Unknown", "NotProved", "no second witness yet"),
    };
    let returned = match weight.is_back() {
        true => ("True", "LeaseRenewed", "the node renews its Lease"),
        false => ("False", "Silent", "the node was not heard of since"),
    };
    for (kind, (word, reason, message)) in [("Dead", dead), ("Returned", returned)] {
        let condition = Condition {
            type_: kind.to_owned(),
            status: word.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: Time(second(now)),
            observed_generation: None,
        };
        match status.conditions.iter_mut().find(|known| known.type_ == kind) {
            Some(known) if known.status == word && known.reason == reason => {}
            Some(known) if known.status == word => {
                *known = Condition { last_transition_time: known.last_transition_time.clone(), ..condition };
            }
            Some(known) => *known = condition,
            None => status.conditions.push(condition),
        }
    }
}

/// Conditions have no fractions of a second.
fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Writes down why `step` waits; the entry, if it waits for something else than before.
pub(super) fn hold(
    status: &mut KernelIncidentStatus,
    step: StepKind,
    reason: HoldReason,
    message: &str,
    now: Timestamp,
) -> Option<HoldEntry> {
    let message = text::cut(&text::harmless(message), MAX_MESSAGE_BYTES);
    let entry = HoldEntry { step, reason, since: MicroTime(now), message };
    match status.holds.iter_mut().find(|known| known.step == step) {
        Some(known) if known.reason == reason => return None,
        Some(known) => *known = entry.clone(),
        None => status.holds.push(entry.clone()),
    }
    Some(entry)
}

/// How long from now until `at`.
pub(in crate::controller::service) fn until(at: Timestamp, now: Timestamp) -> std::time::Duration {
    std::time::Duration::try_from(at.duration_since(now).max(SignedDuration::ZERO)).unwrap_or_default()
}
