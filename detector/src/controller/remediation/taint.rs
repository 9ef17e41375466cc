//! The taint `node.kubernetes.io/out-of-service`: volumes are detached and terminating pods removed at once (KEP-2268).
//!
//! `spec.taints` is atomic: a merge patch would replace the list and take away others' taints. Only JSON patch changes one
//! entry of it. The control plane acts on the taint whatever a node's state is, so that a Ready node never gets it.

use serde_json::{Value, json};

use super::{
    node::{self, Change, LiveNode},
    take::{Report, Scene},
};
use crate::{
    cluster::request::Patch,
    contract::remediation::{OUT_OF_SERVICE, OUT_OF_SERVICE_VALUE},
};

pub(super) async fn taint(scene: &Scene<'_>) -> Report {
    node::change(scene, |node| {
        if out_of_service(node).is_some() {
            return Change::Nothing("the node has the taint".to_owned());
        }
        if node.is_ready() {
            return Change::Wait("the node is Ready again".to_owned());
        }
        let entry = json!({"key": OUT_OF_SERVICE, "value": OUT_OF_SERVICE_VALUE, "effect": "NoExecute"});
        let add = match node.spec.taints.is_empty() {
            // There is no list to append to; the version keeps one that was made meanwhile from being replaced.
            true => json!({"op": "add", "path": "/spec/taints", "value": [entry]}),
            false => json!({"op": "add", "path": "/spec/taints/-", "value": entry}),
        };
        Change::Patch(Patch::Json, json!([same(node), add]), "tainted as out of service".to_owned())
    })
    .await
}

pub(super) async fn untaint(scene: &Scene<'_>) -> Report {
    node::change(scene, |node| {
        let Some((index, entry)) = out_of_service(node) else {
            return Change::Nothing("the node does not have the taint".to_owned());
        };
        if entry["value"] != OUT_OF_SERVICE_VALUE {
            return Change::Nothing("left as it is: the taint is somebody else's".to_owned());
        }
        let path = format!("/spec/taints/{index}");
        let test = json!({"op": "test", "path": path, "value": entry});
        let remove = json!({"op": "remove", "path": path});
        Change::Patch(Patch::Json, json!([test, remove]), "the taint was taken off".to_owned())
    })
    .await
}

fn out_of_service(node: &LiveNode) -> Option<(usize, &Value)> {
    node.spec.taints.iter().enumerate().find(|(_, taint)| taint["key"] == OUT_OF_SERVICE)
}

/// The Node is still as it was read: with the same list of taints, and not Ready again.
fn same(node: &LiveNode) -> Value {
    json!({"op": "test", "path": "/metadata/resourceVersion", "value": node.metadata.resource_version})
}
