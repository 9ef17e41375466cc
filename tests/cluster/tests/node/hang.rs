//! A task that hangs in the kernel raises the condition for its kind, and its end clears it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{Node, Rig, agent::METRICS_PORT, wait};
use k8s_openapi::api::core::v1::{self, NodeCondition};
use kube::{Api, ResourceExt as _};
use serde_json::json;

/// After this time in uninterruptible sleep a task hangs, in seconds; a busy guest's own tasks must not take as long.
const TIMEOUT: u32 = 10;

/// How long a change of a condition may take: the timeout, the kernel's look each second, and a write each second.
const PATIENCE: Duration = Duration::from_secs(90);

/// A small file system of its own, which can be frozen: who writes to it hangs until it is thawed.
const MOUNT: &str = "set -e
    mkdir -p /run/frozen
    dd if=/dev/zero of=/run/frozen.img bs=1M count=4
    mke2fs -F /run/frozen.img
    mount -t ext4 -o loop /run/frozen.img /run/frozen";

/// What a container does: at each cue it writes there.
const WRITER: &str = "mkfifo /tmp/cue; while true; do read word < /tmp/cue; echo x > /frozen/in-pod; done";

/// A process of the node's runtime by name and place, which writes to that file system.
const RUNTIME: &str = "set -e
    mkdir -p /run/hang /sys/fs/cgroup/system.slice/kubelet.service
    echo '#!/bin/sh' > /run/hang/kubelet
    echo 'echo $$ > /sys/fs/cgroup/system.slice/kubelet.service/cgroup.procs' >> /run/hang/kubelet
    echo 'echo x > /run/frozen/runtime' >> /run/hang/kubelet
    chmod +x /run/hang/kubelet
    fsfreeze --freeze /run/frozen
    /run/hang/kubelet < /dev/null > /dev/null 2>&1 &";

async fn set_timeout(node: &Node, seconds: u32) -> Result<()> {
    node.run(&format!("sysctl -w kernel.hung_task_timeout_secs={seconds}")).await.map(drop)
}

/// A condition of a node.
fn condition<'a>(node: &'a v1::Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Waits until a condition has this status, and gives its message.
async fn until(rig: &Rig, node: &Node, kind: &str, status: &str) -> Result<String> {
    let nodes: Api<v1::Node> = Api::all(rig.client.clone());
    let what = format!("{kind} is {status}");
    let is_so = |node: Option<&v1::Node>| {
        node.and_then(|node| condition(node, kind)).is_some_and(|condition| condition.status == status)
    };
    let begun = std::time::Instant::now();
    let object = wait::until(&nodes, node.name(), &what, PATIENCE, is_so).await?.context("the Node is gone")?;
    let message = condition(&object, kind).and_then(|condition| condition.message.clone()).unwrap_or_default();
    println!("{what} after {:.1} s: {message}", begun.elapsed().as_secs_f64());
    Ok(message)
}

/// One test, because both halves wait on the same node's conditions and change its settings.
#[tokio::test]
async fn a_hung_task_raises_the_condition_of_its_kind_until_it_runs_again() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let node = rig.node_with(true)?;
    until(&rig, &node, "TaskHung", "False").await?;
    until(&rig, &node, "KernelDeadlock", "False").await?;
    let before = node.run("sysctl -n kernel.hung_task_timeout_secs").await?;
    node.run(MOUNT).await?;
    node.run("sysctl -w kernel.hung_task_check_interval_secs=1").await?;
    set_timeout(&node, TIMEOUT).await?;
    let judged = async {
        in_a_container(&rig, &node).await?;
        of_the_runtime(&rig, &node).await
    };
    let judged = judged.await;
    node.try_run("fsfreeze --unfreeze /run/frozen").await?;
    set_timeout(&node, before.trim().parse().unwrap_or(120)).await?;
    judged
}

/// Errors, not panics: the caller thaws and puts the settings back.
async fn in_a_container(rig: &Rig, node: &Node) -> Result<()> {
    let namespace = rig.namespace("hang").await?;
    let container = json!({
        "name": "writes", "image": rig.facts.images.provoke,
        "command": ["/bin/sh", "-c", WRITER],
        "volumeMounts": [{ "name": "frozen", "mountPath": "/frozen" }],
    });
    let volume = json!({ "name": "frozen", "hostPath": { "path": "/run/frozen" } });
    let spec = json!({ "nodeName": node.name(), "containers": [container], "volumes": [volume] });
    let pod = namespace.running_pod("writer", spec).await?;
    node.run("fsfreeze --freeze /run/frozen").await?;
    namespace.cue("writer", "writes").await?;
    let message = until(rig, node, "TaskHung", "True").await?;
    for part in ["writer", "writes", namespace.name.as_str()] {
        ensure!(message.contains(part), "no {part} in: {message}");
    }
    let told = namespace.told("the hung task is told", |_| true).await?;
    println!("a hung task: {}", told.note());
    let about = ("writer", pod.uid().unwrap_or_default(), "spec.containers{writes}");
    ensure!(told.reason() == "TaskHung" && told.about() == (about.0, &about.1, about.2), "{told:?}");
    let metrics = node.metrics(METRICS_PORT).await?;
    ensure!(metrics.value("detector_hung_tasks", &[("class", "runtime")]) == Some(0.0), "a pod is no runtime");
    ensure!(metrics.value("detector_hung_tasks", &[("class", "workload")]) >= Some(1.0), "not counted");
    node.run("fsfreeze --unfreeze /run/frozen").await?;
    until(rig, node, "TaskHung", "False").await.map(drop)
}

async fn of_the_runtime(rig: &Rig, node: &Node) -> Result<()> {
    node.run(RUNTIME).await?;
    let message = until(rig, node, "KernelDeadlock", "True").await?;
    ensure!(message.contains("kubelet"), "{message}");
    node.run("fsfreeze --unfreeze /run/frozen").await?;
    until(rig, node, "KernelDeadlock", "False").await.map(drop)
}
