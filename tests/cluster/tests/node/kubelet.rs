//! The rig's nodes are what a cluster has: a kubelet that starts containers, and a kernel that kills in them.

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{
    Namespace, Rig, namespace,
    node::{CALM, cgroup_number},
    wait,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::LogParams;
use serde_json::{Value, json};

/// Limit of the container that eats, in MiB.
const LIMIT: &str = "48Mi";

/// A container whose child eats until it is killed, while its first process lives.
fn with_hungry_child(rig: &Rig, node: &str) -> Value {
    json!({
        "nodeName": node,
        "containers": [{
            "name": "eats", "image": rig.facts.images.provoke,
            "command": ["/bin/sh", "-c", "tail /dev/zero; echo \"child ended with $?\"; exec sleep 100000"],
            "resources": { "requests": { "memory": "16Mi" }, "limits": { "memory": LIMIT } },
        }],
    })
}

fn status(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

#[tokio::test]
async fn all_nodes_become_ready() -> Result<()> {
    let rig = Rig::connect().await?;
    let nodes = rig.nodes();
    ensure!(!nodes.is_empty(), "this rig has no nodes");
    for node in nodes {
        let object = node.ready().await?;
        let info = object.status.and_then(|status| status.node_info).context("a Node without nodeInfo")?;
        let wanted = format!("{}.", node.facts.kernel.trim_end_matches('.'));
        assert!(info.kernel_version.starts_with(&wanted), "{} is not of series {wanted}", info.kernel_version);
    }
    Ok(())
}

#[tokio::test]
async fn a_child_that_is_killed_leaves_its_container_alive_where_single_processes_are_killed() -> Result<()> {
    let rig = Rig::connect().await?;
    let node = rig.node_with(true)?;
    node.ready().await?;
    let namespace = rig.namespace("single").await?;
    let pod = namespace.running_pod("eats", with_hungry_child(&rig, node.name())).await?;
    let status = status(&pod).context("no status of a container")?;
    let cgroup = node.cgroup(status.container_id.as_deref().unwrap_or_default()).await?;
    let is_killed = |events: &str| cgroup_number(events, "oom_kill").is_ok_and(|kills| kills > 0);
    let events = node
        .wait_for("the child is killed", &format!("cat {cgroup}/memory.events"), wait::POD_PATIENCE, is_killed)
        .await?;
    assert_eq!(cgroup_number(&events, "oom_kill")?, 1);
    let pod = namespace.api::<Pod>().get("eats").await?;
    let status = self::status(&pod).context("no status of a container")?;
    assert_eq!((status.restart_count, status.ready), (0, true));
    Ok(())
}

#[tokio::test]
async fn a_killed_child_takes_its_container_with_it_elsewhere() -> Result<()> {
    let rig = Rig::connect().await?;
    let _calm = CALM.read().await;
    let node = rig.node_with(false)?;
    node.ready().await?;
    let namespace = rig.namespace("group").await?;
    namespace.pod("eats", with_hungry_child(&rig, node.name())).await?;
    let pods = namespace.api::<Pod>();
    let is_killed = |pod: Option<&Pod>| {
        let Some(status) = pod.and_then(status) else { return false };
        let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        last.is_some_and(|ended| ended.reason.as_deref() == Some("OOMKilled")) && status.restart_count > 0
    };
    let what = "its container was killed, and started again";
    wait::until(&pods, "eats", what, wait::POD_PATIENCE, is_killed).await?;
    Ok(())
}

#[tokio::test]
async fn a_pod_reaches_the_api_server_at_its_services_address_unless_it_is_cut_off() -> Result<()> {
    let rig = Rig::connect().await?;
    let _calm = CALM.write().await;
    let node = rig.node_with(false)?;
    node.ready().await?;
    let namespace = rig.namespace("service").await?;
    // Without TLS the API server answers one sentence: enough to know it by.
    let ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT; echo end";
    let container = json!({ "name": "asks", "image": rig.facts.images.provoke, "command": ["/bin/sh", "-c", ask] });
    let spec = json!({ "nodeName": node.name(), "restartPolicy": "Never", "containers": [container] });
    assert_eq!(said_at_its_end(&namespace, "reaches", &spec).await?.matches("HTTPS server").count(), 1);
    node.set_api_reachable(false).await?;
    let said = said_at_its_end(&namespace, "cut-off", &spec).await;
    node.set_api_reachable(true).await?;
    assert_eq!(said?.matches("HTTPS server").count(), 0);
    Ok(())
}

/// Runs a pod to its end and gives its log.
async fn said_at_its_end(namespace: &Namespace, name: &str, spec: &Value) -> Result<String> {
    namespace.pod(name, spec.clone()).await?;
    let pods = namespace.api::<Pod>();
    let phase = |pod: &Pod| pod.status.clone().and_then(|status| status.phase).unwrap_or_default();
    let has_ended = |pod: Option<&Pod>| pod.is_some_and(|pod| ["Succeeded", "Failed"].contains(&phase(pod).as_str()));
    wait::until(&pods, name, "it has ended", wait::POD_PATIENCE, has_ended).await?;
    Ok(pods.logs(name, &LogParams::default()).await?)
}

#[test]
fn a_pod_without_status_does_not_run() {
    assert!(!namespace::all_run(&Pod::default()));
}
