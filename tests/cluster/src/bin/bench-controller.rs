//! What `cargo xtask bench controller` measures of a running controller beside a real API server, one JSON object a figure:
//! `{"what", "figure", "limit", "holds"}`.
//!
//! ```text
//! 5,000 Nodes ─▶ resident ─▶ 5 panics of 100 pods: delay, requests ─▶ 1,000 panics: all are incidents, resident
//! ```

use std::time::Instant;

use anyhow::{Context as _, Result};
use detector_cluster_tests::controller::{Fleet, Incident, Panic, Recording, Replica, Stage, policy, send};
use serde_json::json;

/// Nodes of the cluster.
const NODES: usize = 5_000;

/// Panics whose delay is measured, and pods of each node.
const PANICS: usize = 5;
const PODS: usize = 100;

/// Longest time from the first datagram to the reason on the last pod, in seconds.
const DELAY_LIMIT: f64 = 1.0;

/// Most reads of Leases for a panic, besides those of nodes that died before: each of the node and three others twice while
/// it is renewed once, until two renewals are missed.
const LEASES_LIMIT: usize = 60;

/// Incidents that are open at once.
const INCIDENTS: usize = 1_000;

/// Panics that are sent together.
const TOGETHER: usize = 50;

/// Most resident memory, in bytes.
const MEMORY_LIMIT: u64 = 80_000_000;

fn tell(what: &str, figure: &str, limit: &str, holds: bool) {
    println!("{}", json!({ "what": what, "figure": figure, "limit": limit, "holds": holds }));
}

fn tell_memory(what: &str, replica: &Replica) -> Result<()> {
    let (resident, own) = (replica.resident()?, replica.memory()?);
    let figure = format!("{:.1} MB, {:.1} of it anonymous", resident as f64 / 1e6, own as f64 / 1e6);
    tell(what, &figure, "80 MB", resident <= MEMORY_LIMIT);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    // Whatever may be done is, but that nothing is deleted: pods are needed until the end.
    let stage =
        Stage::set("bench", policy(&json!({ "deletePods": false, "failPods": false, "release": "disabled" }))).await?;
    eprintln!("make {NODES} Nodes");
    let fleet = Fleet::make(&stage.rig, &stage.namespace.name, NODES).await?;
    let replica = stage.start().await?;
    stage.led_by_another("").await?;
    tell_memory(&format!("resident, {NODES} Nodes"), &replica)?;
    delays(&stage, &fleet, &replica).await?;
    incidents(&stage, &fleet, &replica).await?;
    replica.stop().await?;
    stage.clear(fleet).await
}

async fn delays(stage: &Stage, fleet: &Fleet, replica: &Replica) -> Result<()> {
    eprintln!("{PANICS} panics of {PODS} pods");
    let (mut delays, mut requests, mut leases) = (Vec::new(), Vec::new(), Vec::new());
    for node in fleet.members.get(..PANICS).context("there are nodes")? {
        fleet.pods(&stage.namespace.name, node, PODS).await?;
        let panic = Panic::cause(stage, fleet, node, PODS, &[replica]).await?;
        eprintln!("{:?}: {} reads of Leases, {:?}", panic.delay, panic.leases, panic.asked);
        delays.push(panic.delay.as_secs_f64());
        requests.push(panic.requests());
        leases.push(panic.leases);
    }
    delays.sort_by(f64::total_cmp);
    let (median, longest) = (delays[PANICS / 2], delays[PANICS - 1]);
    let what = format!("first datagram to the reason on the last of {PODS} pods, {PANICS} panics");
    let figure = format!("longest {longest:.2} s, median {median:.2} s");
    tell(&what, &figure, "1 s", longest <= DELAY_LIMIT);
    let most = requests.iter().max().copied().unwrap_or_default();
    // The reason and an event for each pod; besides some for node and incident.
    let limit = 3 * PODS;
    tell(&format!("API requests for a panic of {PODS} pods"), &most.to_string(), &limit.to_string(), most <= limit);
    let most = leases.iter().max().copied().unwrap_or_default();
    let what = "reads of Leases for a panic, until it is known that the node is silent";
    tell(what, &most.to_string(), &LEASES_LIMIT.to_string(), most <= LEASES_LIMIT);
    Ok(())
}

async fn incidents(stage: &Stage, fleet: &Fleet, replica: &Replica) -> Result<()> {
    eprintln!("{INCIDENTS} panics");
    let (words, start) = (Recording::named("oom-6.12")?, Instant::now());
    let dying = fleet.members.get(PANICS..INCIDENTS).context("there are nodes")?;
    let mut told = PANICS;
    for some in dying.chunks(TOGETHER) {
        for node in some {
            fleet.silence(node);
            send(node.address, &[replica.netconsole], &words.of(&node.name, &node.boot).datagrams)?;
        }
        told += some.len();
        let there = |all: &[Incident]| all.iter().filter(|one| one.step("Annotate").is_some()).count() >= told;
        stage.incidents.until_all(&format!("{told} panics are told"), there).await?;
    }
    let all = stage.incidents.all().await?;
    let open = all.iter().filter(|incident| incident.text("phase") != "Closed").count();
    eprintln!("{open} open after {:.0} s", start.elapsed().as_secs_f64());
    let rate = format!("{:.0} a second", (INCIDENTS - PANICS) as f64 / start.elapsed().as_secs_f64());
    tell("panics of empty nodes told, one batch of 50 after the other", &rate, "none", true);
    tell_memory(&format!("resident, {NODES} Nodes and {open} open incidents"), replica)
}
