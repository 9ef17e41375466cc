//! Settings as a kubelet brings them: a wrong file ends in the pod's last words, a changed ConfigMap is taken by an agent
//! that runs.

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{
    Metrics, Node, Rig,
    agent::{DAEMON_SET, METRICS_PORT, NAMESPACE},
    wait,
};
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStateTerminated, Pod};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

/// Exit code of wrong settings (`EX_USAGE` of sysexits(3)).
const USAGE: i32 = 64;

/// The file in the ConfigMap.
const FILE: &str = "config.yaml";

/// Two mistakes.
const WRONG: &str = "locate:\n  hold: 3 parsecs\nno-such-key: 1\n";

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?.terminated.as_ref()
}

#[tokio::test]
async fn all_mistakes_of_a_wrong_file_stand_in_the_pods_termination_message() -> Result<()> {
    let rig = Rig::connect().await?;
    let image = rig.facts.images.detector.clone().context("this rig was started without the product's image")?;
    let node = rig.node_with(true)?;
    node.ready().await?;
    let namespace = rig.namespace("wrong").await?;
    let wrong = json!({ "metadata": { "name": "settings" }, "data": { FILE: WRONG } });
    let settings: Api<ConfigMap> = namespace.api();
    settings.create(&PostParams::default(), &serde_json::from_value(wrong)?).await.context("make the ConfigMap")?;
    // The message must come from its file: what stands in the log may be shown, but is not asked for here.
    let container = json!({
        "name": "detector", "image": image, "args": ["agent", "--config", format!("/etc/detector/{FILE}")],
        "terminationMessagePolicy": "File", "securityContext": { "readOnlyRootFilesystem": true },
        "volumeMounts": [{ "name": "config", "mountPath": "/etc/detector", "readOnly": true }] });
    let volume = json!({ "name": "config", "configMap": { "name": "settings" } });
    let spec = json!({
        "nodeName": node.name(), "restartPolicy": "Never", "containers": [container], "volumes": [volume] });
    namespace.pod("wrong", spec).await?;
    let has_ended = |pod: Option<&Pod>| pod.is_some_and(|pod| terminated(pod).is_some());
    let pod = wait::until(&namespace.api(), "wrong", "it has ended", wait::POD_PATIENCE, has_ended).await?;
    let pod = pod.context("the pod is gone")?;
    let ended = terminated(&pod).context("a container that has ended")?;
    assert_eq!(ended.exit_code, USAGE);
    let words = ended.message.as_deref().unwrap_or_default();
    ensure!(words.contains("locate.hold") && words.contains("3 parsecs"), "{words}");
    ensure!(words.contains("no-such-key"), "{words}");
    Ok(())
}

/// Reloads of the agent of a node with this result.
fn reloads(metrics: &Metrics, result: &str) -> f64 {
    metrics.sum("detector_config_reloads_total", &[("result", result)])
}

#[tokio::test]
async fn a_changed_config_map_is_taken_without_a_restart() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    // Nobody restarts the agent of this node.
    let node = rig.node_with(true)?;
    let maps: Api<ConfigMap> = rig.api(NAMESPACE);
    let before = maps.get(DAEMON_SET).await?.data.unwrap_or_default().remove(FILE).context("no settings")?;
    let changed = taken(&node, &maps, &format!("{before}log:\n  level: debug\n")).await;
    // As other runs on this cluster expect it.
    taken(&node, &maps, &before).await?;
    changed
}

/// Puts settings into the ConfigMap and waits until the agent has taken them. The kubelet brings them at its next look at
/// the pod, each 5 to 8 s on the rig's nodes (`syncFrequency`).
async fn taken(node: &Node, maps: &Api<ConfigMap>, text: &str) -> Result<()> {
    let before = node.metrics(METRICS_PORT).await?;
    let patch = Patch::Merge(json!({ "data": { FILE: text } }));
    maps.patch(DAEMON_SET, &PatchParams::default(), &patch).await.context("change the ConfigMap")?;
    let wanted = reloads(&before, "applied") + 1.0;
    let is_taken = |metrics: &Metrics| reloads(metrics, "applied") >= wanted;
    let metrics = node.wait_for_metrics(METRICS_PORT, "the settings are taken", wait::POD_PATIENCE, is_taken).await?;
    let refused = reloads(&metrics, "refused") - reloads(&before, "refused");
    ensure!(refused == 0.0, "{refused} were refused");
    Ok(())
}
