//! SIGKILL of the leader at every step: what it began is finished by another, with one effect.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use detector_cluster_tests::{
    controller::{Effect, Fleet, Gate, Incident, Member, REPORTER, Recorder, Recording, Replica, Stage, policy, send},
    wait,
};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::json;

/// Pods of the node that dies.
const PODS: usize = 12;

/// Longest time without a leader after one was killed: a Lease of 15 s, a look each 2 s with as much chance, and a slow machine.
const LEADERLESS: Duration = Duration::from_secs(40);

/// A step, and the state in which the journal has it.
type Moment = (&'static str, &'static str);

/// Two replicas, of which the leader is killed again and again.
struct Pair {
    stage: Stage,
    gate: Gate,
    replicas: Vec<Replica>,
}

impl Pair {
    async fn start(stage: Stage) -> Result<Self> {
        let gate = stage.gate().await?;
        let replicas = vec![stage.start_behind(&gate).await?, stage.start_behind(&gate).await?];
        stage.led_by_another("").await?;
        Ok(Self { stage, gate, replicas })
    }

    fn ports(&self) -> Vec<u16> {
        self.replicas.iter().map(|replica| replica.netconsole).collect()
    }

    /// Kills the leader as soon as the journal has the step in that state. The gate was open until then: nothing that the
    /// leader wants to do next has happened.
    async fn kill_at(&mut self, node: &Member, (kind, state): Moment) -> Result<()> {
        let leader = self.stage.led_by_another("").await?;
        let at = self.replicas.iter().position(|replica| replica.pod == leader).context("the leader is one of ours")?;
        let replica = self.replicas.swap_remove(at);
        let (mut killed, mut seen) = (Ok(()), String::new());
        let what = format!("{kind} is {state}");
        let reached = |incident: &Incident| {
            let Some(now) = incident.step(kind).filter(|now| *now == state || *now == "Done") else { return false };
            killed = replica.kill_now();
            now.clone_into(&mut seen);
            true
        };
        self.stage.incidents.until(&node.name, &what, reached).await?;
        killed?;
        replica.killed().await?;
        ensure!(
            seen == state,
            "{kind} was {seen} when the leader was killed that should not come further than {state}"
        );
        Ok(())
    }

    /// Lets the other lead without waiting for the Lease of the dead one, and starts a new other.
    async fn go_on(&mut self) -> Result<()> {
        self.stage.free_lease().await?;
        let fresh = self.stage.start_behind(&self.gate).await?;
        self.replicas.push(fresh);
        Ok(())
    }

    async fn end(self) -> Result<Stage> {
        for replica in self.replicas {
            replica.stop().await?;
        }
        Ok(self.stage)
    }
}

/// Before the first effect of each of these steps, and after its last.
fn moments(kinds: &[&'static str]) -> Vec<Moment> {
    kinds.iter().flat_map(|kind| ["Intended", "Done"].map(|state| (*kind, state))).collect()
}

/// Has `begin` happen, and kills the leader at each moment.
async fn kill_at_each(
    pair: &mut Pair,
    node: &Member,
    moments: &[Moment],
    begin: impl AsyncFnOnce(&Pair) -> Result<()>,
) -> Result<()> {
    pair.gate.open_until(moments.first().copied());
    begin(pair).await?;
    for (number, moment) in moments.iter().enumerate() {
        pair.kill_at(node, *moment).await?;
        pair.gate.open_until(moments.get(number + 1).copied());
        pair.go_on().await?;
    }
    Ok(())
}

/// What an event is about: reason, object and how often it is told.
fn about(event: &Event) -> (String, String, i64) {
    let object = event.regarding.as_ref().and_then(|object| object.name.clone()).unwrap_or_default();
    let times = event.series.as_ref().map_or(1, |series| i64::from(series.count));
    (event.reason.clone().unwrap_or_default(), object, times)
}

/// Waits until each step is told of the Node and the incident, and those in `of_pods` of each pod; and each only once.
async fn ensure_told_once(stage: &Stage, node: &Member, reasons: &[&str], of_pods: &[&str]) -> Result<()> {
    let incident = stage.incidents.of(&node.name).await?.first().context("there is an incident")?.name_any();
    let of_both = reasons.iter().flat_map(|reason| [&node.name, &incident].map(|object| (*reason, object.clone())));
    let pods = (0..PODS).map(|number| format!("{}-pod-{number}", node.name));
    let of_each = pods.flat_map(|pod| of_pods.iter().map(move |reason| (*reason, pod.clone())));
    let wanted: Vec<_> = of_both.chain(of_each).collect();
    let events: Api<Event> = Api::all(stage.rig.client.clone());
    let ours = ListParams::default().fields(&format!("reportingController={REPORTER}"));
    let mut missing = Vec::new();
    let all_told = |events: &[Event]| {
        let told: BTreeSet<_> = events.iter().map(|event| (about(event).0, about(event).1)).collect();
        let is_missing = |(reason, object): &&(&str, String)| !told.contains(&((*reason).to_owned(), object.clone()));
        missing = wanted.iter().filter(is_missing).cloned().collect();
        missing.is_empty()
    };
    let told = wait::all(&events, &ours, "each step is told of each object", wait::PATIENCE, all_told).await;
    let told = told.map_err(|_| anyhow!("these are not told: {missing:?}"))?;
    let mut all: Vec<_> = told.iter().map(about).filter(|(_, object, _)| object.starts_with(&node.name)).collect();
    all.sort();
    for pair in all.windows(2) {
        let same = pair[0].0 == pair[1].0 && pair[0].1 == pair[1].1;
        ensure!(!same || pair[0].0 == "StepHeld", "told twice: {pair:?}");
    }
    for (reason, object, times) in all {
        ensure!(times == 1 || reason == "StepHeld", "{reason} of {object} is told {times} times");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_at_each_step_leaves_one_effect_of_each() -> Result<()> {
    let stage = Stage::set("killed", policy(&json!({}))).await?;
    let fleet = Fleet::make(&stage.rig, &stage.namespace.name, 5).await?;
    let node = fleet.members[0].clone();
    fleet.pods(&stage.namespace.name, &node, PODS).await?;
    let recorder = Recorder::start(&stage.rig).await?;
    let mut pair = Pair::start(stage).await?;
    fleet.silence(&node);
    fleet.give_up(&node, Duration::ZERO).await?;
    let words = Recording::named("oom-6.12")?.of(&node.name, &node.boot).datagrams;
    let ends = moments(&["Cordon", "Annotate", "DeletePods", "FailPods", "TaintOutOfService"]);
    kill_at_each(&mut pair, &node, &ends, async |pair| send(node.address, &pair.ports(), &words)).await?;
    let returns = moments(&["Retract", "Untaint", "Uncordon"]);
    let back = async |_: &Pair| fleet.revive(&node, &node.next_boot(), Duration::ZERO, None).await;
    kill_at_each(&mut pair, &node, &returns, back).await?;

    // Its watch may lag behind that of incidents.
    recorder.until(&node.name, Effect::Uncordoned, 1).await?;
    let counts = recorder.counts(&node.name)?;
    let once = [
        Effect::Cordoned,
        Effect::NodeTold,
        Effect::Tainted,
        Effect::NodeCleared,
        Effect::Untainted,
        Effect::Uncordoned,
    ];
    for effect in once {
        assert_eq!(counts.get(&effect), Some(&(1, 1)), "{effect:?}: {counts:?}");
    }
    for effect in [Effect::PodTold, Effect::PodDeleting, Effect::PodFailed] {
        assert_eq!(counts.get(&effect), Some(&(1, PODS)), "{effect:?}: {counts:?}");
    }
    assert_eq!(pair.stage.incidents.of(&node.name).await?.len(), 1);
    let to_pods = ["KernelCrash", "PodDeleted", "PodFailed"];
    let taken = ["NodeCordoned", "KernelCrash", "PodDeleted", "PodFailed", "NodeOutOfService"];
    let taken_back = ["KernelCrashOver", "NodeUntainted", "NodeUncordoned"];
    ensure_told_once(&pair.stage, &node, &[taken.as_slice(), &taken_back].concat(), &to_pods).await?;

    // Without help: the Lease of a dead leader runs out.
    let (leader, start) = (pair.stage.led_by_another("").await?, Instant::now());
    let at = pair.replicas.iter().position(|replica| replica.pod == leader).context("the leader is one of ours")?;
    let replica = pair.replicas.swap_remove(at);
    replica.kill_now()?;
    replica.killed().await?;
    pair.stage.led_by_another(&leader).await?;
    println!("another leads {:.1} s after the leader was killed", start.elapsed().as_secs_f64());
    ensure!(start.elapsed() < LEADERLESS, "{:?}", start.elapsed());
    pair.end().await?.clear(fleet).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_at_the_last_steps_deletes_each_pod_and_the_node_once() -> Result<()> {
    let steps = json!({ "failPods": false, "release": "forceDelete", "deleteNode": true });
    let stage = Stage::set("deleted", policy(&steps)).await?;
    let fleet = Fleet::make(&stage.rig, &stage.namespace.name, 5).await?;
    let node = fleet.members[0].clone();
    fleet.pods(&stage.namespace.name, &node, PODS).await?;
    let recorder = Recorder::start(&stage.rig).await?;
    let mut pair = Pair::start(stage).await?;
    fleet.silence(&node);
    // Longer ago than the reboot window.
    fleet.give_up(&node, Duration::from_secs(300)).await?;
    let words = Recording::named("oom-6.12")?.of(&node.name, &node.boot).datagrams;
    let ends = moments(&["ForceDeletePods", "DeleteNode"]);
    kill_at_each(&mut pair, &node, &ends, async |pair| send(node.address, &pair.ports(), &words)).await?;
    let incident = pair.stage.incidents.until(&node.name, "its Node is deleted", |incident| {
        incident.step("DeleteNode") == Some("Done") && incident.has("NodeDeleted") && incident.text("phase") == "Closed"
    });
    incident.await?;
    recorder.until(&node.name, Effect::PodGone, PODS).await?;
    recorder.until(&node.name, Effect::NodeGone, 1).await?;
    let counts = recorder.counts(&node.name)?;
    assert_eq!(counts.get(&Effect::PodGone), Some(&(1, PODS)), "{counts:?}");
    assert_eq!(counts.get(&Effect::NodeGone), Some(&(1, 1)), "{counts:?}");
    let to_pods = ["KernelCrash", "PodDeleted", "PodForceDeleted"];
    let taken = ["NodeCordoned", "KernelCrash", "PodDeleted", "PodForceDeleted", "NodeDeleted"];
    ensure_told_once(&pair.stage, &node, &taken, &to_pods).await?;
    pair.end().await?.clear(fleet).await
}
