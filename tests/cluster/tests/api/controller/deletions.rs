//! Deletions that the API server refuses the controller's own token, and those that it takes.

use anyhow::Result;
use detector_cluster_tests::{Verdict, is_refused};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{INCIDENT, Stage, by_uid, reason};

/// Changes a pod as an administrator does.
async fn change(stage: &Stage, pod: &str, patch: Value) -> Result<()> {
    stage.namespace.api::<Pod>().patch(pod, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// A patch that ends a pod, as the controller does.
fn failed() -> Patch<Value> {
    Patch::Strategic(json!({ "status": { "phase": "Failed", "reason": "KernelPanic", "message": "m" } }))
}

#[tokio::test]
async fn a_pod_goes_only_with_its_reason_on_it_and_by_its_uid() -> Result<()> {
    let stage = Stage::set("pods-deleted").await?.guarded().await?;
    let pod = stage.pod("bare").await?;
    let uid = pod.uid().unwrap_or_default();
    let now = DeleteParams { grace_period_seconds: Some(0), ..by_uid(&uid) };
    let mut verdict = Verdict::default();
    let refusal = "does not carry the reason";
    verdict.forbids("without a reason", &stage.pods.delete("bare", &by_uid(&uid)).await, refusal);
    verdict.forbids("without a reason, at once", &stage.pods.delete("bare", &now).await, refusal);
    change(&stage, "bare", json!({ "metadata": { "annotations": { INCIDENT: "i" } } })).await?;
    verdict.forbids("with the incident alone", &stage.pods.delete("bare", &by_uid(&uid)).await, refusal);
    change(&stage, "bare", json!({ "metadata": { "annotations": reason() } })).await?;
    verdict.forbids("by its name", &stage.pods.delete("bare", &DeleteParams::default()).await, "by its uid only");
    let other = by_uid("0f3c7a52-0000-4000-8000-000000000000");
    verdict.expect("by another uid", &stage.pods.delete("bare", &other).await, Some(409));
    let all = stage.pods.delete_collection(&DeleteParams::default(), &kube::api::ListParams::default()).await;
    verdict.expect("all at once", &all, Some(403));
    let dry = DeleteParams { dry_run: true, ..by_uid(&uid) };
    verdict.expect("with its own grace", &stage.pods.delete("bare", &dry).await, None);
    verdict.expect("at once", &stage.pods.delete("bare", &now).await, None);
    verdict.holds()?;
    stage.clear().await
}

#[tokio::test]
async fn pods_that_come_again_and_those_that_opted_out_stay() -> Result<()> {
    let stage = Stage::set("pods-left").await?.guarded().await?;
    let owner = json!([{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d", "controller": true }]);
    let mirror = json!({ "kubernetes.io/config.mirror": "x" });
    let mut verdict = Verdict::default();
    for (name, metadata) in [
        ("daemon", json!({ "annotations": reason(), "ownerReferences": owner })),
        ("mirror", json!({ "annotations": mirror })),
    ] {
        // A mirror is one from its making on.
        let pod = json!({ "metadata": metadata, "spec": {
            "nodeName": stage.node, "containers": [{ "name": "c", "image": "none" }] } });
        let mut pod: Pod = serde_json::from_value(pod)?;
        pod.metadata.name = Some(name.to_owned());
        let pod = stage.namespace.api::<Pod>().create(&kube::api::PostParams::default(), &pod).await?;
        if name == "mirror" {
            change(&stage, name, json!({ "metadata": { "annotations": reason() } })).await?;
        }
        let outcome = stage.pods.delete(name, &by_uid(&pod.uid().unwrap_or_default())).await;
        verdict.forbids(name, &outcome, "no pod of a DaemonSet, and no mirror");
        let failed = stage.pods.patch_status(name, &PatchParams::default(), &failed()).await;
        verdict.forbids(&format!("{name} failed"), &failed, "not end a pod of a DaemonSet, nor a mirror");
    }
    let pod = stage.pod("plain").await?;
    change(&stage, "plain", json!({ "metadata": { "annotations": reason() } })).await?;
    let label = |value: &str| Patch::Merge(json!({ "metadata": { "labels": { "detector.dev/remediation": value } } }));
    let spaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(stage.rig.client.clone());
    spaces.patch(&stage.namespace.name, &PatchParams::default(), &label("disabled")).await?;
    // The API server knows namespaces from a watch.
    let params = by_uid(&pod.uid().unwrap_or_default());
    let dry = DeleteParams { dry_run: true, ..params.clone() };
    let asking = async {
        let mut again = tokio::time::interval(std::time::Duration::from_millis(50));
        while !is_refused(&stage.pods.delete("plain", &dry).await, "opted out") {
            again.tick().await;
        }
    };
    tokio::time::timeout(super::IN_FORCE, asking).await?;
    verdict.forbids("in a namespace that opted out", &stage.pods.delete("plain", &params).await, "opted out");
    let failed = stage.pods.patch_status("plain", &PatchParams::default(), &failed()).await;
    verdict.forbids("failed there", &failed, "opted out");
    verdict.holds()?;
    stage.clear().await
}

#[tokio::test]
async fn a_node_that_is_ready_is_refused_and_one_that_was_given_up_goes() -> Result<()> {
    let stage = Stage::set("nodes-deleted").await?.guarded().await?;
    let uid = stage.node_uid().await?;
    let admin: Api<Node> = Api::all(stage.rig.client.clone());
    let change = |patch: Value| {
        let (admin, name) = (admin.clone(), stage.node.clone());
        async move { admin.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await }
    };
    change(json!({ "metadata": { "annotations": reason() } })).await?;
    let params = by_uid(&uid);
    let delete = || stage.nodes.delete(&stage.node, &params);
    let mut verdict = Verdict::default();
    verdict.forbids("Ready", &delete().await, "whose Ready is Unknown");
    stage.ready("False").await?;
    verdict.forbids("not Ready, by its own kubelet", &delete().await, "whose Ready is Unknown");
    stage.ready("Unknown").await?;
    let by_name = stage.nodes.delete(&stage.node, &DeleteParams::default()).await;
    verdict.forbids("by its name", &by_name, "by its uid only");
    for (what, label, words) in [
        ("opted out", json!({ "detector.dev/remediation": "disabled" }), "the node opted out"),
        ("control plane", json!({ "node-role.kubernetes.io/control-plane": "" }), "of the control plane"),
    ] {
        change(json!({ "metadata": { "labels": label } })).await?;
        verdict.forbids(what, &delete().await, words);
        let key = label.as_object().and_then(|labels| labels.keys().next().cloned()).unwrap_or_default();
        change(json!({ "metadata": { "labels": { key: null } } })).await?;
    }
    change(json!({ "metadata": { "annotations": { INCIDENT: null } } })).await?;
    verdict.forbids("without its incident", &delete().await, "does not carry the reason");
    change(json!({ "metadata": { "annotations": reason() } })).await?;
    verdict.expect("as it should be", &delete().await, None);
    verdict.holds()?;
    stage.clear().await
}
