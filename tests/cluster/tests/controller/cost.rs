//! What one panic costs the API server: as much as there are pods, nothing for the size of the cluster; and a few reads of
//! Leases until it is known that the node is silent.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::controller::{Asked, Fleet, Panic, Stage, policy};
use serde_json::json;

/// Pods of the two nodes that die.
const FEW: usize = 5;
const MANY: usize = 50;

/// Requests for each pod: its reason, and an event.
const FOR_EACH: f64 = 2.0;

/// Nodes of the cluster.
const NODES: usize = 40;

/// Others whose Leases are read, to know whether it is us who see nothing.
const SAMPLES: usize = 3;

/// Reads of Leases for a panic: each of the dead node and the samples twice while it is renewed once, until two renewals are
/// missed, and those before a step. The silence may have begun with a renewal that was on its way, and be told by a sample's
/// next read.
const READS: usize = 8 * (1 + SAMPLES) + 6;

/// Lists of the pods of a node that dies: one, and one more if somebody else wrote to the incident meanwhile.
const LISTS: usize = 2;

/// Whether a request is about all objects of a kind.
fn of_all(ask: &Asked) -> bool {
    ask.verb == "list" && !ask.uri.contains("fieldSelector")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_requests_in_proportion_to_the_pods_concerned() -> Result<()> {
    let stage =
        Stage::set("cost", policy(&json!({ "deletePods": false, "failPods": false, "release": "disabled" }))).await?;
    let fleet = Fleet::make(&stage.rig, &stage.namespace.name, NODES).await?;
    let whole_life = stage.audit()?;
    let replica = stage.start().await?;
    stage.led_by_another("").await?;
    let started = stage.audit()?;
    let mut costs = Vec::new();
    for (node, pods) in fleet.members.iter().zip([FEW, MANY]) {
        fleet.pods(&stage.namespace.name, node, pods).await?;
        let panic = Panic::cause(&stage, &fleet, node, pods, &[&replica]).await?;
        println!(
            "{pods} pods: {:?} to the last reason, {} reads of Leases, {:?}",
            panic.delay, panic.leases, panic.asked
        );
        ensure!((1..=READS).contains(&panic.leases), "{} reads of Leases for {pods} pods", panic.leases);
        costs.push(panic.requests() as f64);
    }
    let [few, many] = costs.as_slice() else { anyhow::bail!("two panics") };
    let slope = (many - few) / (MANY - FEW) as f64;
    ensure!(slope <= FOR_EACH + 0.2, "{slope:.2} requests for each further pod");
    let asked = started.asked()?;
    let whole: Vec<_> = asked.iter().filter(|ask| of_all(ask)).map(|ask| ask.resource.as_str()).collect();
    ensure!(whole.is_empty(), "asked for all objects of a kind: {whole:?}");
    // A server may fail to stream what is there (`sendInitialEvents`); then it is listed and watched from there.
    let whole_life = whole_life.asked()?;
    let watches = whole_life.iter().filter(|ask| ask.verb == "watch" && ask.resource == "nodes");
    let (streams, watches): (Vec<_>, Vec<_>) =
        watches.map(|ask| ask.uri.as_str()).partition(|uri| uri.contains("sendInitialEvents"));
    ensure!(streams.len() <= 1 && watches.len() <= 1, "Nodes are watched once: {streams:?}, {watches:?}");
    ensure!(!streams.is_empty() || !watches.is_empty(), "Nodes are watched");
    let listed = asked.iter().filter(|ask| ask.verb == "list" && ask.resource == "pods");
    let listed: Vec<_> = listed.map(|ask| ask.uri.as_str()).collect();
    let read: BTreeSet<_> = asked.iter().filter(|ask| ask.is_of_node_lease()).map(|ask| ask.name.as_str()).collect();
    ensure!(read.len() <= 2 + 2 * SAMPLES, "of two dead nodes and a few others: {read:?}");
    let strangers = fleet
        .members
        .iter()
        .skip(2)
        .find(|node| asked.iter().any(|ask| ask.resource == "nodes" && ask.name == node.name));
    ensure!(strangers.is_none(), "asked for a node that is well: {strangers:?}");
    for node in &fleet.members[..2] {
        let own = listed.iter().filter(|uri| uri.contains(&format!("spec.nodeName%3D{}&", node.name))).count();
        ensure!((1..=LISTS).contains(&own), "the pods of {} are listed {own} times: {listed:?}", node.name);
    }
    ensure!(listed.len() <= 2 * LISTS, "others' pods are listed: {listed:?}");
    replica.stop().await.context("stop")?;
    stage.clear(fleet).await
}
