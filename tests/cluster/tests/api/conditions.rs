//! What the agent's way to write conditions does to a Node: applied as a whole list by one manager, so that what is not
//! applied any more goes.

use anyhow::{Context as _, Result};
use detector_cluster_tests::{CONDITIONS, FIELD_MANAGER, Rig};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

/// A type that a later version does not have any more.
const FORMER: &str = "FormerProblem";

/// Leaves conditions of these types, and gives the types that stand then.
async fn apply(nodes: &Api<Node>, node: &str, kinds: &[&str]) -> Result<Vec<String>> {
    let conditions: Vec<_> = kinds
        .iter()
        .map(|kind| json!({ "type": kind, "status": "False", "reason": "Test", "message": "a test of applying" }))
        .collect();
    let patch = Patch::Apply(json!({ "apiVersion": "v1", "kind": "Node", "status": { "conditions": conditions } }));
    let node = nodes.patch_status(node, &PatchParams::apply(FIELD_MANAGER).force(), &patch).await;
    let status = node.with_context(|| format!("apply {kinds:?}"))?.status.unwrap_or_default();
    Ok(status.conditions.into_iter().flatten().map(|condition| condition.type_).collect())
}

#[tokio::test]
async fn a_condition_that_is_applied_no_more_is_gone_and_those_of_others_stay() -> Result<()> {
    let rig = Rig::connect().await?;
    let namespace = rig.namespace("apply-conditions").await?;
    let nodes: Api<Node> = Api::all(rig.client.clone());
    let node = &namespace.name;
    let _object = rig.node_object(node, json!({})).await?;
    let theirs = json!({ "status": { "conditions": [{ "type": "Theirs", "status": "True", "reason": "Test" }] } });
    nodes.patch_status(node, &PatchParams::default(), &Patch::Strategic(theirs)).await?;
    let [first, second, third] = CONDITIONS;
    for kinds in [&[first, second, third, FORMER][..], &[first, second, third], &[]] {
        let mut stand = apply(&nodes, node, kinds).await?;
        stand.retain(|kind| kind == "Theirs" || kind == FORMER || CONDITIONS.contains(&kind.as_str()));
        let mut wanted: Vec<_> = kinds.iter().chain(&["Theirs"]).map(ToString::to_string).collect();
        stand.sort();
        wanted.sort();
        assert_eq!(stand, wanted);
    }
    Ok(())
}
