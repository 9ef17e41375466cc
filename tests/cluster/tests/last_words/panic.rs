//! A container overruns its limit on a node that panics then. What each pod, the Node and the incident tell, how soon, what
//! moves elsewhere; and what the node itself finds after its reboot.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{controller::Incident, namespace::all_run};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use tokio::time::Instant;

use crate::{
    mortal::{Mortal, is_open, is_pod_told, is_told},
    times::Times,
    workload::{BATCH, CULPRIT, DATABASE, LOGS, PATIENCE, WEB, Workload, is},
};

/// Until when each pod and the Node carry the reason.
const SOON: Duration = Duration::from_secs(5);

/// Until when no endpoint on the node is ready and the Deployment has another pod. Without us it is 32 s and five minutes.
const MOVED_SOON: Duration = Duration::from_secs(30);

/// The last line of a panic, where the machine stays dead (`panic`, `kernel/panic.c`).
const END: &str = "---[ end Kernel panic";

/// What stands at each pod after a panic: reason of its condition, and what kubectl prints of it once it is failed.
const WORD: &str = "KernelPanic";

/// What became of a panic, and when.
struct Seen {
    named: Result<Instant>,
    pods_told: Instant,
    node_told: Instant,
    endpoints: Instant,
    moved: Instant,
}

/// The node of the workload panics; waits until all of it has moved, and gives the incident's name. `None`: the kernel's
/// netconsole fell silent before its serial console did, so that nobody could hear whom to blame.
pub(crate) async fn is_told_and_its_pods_move(dying: &Mortal, workload: &Workload) -> Result<Option<String>> {
    let here = workload.pods_on(&dying.node).await?;
    ensure!(here.len() >= 5, "only {} pods are on the node", here.len());
    dying.when_watched().await?;
    let charged = workload.charged().await?;
    let panicked = workload.panic().await?;
    let mut times =
        Times::since("A panic, with the controller allowed to act, seconds after the kernel's death", panicked);
    let seen = watch(dying, workload, &here, &mut times).await;
    times.print();
    let seen = seen?;
    let bounds = [
        ("each pod carried the reason", seen.pods_told, SOON),
        ("the Node carried the reason", seen.node_told, SOON),
        ("no endpoint on the node was ready", seen.endpoints, MOVED_SOON),
        ("the Deployment had another pod", seen.moved, MOVED_SOON),
    ];
    for (what, at, bound) in bounds {
        let after = at.duration_since(panicked);
        ensure!(after <= bound, "{what} after {after:?}, which is more than {bound:?}");
    }
    let charges = workload.charged().await?;
    ensure!(charges == charged, "the Job was charged: {charges:?} (failed pods, given up) after {charged:?}");
    ensure!(seen.moved > seen.pods_told, "something was deleted before its reason stood there");
    let incident = dying.incident("it has an incident", |_| true).await?;
    if seen.named.is_err() && is_cut_short(dying, &incident)? {
        return Ok(None);
    }
    seen.named?;
    let table = dying.node.rig().kubectl(&["get", "ki"]).await?;
    println!("{table}");
    let name = incident.name_any();
    let row = table.lines().find(|line| line.starts_with(&name)).context("kubectl shows no such incident")?;
    for word in [dying.node.name(), "OutOfMemory", &suspect(workload)] {
        ensure!(row.contains(word), "there is no {word} in: {row}");
    }
    Ok(Some(name))
}

/// Whether what was heard of the panic lacks its end, though the console has it.
fn is_cut_short(dying: &Mortal, incident: &Incident) -> Result<bool> {
    let console = std::fs::read(&dying.node.facts.console).context("read the console")?;
    let panic =
        String::from_utf8_lossy(&console).rsplit_once("Kernel panic - not syncing").map(|(_, end)| end.to_owned());
    let logs = incident.status["logs"].as_array().into_iter().flatten();
    let heard: Vec<_> = logs.filter_map(|log| log["text"].as_str()).collect();
    Ok(panic.is_some_and(|text| text.contains(END)) && !heard.iter().any(|text| text.contains(END)))
}

/// Name of the container that is to blame.
fn suspect(workload: &Workload) -> String {
    format!("{}/{CULPRIT}/eats", workload.namespace.name)
}

/// Watches all at once, from the panic to the last pod that moved.
async fn watch(dying: &Mortal, workload: &Workload, here: &[Pod], times: &mut Times) -> Result<Seen> {
    let reason = |pod: &Pod| pod.status.as_ref().and_then(|status| status.reason.clone()).unwrap_or_default();
    let blamed = |incident: &Incident| {
        incident.text("cause") == "OutOfMemory" && incident.status["suspect"]["name"] == suspect(workload)
    };
    let opened = async { dying.incident("there is an incident", |_| true).await.map(|_| Instant::now()) };
    let named = async { dying.incident("it names cause and suspect", blamed).await.map(|_| Instant::now()) };
    let node = async { dying.when_node("it carries the reason", is_told).await.map(|_| Instant::now()) };
    let pods = workload.when_each("each pod carries the reason", here, |pod| is_pod_told(pod, "True", WORD));
    let endpoints = workload.when_no_endpoint(PATIENCE);
    let web = workload.when_new("the Deployment has another pod", here, WEB, PATIENCE, |_| true);
    let web_runs = workload.when_new("it runs", here, WEB, PATIENCE, all_run);
    let owned = here.iter().filter(|pod| !is(pod, LOGS)).cloned().collect::<Vec<_>>();
    let failed = workload.when_each("pods are failed", &owned, |pod| reason(pod) == WORD);
    let printed = async { workload.is_printed(&owned, WORD).await.map(|()| Instant::now()) };
    let database = workload.when_new("the StatefulSet's pod runs elsewhere", here, DATABASE, PATIENCE, all_run);
    let batch = workload.when_new("the Job's pod runs elsewhere", here, BATCH, PATIENCE, all_run);
    let (opened, named, node, pods, endpoints, web, web_runs, failed, printed, database, batch) =
        tokio::join!(opened, named, node, pods, endpoints, web, web_runs, failed, printed, database, batch);
    let rows = [
        ("an incident is there", &opened),
        ("the incident names cause and suspect", &named),
        ("the Node carries the reason", &node),
        ("each pod carries the reason", &pods),
        ("no endpoint on the node is ready", &endpoints),
        ("the Deployment's pod is made anew elsewhere", &web),
        ("it runs", &web_runs),
        ("all pods of the node are failed by KernelPanic", &failed),
        ("kubectl get pods printed KernelPanic of each", &printed),
        ("the StatefulSet's pod runs elsewhere", &database),
        ("the Job's pod runs elsewhere", &batch),
    ];
    for (what, at) in rows {
        times.note(what, at.as_ref().ok().copied());
    }
    for at in [opened, web_runs, failed, printed, database, batch] {
        at?;
    }
    Ok(Seen { named, pods_told: pods?, node_told: node?, endpoints: endpoints?, moved: web? })
}

/// The node boots, finds the record of its panic, and all of it is one incident, that one.
pub(crate) async fn comes_back(dying: &mut Mortal, name: &str) -> Result<()> {
    let begun = Instant::now();
    dying.machine.reset().await?;
    dying.machine.thaw().await?;
    dying.when_booted().await?;
    let mut times = Times::since("The node that panicked, seconds after its reset", begun);
    times.now("it is back with another boot");
    let found = |incident: &Incident| incident.has("FoundPanic") && incident.has("OtherBoot");
    let incident = dying.incident("the record of the panic joins it", found).await?;
    times.now("the record of the panic stands in its incident");
    ensure!(incident.name_any() == name, "{} is another incident than {name}", incident.name_any());
    ensure!(incident.text("cause") == "OutOfMemory", "it is no panic any more: {incident:#?}");
    dying.when_node("it takes pods again", is_open).await?;
    // The patch of the Node comes before the journal's word that it is done.
    let taken_back = |one: &Incident| ["Untaint", "Uncordon"].iter().all(|step| one.step(step) == Some("Done"));
    let back = |one: &Incident| one.text("phase") != "Dead" && taken_back(one);
    let incident = dying.incident("the node is back, and what was done to it is taken back", back).await?;
    times.now("it takes pods again");
    times.print();
    println!("{name}: {}", incident.text("message"));
    let evidence: Vec<_> = incident.evidence().filter_map(|one| one["id"].as_str()).collect();
    println!("evidence: {}", evidence.join(", "));
    Ok(())
}
