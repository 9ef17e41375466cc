//! The reason on Node and pods, before anything is deleted; and taken back once the node lives.
//!
//! A pod's annotations and condition go in one patch of its status: the server stores metadata with it. The condition's
//! time is the incident's, so that the same patch written again changes nothing.

use serde_json::{Value, json};

use super::{
    node::{self, Change},
    pods::{self, Target, Touch},
    reason,
    take::{Fate, Report, Scene, Tally},
};
use crate::{
    cluster::request::{self, Patch},
    contract::{
        incident::MAX_MESSAGE_BYTES,
        remediation::{FIELD_MANAGER, INCIDENT_ANNOTATION, POD_CONDITION, REASON_ANNOTATION},
    },
    controller::incident::weigh::Weight,
    text,
};

/// Reason of the condition once the node is back.
const REASON_RETURNED: &str = "NodeReturned";

/// Reason of the condition once the alarm turned out to be wrong.
const REASON_FALSE_ALARM: &str = "FalseAlarm";

/// What is written, made once for all pods of a step.
pub(super) struct Reason {
    text: String,
    word: &'static str,
    /// Of the pods' condition: a node that is only silent may live.
    condition: &'static str,
}

impl Reason {
    pub(super) fn of(scene: &Scene<'_>) -> Self {
        let status = scene.incident.status.clone().unwrap_or_default();
        let condition = if Weight::of(&status.evidence).panicked() { "True" } else { "Unknown" };
        Self { text: reason::text(scene.incident), word: reason::word(&status), condition }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Writes the reason on the Node and on its pods.
pub(super) async fn annotate(scene: &Scene<'_>) -> Report {
    let reason = Reason::of(scene);
    let sorted = pods::sorted(scene, Touch::Annotate);
    let pods = pods::each(&sorted.pods, |pod| write(scene, &reason, pod));
    let (node, pods) = futures::join!(write_node(scene, &reason), pods);
    joined(node, pods, "told the reason", &sorted.rest())
}

/// One report of both. The Node comes first: it is what is asked for when a step is not done.
fn joined(node: Fate, mut pods: Tally, what: &str, rest: &str) -> Report {
    let with = |message: String, node: &str| text::cut(&format!("{message}; {node}"), MAX_MESSAGE_BYTES);
    pods.node = node == Fate::Done;
    match (node, pods.report(what, rest)) {
        (Fate::Later { after, reason, forbidden, server }, pods) => {
            let all_but = match pods {
                Report::Done(message) | Report::Later { all_but: Some(message), .. } if !server => {
                    Some(with(message, &format!("the Node not {what}: {reason}")))
                }
                _ => None,
            };
            Report::Later { after, reason: format!("the Node: {reason}"), forbidden, all_but }
        }
        (_, later @ Report::Later { .. }) => later,
        (Fate::Done | Fate::Late, report) => report,
        (Fate::Gone, Report::Done(message)) => Report::Done(with(message, "there is no such Node any more")),
        (Fate::Refused(reason), Report::Done(message)) => {
            Report::Done(with(message, &format!("the Node refused: {reason}")))
        }
        (_, refused @ Report::Refused(_)) => refused,
    }
}

async fn write_node(scene: &Scene<'_>, reason: &Reason) -> Fate {
    let keys = scene.policy.node_reason_keys.iter().map(String::as_str);
    let mut pairs = vec![(REASON_ANNOTATION, Some(reason.text())), (INCIDENT_ANNOTATION, Some(scene.incident_name()))];
    pairs.extend(keys.map(|key| (key, Some(reason.text()))));
    node::annotate(scene, &pairs).await
}

/// Writes the reason on a pod that does not carry it: one that came to the node after the others were told.
pub(super) async fn assure(scene: &Scene<'_>, reason: &Reason, pod: &Target) -> Fate {
    if pod.incident.as_deref() == Some(scene.incident_name()) {
        return Fate::Done;
    }
    write(scene, reason, pod).await
}

async fn write(scene: &Scene<'_>, reason: &Reason, pod: &Target) -> Fate {
    let keys = scene.policy.pod_reason_keys.iter().map(String::as_str);
    let mut pairs = vec![(REASON_ANNOTATION, Some(reason.text())), (INCIDENT_ANNOTATION, Some(scene.incident_name()))];
    pairs.extend(keys.map(|key| (key, Some(reason.text()))));
    let since = format!("{:.0}", scene.incident.spec.time.0);
    let body = patch(pod, &pairs, &condition(reason.condition, reason.word, reason.text(), &since));
    pods::ask(scene, pods::path(pod, "/status"), |path| request::patch(path, FIELD_MANAGER, Patch::Strategic, &body))
        .await
}

fn condition(status: &str, reason: &str, message: &str, since: &str) -> Value {
    json!({"type": POD_CONDITION, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
}

fn patch(pod: &Target, pairs: &[(&str, Option<&str>)], condition: &Value) -> Value {
    json!({
        "metadata": {"uid": pod.uid, "annotations": request::annotations(pairs.iter().copied())},
        "status": {"conditions": [condition]},
    })
}

/// Takes back what was written by this incident and by no other: all of it after a false alarm; else the condition, and the
/// incident's name, without which nothing may be deleted any more. The reason then stays: the node did die.
pub(super) async fn retract(scene: &Scene<'_>) -> Report {
    let false_alarm = scene.incident.status.as_ref().is_some_and(|status| Weight::of(&status.evidence).refuted());
    let (word, message) = match false_alarm {
        true => (REASON_FALSE_ALARM, "the node lived on"),
        false => (REASON_RETURNED, "the node is back"),
    };
    let message = format!("{message}; incident {}", scene.incident_name());
    let keys = |further: &[String]| {
        let mut keys = vec![INCIDENT_ANNOTATION.to_owned()];
        if false_alarm {
            keys.push(REASON_ANNOTATION.to_owned());
            keys.extend_from_slice(further);
        }
        keys
    };
    let node_keys = keys(&scene.policy.node_reason_keys);
    let told = retract_node(scene, &node_keys).await;
    let pod_keys = keys(&scene.policy.pod_reason_keys);
    let pairs: Vec<_> = pod_keys.iter().map(|key| (key.as_str(), None)).collect();
    let ours = |pod: &&Target| !pod.mirror && pod.incident.as_deref() == Some(scene.incident_name());
    let ours: Vec<_> = scene.pods.iter().filter(ours).collect();
    let now = format!("{:.0}", scene.now);
    let tally = pods::each(&ours, |pod| {
        let body = patch(pod, &pairs, &condition("False", word, &message, &now));
        async move {
            pods::ask(scene, pods::path(pod, "/status"), |path| {
                request::patch(path, FIELD_MANAGER, Patch::Strategic, &body)
            })
            .await
        }
    })
    .await;
    match (told, tally.report("cleared", "")) {
        (Report::Done(_), pods) => pods,
        (node, _) => node,
    }
}

/// Of the Node only what this incident wrote: a later one may have written since.
async fn retract_node(scene: &Scene<'_>, keys: &[String]) -> Report {
    node::change(scene, |node| {
        if node.annotation(INCIDENT_ANNOTATION) != Some(scene.incident_name()) {
            return Change::Nothing("nothing of ours stands on the Node".to_owned());
        }
        let pairs = request::annotations(keys.iter().map(|key| (key.as_str(), None)));
        let body = node.guarded(json!({"metadata": {"annotations": pairs}}));
        Change::Patch(Patch::Merge, body, "cleared".to_owned())
    })
    .await
}
