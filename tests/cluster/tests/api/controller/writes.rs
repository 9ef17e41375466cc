//! Writes to Nodes, pods and events: what each step needs is taken, all else is refused.

use anyhow::Result;
use detector_cluster_tests::{Verdict, wait};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Error,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{INCIDENT, REASON, Stage, reason};

/// The taint of the controller, as it adds it.
fn taint(value: &str) -> Value {
    json!({ "key": "node.kubernetes.io/out-of-service", "value": value, "effect": "NoExecute" })
}

/// Changes the list of taints as it stands, with the controller's token: the control plane changes it meanwhile.
async fn retaint(stage: &Stage, change: impl Fn(&mut Vec<Value>)) -> Result<Node, Error> {
    let admin: Api<Node> = Api::all(stage.rig.client.clone());
    loop {
        let node = admin.get(&stage.node).await?;
        let taints = serde_json::to_value(node.spec.and_then(|spec| spec.taints).unwrap_or_default());
        let mut taints: Vec<Value> = taints.and_then(serde_json::from_value).map_err(Error::SerdeError)?;
        change(&mut taints);
        let metadata = json!({ "resourceVersion": node.metadata.resource_version });
        let outcome = merge(stage, json!({ "metadata": metadata, "spec": { "taints": taints } })).await;
        if wait::refusal(&outcome) != Some(409) {
            return outcome;
        }
    }
}

async fn merge(stage: &Stage, patch: Value) -> Result<Node, Error> {
    stage.nodes.patch(&stage.node, &PatchParams::default(), &Patch::Merge(patch)).await
}

#[tokio::test]
async fn of_a_node_only_what_steps_change_can_be_changed() -> Result<()> {
    let stage = Stage::set("nodes-changed").await?.guarded().await?;
    let mut verdict = Verdict::default();
    let cordon = json!({ "metadata": { "annotations": { "detector.dev/cordoned-for": "i" } },
        "spec": { "unschedulable": true } });
    verdict.expect("cordon", &merge(&stage, cordon).await, None);
    verdict.expect("reason", &merge(&stage, json!({ "metadata": { "annotations": reason() } })).await, None);
    let undone = json!({ "metadata": { "annotations": { "detector.dev/cordoned-for": null, INCIDENT: null } },
        "spec": { "unschedulable": false } });
    verdict.expect("taken back", &merge(&stage, undone).await, None);
    for (what, patch, words) in [
        ("label", json!({ "metadata": { "labels": { "a": "b" } } }), "metadata"),
        ("label removed", json!({ "metadata": { "labels": { "before": null } } }), "metadata"),
        ("finalizer", json!({ "metadata": { "finalizers": ["example.org/stay"] } }), "metadata"),
        ("annotation", json!({ "metadata": { "annotations": { "c": "d" } } }), "no annotations of a Node"),
        ("annotation changed", json!({ "metadata": { "annotations": { "a": "c" } } }), "no annotations of a Node"),
        ("annotation removed", json!({ "metadata": { "annotations": { "a": null } } }), "no annotations of a Node"),
        ("address of a cloud", json!({ "spec": { "providerID": "x://y" } }), "spec but"),
        ("foreign taint", json!({ "spec": { "taints": [{ "key": "a", "effect": "NoSchedule" }] } }), "no taint but"),
    ] {
        verdict.forbids(what, &merge(&stage, patch).await, words);
    }
    verdict.holds()?;
    stage.clear().await
}

#[tokio::test]
async fn the_taint_is_for_nodes_that_are_not_ready_and_others_stay() -> Result<()> {
    let stage = Stage::set("nodes-tainted").await?.guarded().await?;
    let plain = PatchParams::default();
    let admin: Api<Node> = Api::all(stage.rig.client.clone());
    let foreign = json!([{ "key": "example.org/theirs", "effect": "NoSchedule" }]);
    admin.patch(&stage.node, &plain, &Patch::Merge(json!({ "spec": { "taints": foreign } }))).await?;
    let add = |value: &'static str| move |taints: &mut Vec<Value>| taints.push(taint(value));
    let ours = |one: &Value| one["value"] == "detector";
    let mut verdict = Verdict::default();
    verdict.forbids("on a Ready node", &retaint(&stage, add("detector")).await, "that is Ready");
    stage.ready("Unknown").await?;
    verdict.forbids("with a person's value", &retaint(&stage, add("nodeshutdown")).await, "no taint but");
    verdict.expect("on a node given up", &retaint(&stage, add("detector")).await, None);
    let replaced = retaint(&stage, |taints| taints.retain(ours)).await;
    verdict.forbids("theirs replaced", &replaced, "no taint but");
    stage.ready("True").await?;
    verdict.expect("taken off", &retaint(&stage, |taints| taints.retain(|one| !ours(one))).await, None);
    verdict.holds()?;
    stage.clear().await
}

/// A patch of one condition, as the controller writes it.
fn condition(kind: &str, status: &str, reason: &str) -> Patch<Value> {
    Patch::Strategic(json!({ "status": { "conditions": [{ "type": kind, "status": status, "reason": reason }] } }))
}

#[tokio::test]
async fn conditions_of_a_node_are_ours_and_become_unknown_only() -> Result<()> {
    let stage = Stage::set("nodes-status").await?.guarded().await?;
    let of = |kind: &str, status: &str| condition(kind, status, "Test");
    let merge = |patch: Value| Patch::Merge(json!({ "status": patch }));
    let params = PatchParams::default();
    let mut verdict = Verdict::default();
    let taken = stage.nodes.patch_status(&stage.node, &params, &of("TaskHung", "Unknown")).await;
    verdict.expect("ours to Unknown", &taken, None);
    for (what, patch, words) in [
        ("ours to True", of("KernelDeadlock", "True"), "those to Unknown"),
        ("ours to True from an Unknown of others", of("TaskHung", "True"), "those to Unknown"),
        ("Ready", of("Ready", "Unknown"), "no conditions but ours"),
        ("a foreign one", of("ReadonlyFilesystem", "Unknown"), "no conditions but ours"),
        ("all dropped", merge(json!({ "conditions": null })), "no conditions but ours"),
        ("capacity", merge(json!({ "capacity": { "cpu": "64" } })), "nothing of a Node's status"),
        (
            "addresses",
            merge(json!({ "addresses": [{ "type": "InternalIP", "address": "192.0.2.66" }] })),
            "nothing of a Node's status",
        ),
    ] {
        verdict.forbids(what, &stage.nodes.patch_status(&stage.node, &params, &patch).await, words);
    }
    verdict.holds()?;
    stage.clear().await
}

#[tokio::test]
async fn a_condition_of_a_lost_node_is_put_back_once_the_node_is_back() -> Result<()> {
    let stage = Stage::set("nodes-put-back").await?.guarded().await?;
    let params = PatchParams::default();
    let mut verdict = Verdict::default();
    for (what, status, reason) in [
        ("True to Unknown", "Unknown", "NodeLost"),
        ("back to True", "True", "TaskHung"),
        ("to Unknown again", "Unknown", "NodeLost"),
        ("back to False", "False", "NoTaskHung"),
    ] {
        let patch = condition("TaskHung", status, reason);
        verdict.expect(what, &stage.nodes.patch_status(&stage.node, &params, &patch).await, None);
    }
    let made = stage.nodes.patch_status(&stage.node, &params, &condition("TaskHung", "True", "TaskHung")).await;
    verdict.forbids("from False to True", &made, "those to Unknown");
    verdict.holds()?;
    stage.clear().await
}

#[tokio::test]
async fn of_a_pod_only_its_reason_and_its_end_can_be_written() -> Result<()> {
    let stage = Stage::set("pods-changed").await?.guarded().await?;
    let pod = stage.pod("told").await?;
    let condition = |kind: &str| {
        json!({ "type": kind, "status": "True", "reason": "KernelPanic", "message": "m",
            "lastTransitionTime": "2026-11-22T12:00:00Z" })
    };
    let status = |status: Value, annotations: Value| {
        Patch::Strategic(
            json!({ "metadata": { "uid": pod.metadata.uid, "annotations": annotations }, "status": status }),
        )
    };
    let failed = json!({ "phase": "Failed", "reason": "KernelPanic", "message": "m",
        "conditions": [condition("DisruptionTarget")] });
    let params = PatchParams::default();
    let mut verdict = Verdict::default();
    let ended = stage.pods.patch_status("told", &params, &status(failed.clone(), json!({}))).await;
    verdict.forbids("ended without a reason", &ended, "may end no pod");
    let written = status(json!({ "conditions": [condition("detector.dev/KernelCrash")] }), reason());
    verdict.expect("reason and condition in one", &stage.pods.patch_status("told", &params, &written).await, None);
    for (what, patch, words) in [
        ("another annotation", status(json!({}), json!({ "a": "b" })), "no annotations of a pod"),
        (
            "another condition",
            status(json!({ "conditions": [condition("Ready")] }), json!({})),
            "no conditions of a pod",
        ),
        ("another end", status(json!({ "phase": "Succeeded" }), json!({})), "may end no pod"),
        ("address", status(json!({ "podIP": "192.0.2.6" }), json!({})), "nothing of a pod's status"),
        ("label", Patch::Strategic(json!({ "metadata": { "labels": { "a": "b" } } })), "metadata"),
    ] {
        verdict.forbids(what, &stage.pods.patch_status("told", &params, &patch).await, words);
    }
    let outside = Patch::Merge(json!({ "metadata": { "annotations": { REASON: "x" } } }));
    verdict.expect("beside its status", &stage.pods.patch("told", &params, &outside).await, Some(403));
    let ended = stage.pods.patch_status("told", &params, &status(failed, json!({}))).await;
    verdict.expect("ended with its reason", &ended, None);
    let retracted = status(
        json!({ "conditions": [{ "type": "detector.dev/KernelCrash", "status": "False", "reason": "FalseAlarm",
            "lastTransitionTime": "2026-11-22T12:01:00Z" }] }),
        json!({ REASON: null, INCIDENT: null }),
    );
    verdict.expect("taken back", &stage.pods.patch_status("told", &params, &retracted).await, None);
    verdict.holds()?;
    stage.clear().await
}

#[tokio::test]
async fn events_are_the_controllers_own() -> Result<()> {
    let stage = Stage::set("events-of-controller").await?.guarded().await?;
    let post = async |event| stage.events.create(&PostParams::default(), &event).await;
    let mut verdict = Verdict::default();
    verdict.expect("its own", &post(stage.event("a", &json!({}))?).await, None);
    let as_agent = post(stage.event("b", &json!({ "reportingController": "detector.dev/agent" }))?).await;
    verdict.forbids("as the agent", &as_agent, "as detector.dev/controller only");
    let reboot = post(stage.event("c", &json!({ "reason": "Rebooted" }))?).await;
    verdict.forbids("for another reason", &reboot, "for its own reasons only");
    verdict.holds()?;
    stage.clear().await
}
