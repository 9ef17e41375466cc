//! Cordon and uncordon. A cordon of ours carries the incident's name; a person's cordon is never touched, and a person's
//! uncordon is never taken back.

use serde_json::json;

use super::{
    node::{self, Change},
    take::{Report, Scene},
};
use crate::{cluster::request::Patch, contract::remediation::CORDON_ANNOTATION};

pub(super) async fn cordon(scene: &Scene<'_>) -> Report {
    let incident = scene.incident_name();
    let decide = |node: &node::LiveNode| match (node.spec.unschedulable, node.annotation(CORDON_ANNOTATION)) {
        (true, Some(by)) if by == incident => Change::Nothing("cordoned".to_owned()),
        (true, None) => Change::Nothing("left as it is: somebody else cordoned the node".to_owned()),
        (false, Some(by)) if by == incident => {
            Change::Nothing("left as it is: somebody took our cordon back".to_owned())
        }
        // An earlier incident's cordon that was not taken back yet, or its mark after somebody uncordoned.
        (_, _) => {
            let body = json!({
                "metadata": {"annotations": {CORDON_ANNOTATION: incident}},
                "spec": {"unschedulable": true},
            });
            Change::Patch(Patch::Merge, node.guarded(body), "cordoned".to_owned())
        }
    };
    node::change(scene, decide).await
}

pub(super) async fn uncordon(scene: &Scene<'_>) -> Report {
    let incident = scene.incident_name();
    let decide = |node: &node::LiveNode| match node.annotation(CORDON_ANNOTATION) {
        Some(by) if by == incident => {
            let body = json!({
                "metadata": {"annotations": {CORDON_ANNOTATION: null}},
                "spec": {"unschedulable": false},
            });
            Change::Patch(Patch::Merge, node.guarded(body), "uncordoned".to_owned())
        }
        Some(_) => Change::Nothing("left cordoned: the cordon is another incident's by now".to_owned()),
        None if node.spec.unschedulable => Change::Nothing("left cordoned: the cordon is not ours".to_owned()),
        None => Change::Nothing("uncordoned".to_owned()),
    };
    node::change(scene, decide).await
}
