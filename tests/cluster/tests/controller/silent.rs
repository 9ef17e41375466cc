//! Deaths without words: what remains possible, and what the return of the node tells of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::controller::{Asked, Effect, Fleet, Incident, Life, Member, Recorder, Stage, policy};
use serde_json::{Value, json};

use super::told::previous_boot;

/// What remains possible of a node with netconsole that went silent.
const OPEN: [&str; 5] = ["Power", "Hang", "Network", "Hypervisor", "Kubelet"];

/// Reads of a Lease after which it would have been called stale twice over: one each 1.25 s, stale after 5.5 s.
const READS: usize = 11;

/// A way to be back, and what it tells.
struct Return {
    /// Another boot.
    reboots: bool,
    /// Its clock stood still while it was silent.
    stood: bool,
    /// What the agent found: reason and end of the sentence.
    found: Option<(&'static str, &'static str)>,
    cause: &'static str,
    possible: &'static [&'static str],
}

/// The rows of `docs`: stall or network, power or reset, shutdown, panic that was not heard.
fn returns() -> [Return; 6] {
    let panic = "in a kernel panic, by pstore (erst): Kernel panic - not syncing: sysrq triggered crash | sysrq: Trigger a crash";
    let unclean = ("UncleanShutdown", "without a shutdown, by boot id");
    let clean = ("PreviousBootEndedInOrder", "in order, by boot id");
    let same = |stood, possible| Return { reboots: false, stood, found: None, cause: "Stall", possible };
    let other = |found, cause, possible| Return { reboots: true, stood: false, found, cause, possible };
    [
        same(false, &["Network", "Kubelet"]),
        same(true, &["Hang", "Hypervisor"]),
        other(None, "Reset", &["Power", "Hang", "Hypervisor"]),
        other(Some(unclean), "Reset", &["Power", "Hang", "Hypervisor"]),
        other(Some(clean), "Shutdown", &[]),
        other(Some(("KernelPanic", panic)), "SysRq", &[]),
    ]
}

fn found(member: &Member, (reason, end): (&str, &str)) -> Value {
    previous_boot(reason, &format!("The boot before ({}) ended {end}", member.boot))
}

fn open(incident: &Incident) -> bool {
    incident.text("cause") == "Silent" && incident.has("LeaseStale") && incident.has("ReadyUnknown")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_went_silent_leaves_open_what_its_return_tells() -> Result<()> {
    let stage = Stage::set("silent", policy(&json!({ "release": "forceDelete", "deleteNode": true }))).await?;
    let fleet = Fleet::make(&stage.rig, &stage.namespace.name, 12).await?;
    let returns = returns();
    let lost: Vec<_> = fleet.members.iter().take(returns.len()).collect();
    for node in &lost {
        fleet.pods(&stage.namespace.name, node, 2).await?;
    }
    let recorder = Recorder::start(&stage.rig).await?;
    let replica = stage.start().await?;
    for node in &lost {
        fleet.silence(node);
        // Long ago: not even the reboot window keeps a silent node from being deleted.
        fleet.give_up(node, Duration::from_secs(600)).await?;
    }
    let silenced = tokio::time::Instant::now();
    for node in &lost {
        let incident = stage.incidents.until(&node.name, "it is silent", open).await?;
        assert_eq!(incident.possible(), OPEN, "{}", node.name);
        assert_eq!(incident.text("phase"), "Suspected", "silence alone proves no death");
        let written = |incident: &Incident| incident.step("Annotate") == Some("Done");
        stage.incidents.until(&node.name, "its pods have the reason", written).await?;
        let held = |incident: &Incident| incident.hold("DeletePods").is_some();
        let incident = stage.incidents.until(&node.name, "deletion is held", held).await?;
        assert_eq!(incident.hold("DeletePods"), Some("NoCorroboration"));
        assert_eq!(incident.steps(), ["Cordon", "Annotate"], "{}", node.name);
    }
    for (node, back) in lost.iter().zip(&returns) {
        let boot = if back.reboots { node.next_boot() } else { node.boot.clone() };
        let lag = if back.stood { silenced.elapsed() } else { Duration::ZERO };
        fleet.revive(node, &boot, lag, back.found.map(|end| found(node, end))).await?;
    }
    for (node, back) in lost.iter().zip(&returns) {
        let what = format!("it is {} with {:?}", back.cause, back.possible);
        let told = |incident: &Incident| incident.text("cause") == back.cause && incident.possible() == back.possible;
        let incident = stage.incidents.until(&node.name, &what, told).await?;
        let over = |incident: &Incident| incident.step("Uncordon") == Some("Done");
        stage.incidents.until(&node.name, "its cordon is taken back", over).await?;
        println!("{}: {}", node.name, incident.text("message"));
    }
    // The recorder watches by itself: it may be a moment behind.
    recorder.until(&stage.namespace.name, Effect::Uncordoned, returns.len()).await?;
    let all = recorder.counts(&stage.namespace.name)?;
    for effect in [Effect::PodDeleting, Effect::PodFailed, Effect::PodGone, Effect::Tainted, Effect::NodeGone] {
        ensure!(!all.contains_key(&effect), "{effect:?} after a silence: {all:?}");
    }
    for effect in [Effect::Cordoned, Effect::Uncordoned] {
        assert_eq!(all.get(&effect), Some(&(1, returns.len())), "{effect:?}: {all:?}");
    }
    assert_eq!(stage.incidents.all().await?.len(), returns.len(), "one death is one incident");
    replica.stop().await?;
    stage.clear(fleet).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_sees_no_living_node_opens_no_incident() -> Result<()> {
    let stage = Stage::set("blind", policy(&json!({}))).await?;
    let fleet = Fleet::make(&stage.rig, &stage.namespace.name, 6).await?;
    let (lost, others) = fleet.members.split_first().context("there are nodes")?;
    let replica = stage.start().await?;
    let audit = stage.audit()?;
    fleet.heart.set_all(Life::Silent);
    fleet.give_up(lost, Duration::ZERO).await?;
    let reads = || -> Result<usize> {
        let asked = audit.asked()?;
        let of_it = |ask: &&Asked| ask.resource == "leases" && ask.name == lost.name;
        Ok(asked.iter().filter(of_it).count())
    };
    replica.wait_for("its Lease was read often enough", |_| reads().is_ok_and(|reads| reads >= READS)).await?;
    let opened = stage.incidents.all().await?;
    ensure!(opened.is_empty(), "blind, and yet: {opened:#?}");
    // It is the others that make the difference.
    for other in others {
        fleet.heart.set(&other.name, Life::Beats(Duration::ZERO));
    }
    stage.incidents.until(&lost.name, "it is silent", open).await?;
    assert_eq!(stage.incidents.all().await?.len(), 1);
    replica.stop().await?;
    stage.clear(fleet).await
}
