//! One incident as it stands → the next step, or why it waits. Pure: values and a time in, a value out.
//!
//! Steps are looked at in their order; what is done, told or failed is passed over. A step that waits does not keep
//! [`StepKind::Annotate`] from being taken: a reason that comes late is worth nothing.
//!
//! | step | wants as evidence | and besides |
//! |---|---|---|
//! | `Cordon`, `Annotate` | a panic told with identity; or any told panic or a node given up, with a stale Lease | the boot that died is the last one |
//! | `DeletePods` | a panic told with identity, and two missed renewals now | cordoned, annotated |
//! | `FailPods`, `TaintOutOfService`, `ForceDeletePods` | the same, a node given up, and Ready Unknown now | cordoned, annotated |
//! | `DeleteNode` | the same, and Ready Unknown for the reboot window | all before it |
//! | `Retract`, `Untaint`, `Uncordon` | the node is back, and said which boot it runs | we did what is taken back; for the last two Ready |
//!
//! Nothing is deleted of a node that runs another boot: that its old kernel is dead is proved then, but a kubelet is there
//! again, and perhaps has started the same pods.
//!
//! Budget, brake, an unwell cluster and exclusion hold every step but those that take something back; the reason of a panic
//! that was told is held by exclusion alone.

pub mod standing;

use std::time::Duration;

use jiff::Timestamp;

use self::standing::Standing;
use super::{LeaseView, Plan, Policy, Release, Situation, Usage};
use crate::{
    contract::incident::{Confidence, EvidenceKind, HoldReason, KernelIncidentStatus, Phase, StepKind, StepState},
    controller::incident::{NodeFacts, Ready, lifecycle, weigh::Weight},
};

/// Renewals of the Lease that must be missed before anything is deleted.
pub const MISSED_RENEWALS: u32 = 2;

/// What a check says of one step.
enum Verdict {
    /// It may be taken.
    Go,
    /// It waits.
    Wait(HoldReason, String, Option<Timestamp>),
    /// It makes no sense here, now and later.
    Pass,
}

/// What comes next.
#[must_use]
pub fn plan(situation: &Situation<'_>) -> Plan {
    let Some(status) = &situation.incident.status else { return Plan::Nothing { until: None } };
    if status.phase == Some(Phase::Closed) {
        return Plan::Nothing { until: None };
    }
    let weight = Weight::of(&status.evidence);
    let back = weight.is_back();
    let steps: &[StepKind] = if back { &BACK } else { &FORTH };
    let standing = Standing::of(status, situation.policy.act);
    let mut held = None;
    for step in steps.iter().copied() {
        if standing.ended(step) || !wanted(situation.policy, standing, step) {
            continue;
        }
        let verdict = if back { undo(situation, &weight, step) } else { advance(situation, standing, &weight, step) };
        match verdict {
            Verdict::Go if held.is_none() || step == StepKind::Annotate => return Plan::Take(step),
            Verdict::Go | Verdict::Pass => {}
            Verdict::Wait(reason, message, until) => {
                held.get_or_insert((step, reason, message, until));
            }
        }
    }
    match held {
        Some((step, reason, message, until)) => {
            let brake = situation.policy.act && reason == HoldReason::Brake && !situation.braked;
            Plan::Hold { step, reason, message, until, brake }
        }
        None => held_back(situation, standing, back),
    }
}

/// Steps of a node that is lost, in order.
pub(super) const FORTH: [StepKind; 7] = [
    StepKind::Cordon,
    StepKind::Annotate,
    StepKind::DeletePods,
    StepKind::FailPods,
    StepKind::TaintOutOfService,
    StepKind::ForceDeletePods,
    StepKind::DeleteNode,
];

/// Steps of a node that is back, in order: pods may come again only when all else is taken back.
const BACK: [StepKind; 3] = [StepKind::Retract, StepKind::Untaint, StepKind::Uncordon];

/// A node that is back while steps were still to come is held, not finished off; that is told once.
fn held_back(situation: &Situation<'_>, standing: Standing<'_>, back: bool) -> Plan {
    let written = situation.incident.status.iter().flat_map(|status| &status.steps);
    let begun = written.into_iter().any(|entry| FORTH.contains(&entry.kind));
    let next = FORTH
        .iter()
        .copied()
        .find(|step| *step > StepKind::Annotate && !standing.ended(*step) && wanted(situation.policy, standing, *step));
    match next.filter(|_| back && begun) {
        Some(step) => Plan::Hold {
            step,
            reason: HoldReason::NodeReturned,
            message: "the node is back: what was not done by then is not done any more".to_owned(),
            until: None,
            brake: false,
        },
        None => Plan::Nothing { until: None },
    }
}

fn wanted(policy: &Policy, standing: Standing<'_>, step: StepKind) -> bool {
    match step {
        StepKind::Cordon => policy.cordon,
        StepKind::Annotate => policy.annotate,
        StepKind::DeletePods => policy.delete_pods,
        StepKind::FailPods => policy.fail_pods,
        StepKind::TaintOutOfService => policy.release == Release::OutOfService,
        StepKind::ForceDeletePods => policy.release == Release::ForceDelete,
        StepKind::DeleteNode => policy.delete_node,
        // What we did is taken back even if the policy has changed meanwhile.
        StepKind::Retract => standing.begun(StepKind::Annotate),
        StepKind::Untaint => standing.begun(StepKind::TaintOutOfService),
        StepKind::Uncordon => standing.begun(StepKind::Cordon),
    }
}

fn undo(situation: &Situation<'_>, weight: &Weight, step: StepKind) -> Verdict {
    let Some(node) = situation.node else { return if step == StepKind::Retract { Verdict::Go } else { Verdict::Pass } };
    let wait = |message: &str| Verdict::Wait(HoldReason::NoCorroboration, message.to_owned(), None);
    // What is taken back depends on it: the pods of a node that lived on did not die.
    let comparable = situation.incident.spec.boot_id.is_some() && node.boot_id.is_some();
    if comparable && !weight.knows_boot() {
        return wait("the node is back, and has not said yet which boot it runs");
    }
    if step == StepKind::Retract || node.ready == Ready::True {
        return Verdict::Go;
    }
    wait("the node is back, and its kubelet does not say yet that it is well")
}

fn advance(situation: &Situation<'_>, standing: Standing<'_>, weight: &Weight, step: StepKind) -> Verdict {
    let Some(node) = situation.node else {
        // Its pods are still there for a while, and PodGC deletes them.
        return if step == StepKind::Annotate { Verdict::Go } else { Verdict::Pass };
    };
    if let Some(why) = excluded(node, situation.policy) {
        return Verdict::Wait(HoldReason::Excluded, why, None);
    }
    if let Err(missing) = corroborated(situation, standing, weight, node, step) {
        return missing;
    }
    // The reason of a panic that was told moves nothing, and is worth nothing later.
    let reason = step == StepKind::Annotate && weight.told.is_some();
    if reason || standing.under_way(step) {
        return Verdict::Go;
    }
    limits(situation, standing, weight)
}

fn excluded(node: &NodeFacts, policy: &Policy) -> Option<String> {
    if node.opted_out {
        return Some("the node has the label that opts it out".to_owned());
    }
    let named = policy.control_plane_nodes.contains(&node.name);
    (node.control_plane && !named)
        .then(|| "the node belongs to the control plane, and is not named in the policy".to_owned())
}

fn corroborated(
    situation: &Situation<'_>,
    standing: Standing<'_>,
    weight: &Weight,
    node: &NodeFacts,
    step: StepKind,
) -> Result<(), Verdict> {
    let wait = |message: &str, until| Err(Verdict::Wait(HoldReason::NoCorroboration, message.to_owned(), until));
    let stale = weight.stale.is_some();
    let rebooted = weight.other_boot || other_boot(situation, node);
    if matches!(step, StepKind::Cordon | StepKind::Annotate) {
        if rebooted {
            return Err(Verdict::Pass);
        }
        let known = weight.told >= Some(Confidence::Medium);
        let silent = stale && (weight.told.is_some() || weight.given_up);
        return if known || silent { Ok(()) } else { wait("only one weak witness, and the Lease is not stale", None) };
    }
    // Nothing is deleted before its reason is written, nor where what replaces it could come back to the dead node.
    let cordoned = node.cordoned || (!situation.policy.act && standing.stands(StepKind::Cordon));
    if rebooted {
        let message = "another boot of the node is up: what becomes of the pods is its kubelet's".to_owned();
        return Err(Verdict::Wait(HoldReason::NodeReturned, message, None));
    }
    if !(standing.stands(StepKind::Annotate) && cordoned) {
        return wait("the node is not cordoned, or its pods have no reason yet", None);
    }
    match weight.told {
        Some(Confidence::Medium | Confidence::High) => {}
        Some(_) if situation.policy.trust_address => {}
        Some(_) => return wait("the panic was told from the node's address alone, which can be forged", None),
        None => return wait("nobody told of a panic: a silent node may live", None),
    }
    if step == StepKind::DeletePods {
        return match situation.lease.missed() {
            missed if stale && missed >= MISSED_RENEWALS => Ok(()),
            _ => wait("fewer than two renewals of the Lease were missed", None),
        };
    }
    if !(weight.is_dead() && stale && node.ready == Ready::Unknown && quiet(&situation.lease)) {
        return wait("the death of the node is not proved", None);
    }
    if step != StepKind::DeleteNode {
        return Ok(());
    }
    let earlier = FORTH.iter().take_while(|one| **one != StepKind::DeleteNode);
    if earlier.copied().any(|one| wanted(situation.policy, standing, one) && !standing.ended(one)) {
        return wait("steps before it have not ended", None);
    }
    if standing.under_way(step) {
        return Ok(());
    }
    match window_ends(situation, node) {
        Some(over) if over <= situation.now => Ok(()),
        over => wait("the node may still come back from a reboot", over),
    }
}

/// When the node has been lost for the whole reboot window: by the control plane's clock, and by ours for as long as this
/// replica has looked at its Lease. `None`: nobody knows.
fn window_ends(situation: &Situation<'_>, node: &NodeFacts) -> Option<Timestamp> {
    let window = situation.policy.reboot_window;
    let LeaseView::Seen { unchanged, .. } = situation.lease else { return None };
    let after = |at: Timestamp, time: Duration| at.checked_add(time).unwrap_or(Timestamp::MAX);
    let (given_up, seen) = (after(node.ready_since?, window), after(situation.now, window.saturating_sub(unchanged)));
    Some(given_up.max(seen))
}

fn quiet(lease: &LeaseView) -> bool {
    matches!(lease, LeaseView::Missing) || lease.missed() >= MISSED_RENEWALS
}

fn other_boot(situation: &Situation<'_>, node: &NodeFacts) -> bool {
    let died = situation.incident.spec.boot_id.as_deref();
    died.is_some_and(|died| node.boot_id.as_deref().is_some_and(|now| now != died))
}

/// Limits of a first step on this node; on one that is being remediated already they were kept then.
fn limits(situation: &Situation<'_>, standing: Standing<'_>, weight: &Weight) -> Verdict {
    let (usage, policy) = (situation.usage, situation.policy);
    let wait = |reason, message| Verdict::Wait(reason, message, None);
    if situation.braked {
        return wait(HoldReason::Brake, "the brake is pulled: `detector brake release` releases it".to_owned());
    }
    if unwell(usage, policy) {
        let message = format!("{} of {} nodes are not ready", usage.not_ready, usage.cluster);
        return wait(HoldReason::ClusterUnwell, message);
    }
    if standing.is_begun(weight) {
        return Verdict::Go;
    }
    let budget = policy.budget;
    if usage.nodes_in_hour >= budget.nodes_per_hour {
        let (were, is) = if policy.act { ("were", "is") } else { ("would have been", "would be") };
        let message =
            format!("{} nodes {were} remediated within the last hour: the brake {is} pulled", usage.nodes_in_hour);
        return wait(HoldReason::Brake, message);
    }
    if usage.nodes >= budget.nodes_at_once {
        return wait(HoldReason::Budget, format!("{} nodes are being remediated", usage.nodes));
    }
    if usage.nodes_in_zone >= budget.nodes_per_zone {
        return wait(HoldReason::Budget, format!("{} nodes of this zone are being remediated", usage.nodes_in_zone));
    }
    Verdict::Go
}

/// One node that is not ready is what we are here for.
fn unwell(usage: &Usage, policy: &Policy) -> bool {
    let share = u64::from(usage.not_ready) * 100;
    usage.not_ready > 1 && share > u64::from(usage.cluster) * u64::from(policy.budget.not_ready_percent)
}

/// Whether something that was begun has not ended, or would have to be taken back: then the incident is not closed.
#[must_use]
pub fn unfinished(status: &KernelIncidentStatus) -> bool {
    let intended = status.steps.iter().any(|entry| entry.state == StepState::Intended);
    let standing = Standing::of(status, true);
    let pairs = [
        (StepKind::Annotate, StepKind::Retract),
        (StepKind::TaintOutOfService, StepKind::Untaint),
        (StepKind::Cordon, StepKind::Uncordon),
    ];
    let weight = Weight::of(&status.evidence);
    // Taint and cordon went with the Node; its pods may still be there.
    let stays = |did| did == StepKind::Annotate || !weight.deleted;
    let undo = || pairs.into_iter().any(|(did, undo)| stays(did) && standing.begun(did) && !standing.ended(undo));
    intended || (weight.is_back() && undo())
}

/// Pods of a Node that is deleted stay for a moment, until the pod garbage collector finds them: time for their reason.
const ORPHANED: Duration = Duration::from_secs(60);

/// The phase that follows from evidence and steps together; see [`lifecycle::phase`].
#[must_use]
pub fn phase(status: &KernelIncidentStatus, policy: &Policy, now: Timestamp) -> (Phase, Option<Timestamp>) {
    let weight = Weight::of(&status.evidence);
    let orphaned = orphaned(status, policy, &weight).filter(|until| *until > now);
    let unfinished = unfinished(status) || orphaned.is_some();
    let close_after = policy.close_after;
    let at = lifecycle::Circumstances { before: status.phase, unfinished, close_after, now };
    let (phase, again) = lifecycle::phase(&weight, at);
    (phase, [again, orphaned].into_iter().flatten().min())
}

/// Until when the reason of a panic is still to be written on pods of a Node that is gone.
fn orphaned(status: &KernelIncidentStatus, policy: &Policy, weight: &Weight) -> Option<Timestamp> {
    let gone = status.evidence.iter().find(|entry| entry.kind == EvidenceKind::NodeDeleted)?;
    let open = policy.annotate && weight.told.is_some() && !Standing::of(status, policy.act).ended(StepKind::Annotate);
    open.then(|| gone.time.0.checked_add(ORPHANED).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod after;
#[cfg(test)]
mod orders;
#[cfg(test)]
mod tests;
