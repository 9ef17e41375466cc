//! The Node object: read, decided upon and changed under a guard; and deleted.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::take::{Fate, Report, Scene, send};
use crate::{
    cluster::{
        Answer, Outcome, answer,
        request::{self, Deletion, Patch},
    },
    contract::remediation::FIELD_MANAGER,
    controller::source::nodes::NODE_BYTES,
};

/// Where Nodes are.
const NODES: &str = "/api/v1/nodes";

/// How often a change is decided anew because somebody else changed the Node meanwhile.
const ATTEMPTS: u32 = 4;

/// What is read of a Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LiveNode {
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) uid: String,
    pub(super) resource_version: String,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Spec {
    pub(super) unschedulable: bool,
    /// As they stand, so that one can be tested for byte by byte.
    pub(super) taints: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
}

impl LiveNode {
    /// The kubelet says that it is well.
    pub(super) fn is_ready(&self) -> bool {
        self.ready() == Some("True")
    }

    /// The control plane has given it up.
    fn is_given_up(&self) -> bool {
        self.ready() == Some("Unknown")
    }

    fn ready(&self) -> Option<&str> {
        let ready = self.status.conditions.iter().find(|condition| condition.r#type == "Ready");
        ready.map(|condition| condition.status.as_str())
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.get(key).map(String::as_str)
    }

    /// A merge patch of this very version of the Node.
    pub(super) fn guarded(&self, mut change: Value) -> Value {
        change["metadata"]["uid"] = self.metadata.uid.as_str().into();
        change["metadata"]["resourceVersion"] = self.metadata.resource_version.as_str().into();
        change
    }
}

/// What is to be done with a Node as it was read.
pub(super) enum Change {
    /// Nothing: it is as it should be, or not ours to change.
    Nothing(String),
    /// Nothing for now.
    Wait(String),
    /// This, and what is told once it is done.
    Patch(Patch, Value, String),
}

/// Reads the Node, changes it as `decide` says, and decides anew if somebody else was faster.
pub(super) async fn change(scene: &Scene<'_>, decide: impl Fn(&LiveNode) -> Change) -> Report {
    let path = match request::path(NODES, &scene.incident.spec.node) {
        Ok(path) => path,
        Err(error) => return Report::Refused(error.to_string()),
    };
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let node = match read(scene, &path).await {
            Ok(node) => node,
            Err(report) => return report,
        };
        if scene.node_uid().is_some_and(|uid| uid != node.metadata.uid) {
            return Report::Done("the Node was deleted, and another one has its name".to_owned());
        }
        let (kind, body, done) = match decide(&node) {
            Change::Nothing(message) => return Report::Done(message),
            Change::Wait(reason) => return Report::later(reason),
            Change::Patch(kind, body, done) => (kind, body, done),
        };
        let answer = send(scene, request::patch(&path, FIELD_MANAGER, kind, &body)).await;
        match was_overtaken(&answer, kind) {
            Some(reason) => last = reason,
            None => return Fate::of(answer).into_report(|| done, gone),
        }
    }
    Report::later(format!("the Node changed {ATTEMPTS} times meanwhile: {last}"))
}

/// Somebody changed the Node after it was read: 409, or 422 where the test of a JSON patch failed.
fn was_overtaken(answer: &Answer, kind: Patch) -> Option<String> {
    match (&answer.outcome, answer.status) {
        (Outcome::Retry { reason, .. }, Some(409)) => Some(reason.clone()),
        (Outcome::Final(reason), Some(422)) if kind == Patch::Json => Some(reason.clone()),
        _ => None,
    }
}

async fn read(scene: &Scene<'_>, path: &str) -> Result<LiveNode, Report> {
    let request = request::get(path).map_err(|error| Report::Refused(error.to_string()))?;
    let (answer, body) = answer::ask(scene.client, request, NODE_BYTES).await;
    match Fate::of(answer) {
        Fate::Done => serde_json::from_slice(&body)
            .map_err(|error| Report::later(format!("the Node could not be understood: {error}"))),
        fate => Err(fate.into_report(String::new, gone)),
    }
}

fn gone() -> String {
    "there is no such Node any more".to_owned()
}

/// Writes annotations on the Node that died, in one request; `None` removes a key.
pub(super) async fn annotate(scene: &Scene<'_>, pairs: &[(&str, Option<&str>)]) -> Fate {
    let path = match request::path(NODES, &scene.incident.spec.node) {
        Ok(path) => path,
        Err(error) => return Fate::Refused(error.to_string()),
    };
    let mut body = json!({"metadata": {"annotations": request::annotations(pairs.iter().copied())}});
    if let Some(uid) = scene.node_uid() {
        body["metadata"]["uid"] = uid.into();
    }
    Fate::of(send(scene, request::patch(&path, FIELD_MANAGER, Patch::Merge, &body)).await)
}

/// Deletes the Node that died, and no other of its name; only as it is read here, so that one whose kubelet writes meanwhile
/// stays.
pub(super) async fn delete(scene: &Scene<'_>) -> Report {
    let Some(uid) = scene.node_uid() else {
        return Report::Refused("the uid of the Node is not known".to_owned());
    };
    if scene.node.is_none_or(|node| node.uid != uid) {
        return Report::Done(gone());
    }
    let path = match request::path(NODES, &scene.incident.spec.node) {
        Ok(path) => path,
        Err(error) => return Report::Refused(error.to_string()),
    };
    let live = match read(scene, &path).await {
        Ok(live) => live,
        Err(report) => return report,
    };
    if live.metadata.uid != uid {
        return Report::Done(gone());
    }
    if !live.is_given_up() {
        return Report::later("the control plane has not given the Node up any more".to_owned());
    }
    let version = Some(live.metadata.resource_version.as_str()).filter(|version| !version.is_empty());
    let deletion = Deletion { version, ..Deletion::of(uid) };
    let fate = Fate::of(send(scene, request::delete(&path, &deletion)).await);
    fate.into_report(|| "the Node was deleted".to_owned(), gone)
}
