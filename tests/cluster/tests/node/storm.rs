//! A storm of kills in one pod costs few writes, loses nothing, and delays no other pod's event.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use detector_cluster_tests::{Metrics, Namespace, Node, Rig, agent::METRICS_PORT, eater, wait};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;
use tokio::time::Instant;

/// Kills of the storm.
const KILLS: u32 = 1000;

/// How long they may take in a guest.
const STORM_PATIENCE: Duration = Duration::from_secs(480);

/// Writes of one series that are allowed at once, and time until one more is: `events.podBudget`, of whose burst half is kept
/// for other first events of the pod.
const BURST: u64 = 3;
const EVERY: Duration = Duration::from_secs(60);

/// How long after the kernel's deed a watch sees the other pod's event, in seconds.
const PROMPT: f64 = 2.0;

/// Other pods with which that is tried: a machine that stands still for as long says nothing about the agent.
const TRIES: usize = 3;

/// Most of the memory is taken, so that a child reaches the limit with its first pages: touching them is what takes a
/// guest time. It is a copy of the shell, which doubles a text: starting a program would cost more than the kill.
const STORM: &str = "mkfifo /tmp/cue; dd if=/dev/zero of=/dev/shm/full bs=1M count=44; read word < /tmp/cue
    n=0; while [ $n -lt KILLS ]; do (x=0123456789abcdef; while true; do x=$x$x; done); n=$((n + 1)); done
    exec sleep 100000";

#[tokio::test]
async fn a_storm_in_one_pod_costs_few_writes_and_delays_no_other() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let node = rig.node_with(true)?;
    let (stormy, calm) = (rig.namespace("storm").await?, rig.namespace("calm").await?);
    let storm = eater::shell(&rig, "storm", &STORM.replace("KILLS", &KILLS.to_string()));
    stormy.running_pod("storm", json!({ "nodeName": node.name(), "containers": [storm] })).await?;
    let names: Vec<_> = (1..=TRIES).map(|number| format!("calm-{number}")).collect();
    for name in &names {
        let container = eater::on_cue(&rig, "calm");
        calm.running_pod(name, json!({ "nodeName": node.name(), "containers": [container] })).await?;
    }
    let clock = node.clock().await?;
    let begun = Instant::now();
    let writes = tokio::spawn(count_writes(stormy.api(), begun));
    stormy.cue("storm", "storm").await?;
    until_killed(&node, &stormy, 50.0).await?;
    let mut prompt = false;
    for name in &names {
        calm.cue(name, "calm").await?;
        let of_pod = |event: &Event| event.regarding.as_ref().and_then(|about| about.name.as_ref()) == Some(name);
        let told = calm.told("the other pod's kill is told", of_pod).await?;
        let (delay, so_far) = (told.delay(clock)?, killed(&node.metrics(METRICS_PORT).await?, &stormy));
        println!(
            "amid a storm ({so_far} kills so far): event seen {delay:.3} s after the kill (± {:.3} s)",
            clock.doubt
        );
        assert!(so_far < f64::from(KILLS), "the storm was over before");
        prompt = delay < PROMPT + clock.doubt;
        if prompt {
            break;
        }
    }
    assert!(prompt, "more than {PROMPT} s after the kill, each time");
    until_killed(&node, &stormy, f64::from(KILLS)).await?;
    let took = begun.elapsed();
    let (written, told_after) = writes.await.context("count writes")??;
    println!("{KILLS} kills in {took:?}: {written} writes, all told after {told_after:?}");
    let allowed = BURST + 1 + told_after.as_secs() / EVERY.as_secs();
    assert!(written as u64 <= allowed, "{written} writes, {allowed} are allowed");
    Ok(())
}

/// Kills of a namespace's pods that the agent counts.
fn killed(metrics: &Metrics, namespace: &Namespace) -> f64 {
    metrics.sum("detector_container_oom_kills_total", &[("namespace", &namespace.name)])
}

async fn until_killed(node: &Node, namespace: &Namespace, wanted: f64) -> Result<()> {
    let is_reached = |metrics: &Metrics| killed(metrics, namespace) >= wanted;
    let what = format!("{wanted} processes are killed");
    node.wait_for_metrics(METRICS_PORT, &what, STORM_PATIENCE, is_reached).await.map(drop)
}

/// Counts the versions of the storm's events until they have told all kills, and says when that was.
async fn count_writes(events: Api<Event>, begun: Instant) -> Result<(usize, Duration)> {
    let mut versions = BTreeSet::new();
    let of_agent = ListParams::default().fields("reportingController=detector.dev/agent");
    let what = "all kills of the storm are told";
    let all = wait::all(&events, &of_agent, what, STORM_PATIENCE + EVERY, |events| {
        versions.extend(events.iter().filter_map(ResourceExt::resource_version));
        let count = |event: &Event| event.series.as_ref().map_or(1, |series| series.count);
        events.iter().map(count).sum::<i32>() >= KILLS as i32
    });
    let all = all.await?;
    anyhow::ensure!(all.len() == 1, "a storm in one container is one series: {all:#?}");
    Ok((versions.len(), begun.elapsed()))
}
