//! Our conditions on a node that is dead: Unknown, so that none of them tells of a kernel that is no more. `PreviousBootCrash`
//! stays as it is: it tells of the boot before, and the time of its last change is that of a finding.
//!
//! An agent that starts writes its conditions whole, by server-side apply with force: after a reboot they are its own again.
//! One that went on, and was only not heard, writes when something changes and with its heartbeat, which may be half an hour
//! away; so what a condition said before stands in its message, and is put back when the node is back with the same boot.
//!
//! Here a condition is only changed, never made; and only on the very version of the Node that was read, so that an agent
//! that wrote meanwhile is right.

use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::super::core::Core;
use crate::{
    cluster::{
        Outcome, answer,
        request::{self, Patch},
    },
    contract::{
        incident::{KernelIncident, Phase},
        problem::{CONDITIONS, NODE_LOST, PREVIOUS_BOOT_CRASH},
        remediation::FIELD_MANAGER,
    },
    controller::{
        incident::{NodeFacts, Ready, weigh::Weight},
        source::nodes::NODE_BYTES,
    },
};

/// Whether the node is lost surely enough, and not back.
fn is_certain(incident: &KernelIncident, node: Option<&NodeFacts>) -> bool {
    let Some(status) = &incident.status else { return false };
    let weight = Weight::of(&status.evidence);
    let given_up = node.is_some_and(|node| node.ready == Ready::Unknown);
    // A Node that tells of another boot has an agent again, or will have one.
    let lives = weight.is_back() || weight.other_boot || status.phase == Some(Phase::Closed);
    node.is_some() && !lives && weight.stale.is_some() && (given_up || weight.told.is_some())
}

/// Sets the conditions of the incident's Node to Unknown, or puts back what they said before: once for each time that the node
/// is lost, and once for each that it is back. Tells whether that is so; if not, it is to be tried again.
pub(super) async fn darken(core: &Core, incident: &KernelIncident, node: Option<&NodeFacts>) -> bool {
    let weight = incident.status.as_ref().map(|status| Weight::of(&status.evidence)).unwrap_or_default();
    let lost = is_certain(incident, node);
    let back = weight.is_back() && weight.stale.is_some() && !weight.other_boot;
    let ready = node.is_some_and(|node| node.ready == Ready::True);
    let key = match (lost, back && ready) {
        (true, _) => (incident.metadata.name.clone().unwrap_or_default(), weight.stale),
        (false, true) => (incident.metadata.name.clone().unwrap_or_default(), weight.fresh),
        (false, false) => return true,
    };
    if core.darkened.borrow().contains(&key) {
        return true;
    }
    match change(core, incident, lost).await {
        Ok(changed) => {
            debug!(node = incident.spec.node, lost, changed, "conditions follow");
            core.darkened.borrow_mut().insert(key);
            true
        }
        Err(reason) => {
            warn!(node = incident.spec.node, lost, reason, "conditions of the node say what is not so");
            false
        }
    }
}

async fn change(core: &Core, incident: &KernelIncident, lost: bool) -> Result<usize, String> {
    let path = request::path("/api/v1/nodes", &incident.spec.node).map_err(|error| error.to_string())?;
    let request = request::get(&path).map_err(|error| error.to_string())?;
    let (answer, body) = answer::ask(&core.client, request, NODE_BYTES).await;
    match answer.outcome {
        Outcome::Done => {}
        Outcome::Gone(_) => return Ok(0),
        other => return Err(super::pods::why(&other)),
    }
    let node: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let same = |uid: &String| node["metadata"]["uid"] == uid.as_str();
    let name = incident.metadata.name.as_deref().unwrap_or_default();
    let changes = if lost { darkened(&node, name, core.wall()) } else { put_back(&node, core.wall()) };
    if changes.is_empty() || !incident.spec.node_uid.as_ref().is_none_or(same) {
        return Ok(0);
    }
    let metadata = json!({"uid": node["metadata"]["uid"], "resourceVersion": node["metadata"]["resourceVersion"]});
    let body = json!({"metadata": metadata, "status": {"conditions": changes}});
    let request = request::patch(&format!("{path}/status"), FIELD_MANAGER, Patch::Strategic, &body);
    let request = request.map_err(|error| error.to_string())?;
    match answer::send(&core.client, request).await.outcome {
        Outcome::Done => Ok(changes.len()),
        Outcome::Gone(_) => Ok(0),
        other => Err(super::pods::why(&other)),
    }
}

/// Conditions of ours that stand on the Node and tell of its present boot.
fn ours(node: &Value) -> impl Iterator<Item = &Value> {
    let standing = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let present = CONDITIONS.iter().filter(|condition| condition.kind != PREVIOUS_BOOT_CRASH.kind);
    standing.iter().filter(move |one| present.clone().any(|condition| one["type"] == condition.kind))
}

/// What stands in a message between what is so and what the condition said before.
const BEFORE: &str = "; before: ";

/// Entries of a strategic patch, which merges them by type.
fn darkened(node: &Value, incident: &str, now: Timestamp) -> Vec<Value> {
    let word = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let known = ours(node).filter(|one| one["status"] != "Unknown");
    known
        .map(|one| {
            let before = format!("{} {} {}", word(one, "status"), word(one, "reason"), word(one, "message"));
            json!({
                "type": one["type"],
                "status": "Unknown",
                "reason": NODE_LOST,
                "message": format!("the node is lost, see the incident {incident}{BEFORE}{before}"),
                "lastTransitionTime": format!("{now:.0}"),
            })
        })
        .collect()
}

/// The same for what they said before.
fn put_back(node: &Value, now: Timestamp) -> Vec<Value> {
    let lost = ours(node).filter(|one| one["status"] == "Unknown" && one["reason"] == NODE_LOST);
    lost.filter_map(|one| {
        let (_, before) = one["message"].as_str()?.split_once(BEFORE)?;
        let mut words = before.splitn(3, ' ');
        let status = words.next().filter(|word| matches!(*word, "True" | "False"))?;
        let (reason, message) = (words.next()?, words.next()?);
        let at = format!("{now:.0}");
        Some(json!({
            "type": one["type"], "status": status, "reason": reason, "message": message, "lastTransitionTime": at,
        }))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_conditions_of_ours_that_stand_and_claim_to_know_are_changed() {
        let node = json!({"status": {"conditions": [
            {"type": "Ready", "status": "Unknown"},
            {"type": "KernelDeadlock", "status": "False", "reason": "KernelHasNoDeadlock"},
            {"type": "TaskHung", "status": "Unknown"},
            {"type": "PreviousBootCrash", "status": "True", "reason": "KernelPanic"},
            {"type": "Foreign", "status": "True"},
        ]}});
        let changed = darkened(&node, "node-a-1", Timestamp::UNIX_EPOCH);
        let kinds: Vec<_> = changed.iter().map(|one| (&one["type"], &one["status"], &one["reason"])).collect();
        assert_eq!(kinds, [(&json!("KernelDeadlock"), &json!("Unknown"), &json!(NODE_LOST))]);
    }

    #[test]
    fn what_a_condition_said_before_is_put_back_as_it_was() {
        let was =
            json!({"type": "TaskHung", "status": "True", "reason": "TaskHung", "message": "php hangs; before: x"});
        let lost = darkened(&json!({"status": {"conditions": [was]}}), "node-a-1", Timestamp::UNIX_EPOCH);
        let back = put_back(&json!({"status": {"conditions": lost}}), Timestamp::UNIX_EPOCH);
        let keys = ["type", "status", "reason", "message"];
        assert!(keys.iter().all(|key| back[0][key] == was[key]), "{back:?}");
        let of_agent = json!({"status": {"conditions": [was]}});
        assert!(put_back(&of_agent, Timestamp::UNIX_EPOCH).is_empty(), "the agent wrote meanwhile");
    }
}
