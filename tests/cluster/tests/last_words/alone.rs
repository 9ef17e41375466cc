//! The same panic in a cluster without us: what to compare with.

use std::time::Duration;

use anyhow::{Result, ensure};
use detector_cluster_tests::namespace::all_run;
use kube::ResourceExt;
use tokio::time::Instant;

use crate::{
    mortal::{Mortal, is_lost, is_told},
    stage,
    times::Times,
    workload::{DATABASE, PATIENCE, WEB, Workload},
};

/// How long a pod stays on a node that is gone, unless it says otherwise: 300 s from when it is given up
/// (`DefaultTolerationSeconds`); and some for its successor.
const MOVES: Duration = Duration::from_secs(500);

#[tokio::test]
#[ignore = "takes eight minutes and shows nothing of ours: with --full"]
async fn without_us_nothing_moves_for_five_minutes_and_nothing_says_why() -> Result<()> {
    let rig = stage::alive().await?;
    let dying = Mortal::of(&rig, false).await?;
    let workload = Workload::start(&rig, "alone", &dying.node).await?;
    let here = workload.pods_on(&dying.node).await?;
    let panicked = workload.panic().await?;
    let mut times = Times::since("The same panic without us, seconds after the kernel's death", panicked);
    let lost = async { dying.when_node("it is given up", is_lost).await.map(|_| Instant::now()) };
    let endpoints = workload.when_no_endpoint(PATIENCE);
    let web = workload.when_new("the Deployment's pod runs elsewhere", &here, WEB, MOVES, all_run);
    let (lost, endpoints, web) = tokio::join!(lost, endpoints, web);
    times.note("the control plane gives the node up", Some(lost?));
    times.note("no endpoint on the node is ready", Some(endpoints?));
    times.note("the Deployment's pod runs elsewhere", Some(web?));
    let pods = workload.pods().list(&kube::api::ListParams::default()).await?.items;
    let old = here.iter().find(|pod| pod.name_any() == DATABASE).and_then(ResourceExt::uid);
    let same = pods.iter().any(|pod| pod.name_any() == DATABASE && pod.uid() == old);
    ensure!(same, "the StatefulSet's pod moved without us");
    times.note("the StatefulSet's pod runs elsewhere", None);
    ensure!(!pods.iter().any(is_told), "somebody told the reason");
    times.note("pods carry the reason", None);
    times.print();
    Ok(())
}
