//! A hundred panics at once: within the budget, and the first does not wait for the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::controller::{Effect, Fleet, Incident, Recorder, Recording, Stage, policy, send};
use serde_json::json;

/// Nodes that die, and their pods.
const DYING: usize = 100;
const PODS: usize = 3;

/// Nodes that may be remediated at once.
const BUDGET: usize = 10;

/// Nodes whose last pod has its reason after the last one of the node that died first.
const AFTER_FIRST: usize = DYING * 2 / 3;

/// Requests for each node besides those for its pods: what was heard, what it amounts to, steps and holds with their events.
const FOR_EACH_NODE: usize = 40;

/// Requests for each pod: reason and event, deletion and event, events of holds.
const FOR_EACH_POD: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_panics_at_once_are_told_and_only_as_many_acted_on_as_the_budget_allows() -> Result<()> {
    let budget = json!({ "nodesAtOnce": BUDGET, "nodesPerZone": BUDGET, "nodesPerHour": 1000, "notReadyPercent": 100 });
    let changes = json!({ "failPods": false, "release": "disabled", "budget": budget });
    let stage = Stage::set("many", policy(&changes)).await?;
    let fleet = Fleet::make(&stage.rig, &stage.namespace.name, DYING + 10).await?;
    let dying = fleet.members.get(..DYING).context("there are nodes")?;
    for node in dying {
        fleet.pods(&stage.namespace.name, node, PODS).await?;
    }
    let replica = stage.start().await?;
    stage.led_by_another("").await?;
    let (recorder, audit) = (Recorder::start(&stage.rig).await?, stage.audit()?);
    let words = Recording::named("oom-6.12")?;
    dying.iter().for_each(|node| fleet.silence(node));
    let start = Instant::now();
    for node in dying {
        send(node.address, &[replica.netconsole], &words.of(&node.name, &node.boot).datagrams)?;
    }
    let sent = start.elapsed();
    let settled = |all: &[Incident]| {
        let done = |kind: &str| all.iter().filter(|incident| incident.step(kind) == Some("Done")).count();
        let held = all.iter().filter(|incident| incident.hold("Cordon") == Some("Budget")).count();
        all.len() == DYING && done("Annotate") == DYING && done("DeletePods") == BUDGET && held == DYING - BUDGET
    };
    stage.incidents.until_all("all are told, and as many acted on as may be", settled).await?;
    // The recorder watches by itself: it may be a moment behind.
    recorder.until(&stage.namespace.name, Effect::PodTold, DYING * PODS).await?;
    recorder.until(&stage.namespace.name, Effect::PodDeleting, BUDGET * PODS).await?;

    let mut last: BTreeMap<String, Duration> = BTreeMap::new();
    let (mut cordoned, mut deleting) = (BTreeSet::new(), BTreeSet::new());
    for entry in recorder.of(&stage.namespace.name)? {
        let node = entry.object.split("-pod-").next().unwrap_or_default().to_owned();
        match entry.effect {
            Effect::PodTold => drop(last.insert(node, entry.seen - start)),
            Effect::Cordoned => drop(cordoned.insert(node)),
            Effect::PodDeleting | Effect::PodGone => drop(deleting.insert(node)),
            _ => {}
        }
    }
    assert_eq!(last.len(), DYING);
    assert_eq!((cordoned.len(), &cordoned), (BUDGET, &deleting), "only what is cordoned is deleted from");
    let first = last.get(&dying[0].name).copied().context("the first was told")?;
    let all = last.values().max().copied().unwrap_or_default();
    println!("sent within {sent:?}; reasons on all pods of the first after {first:?}, of all after {all:?}");
    let after = last.values().filter(|at| **at > first).count();
    ensure!(after >= AFTER_FIRST, "the first waited {first:?} for its reasons, longer than all but {after}: {last:?}");
    let counts = audit.counts()?;
    let requests: usize = counts.iter().filter(|(what, _)| *what != "get leases").map(|(_, number)| number).sum();
    println!("{requests} requests, {:.1} for each node of {PODS} pods: {counts:?}", requests as f64 / DYING as f64);
    ensure!(requests <= DYING * (FOR_EACH_NODE + PODS * FOR_EACH_POD), "{counts:?}");
    replica.stop().await?;
    stage.clear(fleet).await
}
