//! What somebody can do who has taken the token out of a running agent. `tests/api/policies.rs` has the whole list, with
//! tokens made for the purpose; here the token is the one that the kubelet gave.

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{CONTROLLER, Rig, node::CALM, wait};
use k8s_openapi::api::{core::v1, events::v1::Event};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// Where a pod has its token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

fn condition(kind: &str) -> Value {
    json!({ "status": { "conditions": [{ "type": kind, "status": "True", "reason": "Stolen", "message": "a test" }] } })
}

fn event_about(node: &str, author: &str) -> Result<Event> {
    let event = json!({
        "metadata": { "name": format!("stolen.{node}.{author}"), "namespace": "default" },
        "eventTime": "2026-01-02T03:04:05.000006Z", "reportingController": CONTROLLER,
        "reportingInstance": author, "type": "Warning", "reason": "TaskHung", "action": "Observed", "note": "a test",
        "regarding": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": node } });
    serde_json::from_value(event).context("word an event")
}

#[tokio::test]
async fn a_token_taken_from_a_running_agent_is_good_for_its_own_node_only() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let _calm = CALM.read().await;
    let (own, other) = (rig.node_with(false)?, rig.node_with(true)?);
    let token = own.run(&format!("cat /proc/$(pidof detector)/root{TOKEN}")).await.context("take the token")?;
    let client = rig.client_with_token(token.trim()).await?;
    let (own, other) = (own.name(), other.name());
    let nodes: Api<v1::Node> = Api::all(client.clone());
    // Nothing of this is to change what other tests see.
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let ours = nodes.patch_status(own, &dry, &Patch::Strategic(condition("TaskHung"))).await;
    assert_eq!(wait::refusal(&ours), None, "its own condition: {ours:?}");

    let addresses = json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.66" }] } });
    let label = json!({ "metadata": { "labels": { "stolen": "yes" } } });
    let mut allowed = Vec::new();
    for (what, node, patch) in [
        ("a condition of another node", other, condition("TaskHung")),
        ("Ready", own, condition("Ready")),
        ("a foreign condition", own, condition("MemoryPressure")),
        ("addresses", own, addresses),
        ("a label", own, label.clone()),
    ] {
        if wait::refusal(&nodes.patch_status(node, &dry, &Patch::Strategic(patch)).await) != Some(403) {
            allowed.push(what);
        }
    }
    if wait::refusal(&nodes.patch(own, &dry, &Patch::Merge(label)).await) != Some(403) {
        allowed.push("a label of the Node itself");
    }
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    let dry = PostParams { dry_run: true, field_manager: None };
    let about_own = events.create(&dry, &event_about(own, own)?).await;
    assert_eq!(wait::refusal(&about_own), None, "its own event: {about_own:?}");
    for (what, event) in [
        ("an event about another node", event_about(other, own)?),
        ("an event in the name of another node", event_about(own, other)?),
        ("an event of another agent", event_about(other, other)?),
    ] {
        if wait::refusal(&events.create(&dry, &event).await) != Some(403) {
            allowed.push(what);
        }
    }
    let pods: Api<v1::Pod> = Api::all(client.clone());
    let secrets: Api<v1::Secret> = Api::all(client);
    if wait::refusal(&pods.list(&ListParams::default()).await) != Some(403) {
        allowed.push("reading pods");
    }
    if wait::refusal(&secrets.list(&ListParams::default()).await) != Some(403) {
        allowed.push("reading secrets");
    }
    ensure!(allowed.is_empty(), "a stolen token is good for: {allowed:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_of_the_agents_account_that_is_bound_to_no_pod_is_good_for_nothing() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let _calm = CALM.read().await;
    let own = rig.node_with(false)?;
    let token = rig.token("detector", "detector-agent", None).await?;
    let client = rig.client_with_token(&token).await?;
    let nodes: Api<v1::Node> = Api::all(client.clone());
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let patched = nodes.patch_status(own.name(), &dry, &Patch::Strategic(condition("TaskHung"))).await;
    let events: Api<Event> = Api::namespaced(client, "default");
    let dry = PostParams { dry_run: true, field_manager: None };
    let created = events.create(&dry, &event_about(own.name(), own.name())?).await;
    assert_eq!((wait::refusal(&patched), wait::refusal(&created)), (Some(403), Some(403)));
    Ok(())
}
