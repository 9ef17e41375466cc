//! Names by the API alone (`locate.podWatch`): there are no files of a runtime.

use anyhow::{Context as _, Result};
use detector_cluster_tests::local::{Container, Home, Stage};
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// The uid that the kubelet gives the cgroup of a static pod: the hash of its manifest.
const HASH: &str = "0123456789abcdef0123456789abcdef";

/// A pod on the stage's node, as the API server has it. Nobody runs it.
async fn bound(stage: &Stage, name: &str, annotations: Value) -> Result<Pod> {
    let pod = json!({
        "metadata": { "name": name, "annotations": annotations },
        "spec": { "nodeName": stage.namespace.name, "containers": [{ "name": "main", "image": "none" }],
            "initContainers": [{ "name": "init", "image": "none" }] },
    });
    let pods: Api<Pod> = stage.namespace.api();
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await.with_context(|| format!("make {name}"))
}

/// Writes what a kubelet writes of containers.
async fn report(stage: &Stage, pod: &str, statuses: Value) -> Result<()> {
    let pods: Api<Pod> = stage.namespace.api();
    let patch = Patch::Merge(json!({ "status": statuses }));
    pods.patch_status(pod, &PatchParams::default(), &patch).await.with_context(|| format!("report of {pod}"))?;
    Ok(())
}

/// A container as a kubelet reports it; `last` is the one that ended before.
fn status(name: &str, id: Option<&str>, last: Option<&str>) -> Value {
    let id_of = |id: &str| format!("containerd://{id}");
    let mut status = json!({ "name": name, "image": "none", "imageID": "", "ready": false, "restartCount": i32::from(last.is_some()) });
    if let Some(id) = id {
        status["containerID"] = json!(id_of(id));
        status["state"] = json!({ "running": {} });
    }
    if let Some(last) = last {
        status["lastState"] = json!({ "terminated": { "exitCode": 137, "containerID": id_of(last) } });
    }
    status
}

/// Uids that the events of a container are about.
fn uids(events: &[Event], container: &Container) -> Vec<String> {
    let its = events.iter().filter(|event| container.is_told_by(event));
    its.filter_map(|event| event.regarding.as_ref()?.uid.clone()).collect()
}

#[tokio::test]
async fn kills_are_named_by_the_pods_of_the_api_where_the_runtime_left_no_files() -> Result<()> {
    let stage = Stage::set("names").await?;
    stage.settle(&json!({ "locate": { "podWatch": true, "hold": "30s" } }))?;
    let plain = bound(&stage, "plain", json!({})).await?;
    let mirror = json!({
        "kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH, "kubernetes.io/config.source": "file" });
    bound(&stage, "static", mirror).await?;
    let plain_uid = plain.uid().context("a pod without uid")?;
    let home = |pod: &str, uid: &str| Home {
        namespace: stage.namespace.name.clone(),
        pod: pod.to_owned(),
        uid: uid.to_owned(),
    };
    let of_plain = |name: &str, number| Container::without_files(home("plain", &plain_uid), name, number);
    let (main, init, debug) = (of_plain("main", 0), of_plain("init", 1), of_plain("debug", 2));
    let ended = of_plain("restarted", 3);
    let of_static = Container::without_files(home("static", HASH), "main", 4);
    // Known before the agent starts, so from its first list.
    report(&stage, "plain", json!({ "initContainerStatuses": [status("init", Some(&init.id), None)] })).await?;

    let agent = stage.start().await?;
    init.kills(1).await?;
    // These come by the watch, the names after the kill: it is held until they are there.
    for container in [&main, &debug, &ended, &of_static] {
        container.kills(1).await?;
    }
    let held = |metrics: &detector_cluster_tests::Metrics| metrics.sum("detector_held_kills", &[]) >= 4.0;
    agent.wait_for("kills wait for the names of their containers", held).await?;
    let statuses = json!({
        "containerStatuses": [status("main", Some(&main.id), None), status("restarted", None, Some(&ended.id))],
        "ephemeralContainerStatuses": [status("debug", Some(&debug.id), None)],
    });
    report(&stage, "plain", statuses).await?;
    report(&stage, "static", json!({ "containerStatuses": [status("main", Some(&of_static.id), None)] })).await?;

    for (container, uid) in [
        (&main, &plain_uid),
        (&init, &plain_uid),
        (&debug, &plain_uid),
        (&ended, &plain_uid),
        (&of_static, &HASH.to_owned()),
    ] {
        let told = stage.told(container, 1).await?;
        assert_eq!((told.events, told.kills), (1, 1), "{} of {}: {told}", container.name, container.home.pod);
        let events = stage.namespace.api::<Event>().list(&ListParams::default()).await?.items;
        assert_eq!(uids(&events, container), std::slice::from_ref(uid), "{} of {}", container.name, container.home.pod);
        let metrics = agent.metrics().await?;
        assert_eq!(container.counted(&metrics), 1.0, "{} of {}", container.name, container.home.pod);
    }
    agent.stop().await?;
    Ok(())
}
