//! A kill that Kubernetes does not see is told of its pod, at once and with its names; a container that goes down as a whole
//! is told once.

use anyhow::{Context as _, Result};
use detector_cluster_tests::{
    Metrics, Namespace, Node, Rig, Told,
    agent::METRICS_PORT,
    eater::{self, LIMIT, PROCESS},
    node::{CALM, cgroup_number},
    wait,
};
use k8s_openapi::api::{
    core::v1::{ContainerStatus, Pod},
    events::v1::Event,
};
use kube::ResourceExt as _;
use serde_json::json;

/// How long after the kernel's deed a watch sees the event, in seconds.
const PROMPT: f64 = 2.0;

/// Pods with which that is tried: a machine that stands still for as long says nothing about the agent.
const TRIES: usize = 3;

/// Kills of a container.
const KILLS: &str = "detector_container_oom_kills_total";

/// The same by process and limit.
const BY: &str = "detector_container_oom_kills_by_total";

fn status(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// The series of a container.
fn kills(metrics: &Metrics, namespace: &Namespace, container: &str) -> Option<f64> {
    metrics.value(KILLS, &[("namespace", &namespace.name), ("container", container)])
}

/// Has a child of a new pod killed; gives the pod, its event, and how long after the kill that was seen, besides the doubt.
async fn killed_child(node: &Node, namespace: &Namespace, name: &str) -> Result<(Pod, Told, f64)> {
    let spec = json!({ "nodeName": node.name(), "containers": [eater::on_cue(namespace.rig(), "fpm")] });
    let pod = namespace.running_pod(name, spec).await?;
    let labels = [("namespace", namespace.name.as_str()), ("pod", name), ("container", "fpm")];
    let is_zero = |metrics: &Metrics| metrics.value(KILLS, &labels) == Some(0.0);
    node.wait_for_metrics(METRICS_PORT, "the container has a series of zero", wait::PATIENCE, is_zero).await?;
    let clock = node.clock().await?;
    namespace.cue(name, "fpm").await?;
    let of_pod = |event: &Event| event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name);
    let told = namespace.told("the killed child is told", of_pod).await?;
    let delay = told.delay(clock)?;
    println!("a killed child: event seen {delay:.3} s after the kill (± {:.3} s)", clock.doubt);
    Ok((pod, told, delay - clock.doubt))
}

#[tokio::test]
async fn a_killed_child_is_told_of_its_pod_at_once_while_the_container_lives_on() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let node = rig.node_with(true)?;
    let namespace = rig.namespace("child").await?;
    let mut name = "php".to_owned();
    let (mut pod, mut told, mut delay) = killed_child(&node, &namespace, &name).await?;
    for number in 2..=TRIES {
        if delay < PROMPT {
            break;
        }
        name = format!("php-{number}");
        (pod, told, delay) = killed_child(&node, &namespace, &name).await?;
    }
    assert!(delay < PROMPT, "{delay} s after the kill, each time");
    assert_eq!(told.reason(), "ProcessOOMKilled");
    assert_eq!(told.about(), (name.as_str(), pod.uid().unwrap_or_default().as_str(), "spec.containers{fpm}"));
    for part in [PROCESS, "container", LIMIT] {
        assert!(told.note().contains(part), "no {part} in: {}", told.note());
    }
    let metrics = node.metrics(METRICS_PORT).await?;
    let labels = [("namespace", namespace.name.as_str()), ("pod", name.as_str()), ("container", "fpm")];
    let by = [&labels[..], &[("process", "child"), ("limit", "container")]].concat();
    assert_eq!((metrics.value(KILLS, &labels), metrics.value(BY, &by)), (Some(1.0), Some(1.0)));
    let now = namespace.api::<Pod>().get(&name).await?;
    let status = status(&now).context("no status of a container")?;
    assert_eq!((status.restart_count, status.ready), (0, true));
    let described = rig.kubectl(&["--namespace", &namespace.name, "describe", "pod", &name]).await?;
    assert!(described.contains("ProcessOOMKilled"), "{described}");
    Ok(())
}

#[tokio::test]
async fn a_group_kill_is_one_event_with_all_victims_and_its_series_outlives_the_restart() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let _calm = CALM.read().await;
    let node = rig.node_with(false)?;
    let namespace = rig.namespace("group").await?;
    // A shell would become the last command of its script.
    let script = "sleep 100000 & sleep 100001 & mkfifo /tmp/cue; read word < /tmp/cue; tail /dev/zero; true";
    let spec = json!({ "nodeName": node.name(), "containers": [eater::shell(&rig, "app", script)] });
    let pod = namespace.running_pod("group", spec).await?;
    let id = status(&pod).and_then(|status| status.container_id.clone()).context("a container without id")?;
    let cgroup = node.cgroup(&id).await?;
    let clock = node.clock().await?;
    namespace.cue("group", "app").await.ok();
    let told = namespace.told("the group kill is told", |_| true).await?;
    println!("a group kill: event seen {:.3} s after the kill (± {:.3} s)", told.delay(clock)?, clock.doubt);
    assert_eq!(told.reason(), "ContainerOOMKilled");
    assert_eq!(told.about(), ("group", pod.uid().unwrap_or_default().as_str(), "spec.containers{app}"));
    let pods = namespace.api::<Pod>();
    let is_back =
        |pod: Option<&Pod>| pod.and_then(status).is_some_and(|status| status.restart_count >= 1 && status.ready);
    wait::until(&pods, "group", "the container runs again", wait::POD_PATIENCE, is_back).await?;
    // Once the shell is dead, which is the first process of its pid namespace, the sleeps die with it, and the shell that gave
    // the cue may live still: how many the OOM killer came to, the kernel's own account tells, that of the pod, which outlives
    // the container's. It has the first victim twice, unless that was gone by the second time.
    let account = node.run(&format!("cat \"$(dirname {cgroup})\"/memory.events")).await?;
    let metrics = node.metrics(METRICS_PORT).await?;
    let victims = kills(&metrics, &namespace, "app").context("the series is gone")? as u64;
    let twice = cgroup_number(&account, "oom_kill")?.checked_sub(victims).context("more than the kernel killed")?;
    assert!(victims >= 2 && twice <= 1, "{victims} by the series, {account}");
    assert!(told.note().contains(&format!(" {victims} processes of container app at once")), "{}", told.note());
    let events = namespace.all_told().await?;
    assert_eq!(events.len(), 1, "{events:#?}");
    assert!(events.iter().all(|event| event.series.is_none()), "{events:#?}");
    Ok(())
}
