//! Whatever container it was and whoever's limit was hit: names and limit are the right ones.

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{Metrics, Namespace, Node, Rig, Told, agent::METRICS_PORT, eater, node::CALM, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

/// Kills by process and limit.
const BY: &str = "detector_container_oom_kills_by_total";

/// Limit of all pods without requests and limits, while one of them eats.
const BEST_EFFORT: &str = "/sys/fs/cgroup/kubepods/besteffort/memory.max";

/// Where kubelet looks for static pods.
const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// Pages of 2 MiB that are set aside while a node runs out of memory: a guest takes minutes to touch all of it.
const SET_ASIDE: &str = "vm.nr_hugepages=200";

/// What one kill is expected to be.
struct Expected<'a> {
    pod: &'a str,
    uid: &'a str,
    container: &'a str,
    limit: &'a str,
}

impl Expected<'_> {
    /// Waits for the event and the metric, and judges both.
    async fn judge(&self, namespace: &Namespace, node: &Node) -> Result<Told> {
        let told = namespace.told("the kill is told", |_| true).await?;
        println!("{} {}: {}", self.limit, told.reason(), told.note());
        let field = format!("spec.containers{{{}}}", self.container);
        // No panic: who called puts the node in order again.
        let about = told.about();
        ensure!(about == (self.pod, self.uid, field.as_str()), "it is about {about:?}");
        let labels = [
            ("namespace", namespace.name.as_str()),
            ("pod", self.pod),
            ("container", self.container),
            ("limit", self.limit),
        ];
        let is_counted = |metrics: &Metrics| metrics.sum(BY, &labels) >= 1.0;
        let metrics =
            node.wait_for_metrics(METRICS_PORT, &format!("{labels:?} counts"), wait::PATIENCE, is_counted).await?;
        let here = [("namespace", namespace.name.as_str())];
        let of_namespace: Vec<_> = metrics.find(BY, &here).collect();
        // A group kill has a series for the first process and one for the others.
        let as_expected = metrics.find(BY, &labels).count();
        ensure!(as_expected == of_namespace.len(), "not only {labels:?}: {of_namespace:?}");
        Ok(told)
    }
}

fn uid(pod: &Pod) -> String {
    pod.uid().unwrap_or_default()
}

#[tokio::test]
async fn an_init_container_has_its_own_name() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let node = rig.node_with(true)?;
    let namespace = rig.namespace("init").await?;
    let spec = json!({
        "nodeName": node.name(),
        "initContainers": [eater::shell(&rig, "migrate", "tail /dev/zero; sleep 20; true")],
        "containers": [eater::shell(&rig, "main", "exec sleep 100000")],
    });
    let pod = namespace.pod("with-init", spec).await?;
    let expected = Expected { pod: "with-init", uid: &uid(&pod), container: "migrate", limit: "container" };
    expected.judge(&namespace, &node).await.map(drop)
}

#[tokio::test]
async fn an_ephemeral_container_without_a_limit_hits_that_of_its_pod() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let node = rig.node_with(true)?;
    let namespace = rig.namespace("ephemeral").await?;
    let main = eater::shell(&rig, "main", "exec sleep 100000");
    let pod = namespace.running_pod("debugged", json!({ "nodeName": node.name(), "containers": [main] })).await?;
    let debug = json!({ "spec": { "ephemeralContainers": [{
        "name": "debug", "image": rig.facts.images.provoke, "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", "tail /dev/zero; exec sleep 100000"],
    }] } });
    let pods: Api<Pod> = namespace.api();
    pods.patch_subresource("ephemeralcontainers", "debugged", &PatchParams::default(), &Patch::Strategic(&debug))
        .await
        .context("add an ephemeral container")?;
    let expected = Expected { pod: "debugged", uid: &uid(&pod), container: "debug", limit: "pod" };
    expected.judge(&namespace, &node).await.map(drop)
}

#[tokio::test]
async fn a_limit_of_the_pod_that_kubelet_sets_on_its_container_too_is_the_containers() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let node = rig.node_with(true)?;
    let namespace = rig.namespace("pod-limit").await?;
    let mut container = eater::on_cue(&rig, "app");
    container["resources"] = json!({});
    // Pod-level resources: kubelet gives the pod's limit to each container without one.
    let resources = json!({ "requests": { "memory": "16Mi" }, "limits": { "memory": eater::LIMIT } });
    let spec = json!({ "nodeName": node.name(), "resources": resources, "containers": [container] });
    let pod = namespace.running_pod("shared", spec).await?;
    let id = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first()?.container_id.clone());
    let cgroup = node.cgroup(&id.context("a container without id")?).await?;
    println!(
        "limits: {}",
        node.run(&format!("cat {cgroup}/memory.max {cgroup}/../memory.max")).await?.replace('\n', " ")
    );
    namespace.cue("shared", "app").await?;
    let expected = Expected { pod: "shared", uid: &uid(&pod), container: "app", limit: "container" };
    expected.judge(&namespace, &node).await.map(drop)
}

#[tokio::test]
async fn a_limit_above_the_pod_is_an_ancestors() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let node = rig.node_with(true)?;
    let namespace = rig.namespace("ancestor").await?;
    let mut container = eater::on_cue(&rig, "app");
    container["resources"] = json!({});
    let pod = namespace.running_pod("unlimited", json!({ "nodeName": node.name(), "containers": [container] })).await?;
    node.run(&format!("echo 64M > {BEST_EFFORT}")).await?;
    let cued = namespace.cue("unlimited", "app").await;
    let expected = Expected { pod: "unlimited", uid: &uid(&pod), container: "app", limit: "ancestor" };
    let judged = expected.judge(&namespace, &node).await;
    node.run(&format!("echo max > {BEST_EFFORT}")).await?;
    cued.and(judged).map(drop)
}

#[tokio::test]
async fn a_node_without_memory_is_told_of_the_container_that_died() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let _calm = CALM.write().await;
    let node = rig.node_with(false)?;
    let namespace = rig.namespace("node-wide").await?;
    let mut container = eater::on_cue(&rig, "hungry");
    container["resources"] = json!({});
    let spec = json!({ "nodeName": node.name(), "restartPolicy": "Never", "containers": [container] });
    let pod = namespace.running_pod("glutton", spec).await?;
    node.run(&format!("sysctl -w {SET_ASIDE}")).await?;
    let cued = namespace.cue("glutton", "hungry").await;
    let expected = Expected { pod: "glutton", uid: &uid(&pod), container: "hungry", limit: "node" };
    let judged = expected.judge(&namespace, &node).await;
    node.run("sysctl -w vm.nr_hugepages=0").await?;
    cued.and(judged).map(drop)
}

#[tokio::test]
async fn a_static_pod_has_its_mirrors_name_and_its_own_uid() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let node = rig.node_with(true)?;
    let namespace = rig.namespace("static").await?;
    let mut container = eater::on_cue(&rig, "app");
    container["imagePullPolicy"] = json!("Never");
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "fixed", "namespace": namespace.name },
        "spec": { "hostNetwork": true, "terminationGracePeriodSeconds": 0, "containers": [container] },
    });
    let file = format!("{MANIFESTS}/{}.json", namespace.name);
    node.run(&format!("echo '{manifest}' > {file}")).await?;
    let judged = judge_static(&namespace, &node).await;
    node.run(&format!("rm {file}")).await?;
    judged
}

async fn judge_static(namespace: &Namespace, node: &Node) -> Result<()> {
    let name = format!("fixed-{}", node.name());
    let is_up = |pod: Option<&Pod>| pod.is_some_and(detector_cluster_tests::namespace::all_run);
    let mirror = wait::until(&namespace.api::<Pod>(), &name, "the static pod runs", wait::POD_PATIENCE, is_up).await?;
    let mirror = mirror.context("the mirror is gone")?;
    let hash = mirror.annotations().get("kubernetes.io/config.hash").context("a mirror without its hash")?;
    namespace.cue(&name, "app").await?;
    let expected = Expected { pod: &name, uid: hash, container: "app", limit: "container" };
    expected.judge(namespace, node).await?;
    let described = namespace.rig().kubectl(&["--namespace", &namespace.name, "describe", "pod", &name]).await?;
    ensure!(described.contains("ProcessOOMKilled"), "{described}");
    Ok(())
}

#[tokio::test]
async fn a_pod_that_dies_as_it_starts_and_is_deleted_before_it_can_be_told_is_told() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let _calm = CALM.write().await;
    let node = rig.node_with(false)?;
    let namespace = rig.namespace("short").await?;
    node.set_api_reachable(false).await?;
    let pod = dies_and_is_deleted(&namespace, &node).await;
    // Whatever happened: other tests need it.
    node.set_api_reachable(true).await?;
    let expected = Expected { pod: "short-lived", uid: &uid(&pod?), container: "brief", limit: "container" };
    let told = expected.judge(&namespace, &node).await?;
    assert_eq!(told.reason(), "ContainerOOMKilled");
    Ok(())
}

/// Makes a pod, deletes it as soon as it is dead, and sees that nobody has told of it by then.
async fn dies_and_is_deleted(namespace: &Namespace, node: &Node) -> Result<Pod> {
    let rig = namespace.rig();
    let mut container = eater::shell(rig, "brief", "");
    container["command"] = json!(["/contained", "eat"]);
    let spec = json!({ "nodeName": node.name(), "restartPolicy": "Never", "containers": [container] });
    let pod = namespace.pod("short-lived", spec).await?;
    let pods: Api<Pod> = namespace.api();
    let is_dead = |pod: Option<&Pod>| {
        let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
        phase.is_some_and(|phase| phase == "Failed")
    };
    wait::until(&pods, "short-lived", "it is dead", wait::POD_PATIENCE, is_dead).await?;
    pods.delete("short-lived", &DeleteParams::default().grace_period(0)).await.context("delete the pod")?;
    wait::until(&pods, "short-lived", "it is gone", wait::POD_PATIENCE, |pod| pod.is_none()).await?;
    let told = namespace.all_told().await?;
    ensure!(told.is_empty(), "the agent was not cut off: {told:#?}");
    Ok(pod)
}
