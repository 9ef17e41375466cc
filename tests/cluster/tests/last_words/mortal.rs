//! A node that dies: its machine, its object, and the incident of the boot that ended.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{
    Machine, Metrics, Node, Rig,
    agent::METRICS_PORT,
    controller::{INCIDENT_ANNOTATION, Incident, POD_CONDITION, REASON_ANNOTATION},
    node::is_ready,
    wait,
};
use k8s_openapi::{
    api::core::v1::{self, Pod},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use crate::workload::PATIENCE;

/// How long a node may take to boot and be ready: a guest of the rig takes 40 to 100 s, and minutes on a busy machine.
const BOOT_PATIENCE: Duration = Duration::from_secs(600);

/// How long a node that lives may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Labels of the probe that tells of a panic, as it is attached where a machine of these tests panics (Linux 6.12).
const WATCHED: [(&str, &str); 2] = [("probe", "panic"), ("method", "kprobe")];

/// A node that is going to die.
pub(crate) struct Mortal {
    pub(crate) node: Node,
    pub(crate) machine: Machine,
    /// The boot that is going to end.
    pub(crate) boot: String,
    /// When that boot was seen to run: what happened later is its death.
    alive: Timestamp,
    nodes: Api<v1::Node>,
    incidents: Api<Incident>,
}

impl Mortal {
    /// The rig's node whose kubelet lets a container live when one of its processes is killed, or the other one.
    pub(crate) async fn of(rig: &Rig, single_process_oom_kill: bool) -> Result<Self> {
        let node = rig.node_with(single_process_oom_kill)?;
        let machine = node.machine().await?;
        let (nodes, incidents) = (Api::all(rig.client.clone()), Api::all(rig.client.clone()));
        let alive = Timestamp::now();
        let mut mortal = Self { node, machine, boot: String::new(), alive, nodes, incidents };
        mortal.lives_anew().await?;
        Ok(mortal)
    }

    /// From now on it is about the boot that runs.
    pub(crate) async fn lives_anew(&mut self) -> Result<()> {
        let node = self.nodes.get(self.node.name()).await.context("read the Node")?;
        boot(&node).clone_into(&mut self.boot);
        self.alive = Timestamp::now();
        Ok(())
    }

    /// Waits for the incident of this boot of the node to be as wanted, and looks that there is no second one: of this boot, of
    /// no boot or of another one, but of a time since this one was seen to run. What a node found of the boot before is told
    /// again, if an earlier test's incident was removed.
    pub(crate) async fn incident(&self, what: &str, is_it: impl Fn(&Incident) -> bool) -> Result<Incident> {
        let of_node = ListParams::default().fields(&format!("spec.node={}", self.node.name()));
        let own = |one: &Incident| one.spec["bootId"] == *self.boot;
        let holds = |all: &[Incident]| all.iter().any(|one| own(one) && is_it(one));
        let mut all = wait::all(&self.incidents, &of_node, what, PATIENCE, holds).await?;
        let since = |one: &Incident| one.time().is_none_or(|at| at >= self.alive);
        all.retain(|one| own(one) || since(one));
        ensure!(all.len() == 1, "there are {} incidents: {all:#?}", all.len());
        all.pop().context("an incident")
    }

    /// Waits until the Node is as wanted.
    pub(crate) async fn when_node(&self, what: &str, holds: impl Fn(&v1::Node) -> bool) -> Result<v1::Node> {
        let holds = |node: Option<&v1::Node>| node.is_some_and(&holds);
        let node = wait::until(&self.nodes, self.node.name(), what, BOOT_PATIENCE, holds);
        node.await?.context("the Node is gone")
    }

    /// Waits until this boot's agent watches for a panic: it does so some time after it is ready, and what the API says of its
    /// pod may be of the boot before.
    pub(crate) async fn when_watched(&self) -> Result<()> {
        let mut again = tokio::time::interval(Duration::from_millis(100));
        let asking = async {
            loop {
                again.tick().await;
                let watched = |metrics: Metrics| metrics.sum("detector_probe_attached", &WATCHED) == 1.0;
                if self.node.metrics(METRICS_PORT).await.is_ok_and(watched) {
                    return;
                }
            }
        };
        timeout(BOOT_PATIENCE, asking).await.with_context(|| format!("no agent watches {}", self.node.name()))
    }

    /// Waits until the node is back, with another boot.
    pub(crate) async fn when_booted(&self) -> Result<()> {
        let back = |node: &v1::Node| is_ready(node) && boot(node) != self.boot;
        self.when_node("it is back with another boot", back).await.map(drop)
    }
}

/// The boot that a Node reports.
fn boot(node: &v1::Node) -> &str {
    node.status.as_ref().and_then(|status| status.node_info.as_ref()).map_or("", |info| &info.boot_id)
}

/// Whether the control plane has given the node up.
pub(crate) fn is_lost(node: &v1::Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "Unknown")
}

/// Whether nobody keeps pods from the node.
pub(crate) fn is_open(node: &v1::Node) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    spec.unschedulable != Some(true) && spec.taints.unwrap_or_default().is_empty()
}

/// Whether a condition says that the node is lost (`contract::problem`).
pub(crate) fn is_dark(node: &v1::Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.reason.as_deref() == Some("NodeLost"))
}

/// Whether the object has the reason of a death and the incident's name.
pub(crate) fn is_told(object: &impl kube::Resource) -> bool {
    object
        .meta()
        .annotations
        .as_ref()
        .is_some_and(|told| [REASON_ANNOTATION, INCIDENT_ANNOTATION].iter().all(|key| told.contains_key(*key)))
}

/// Whether a pod has them, and its condition says so: with this status for this reason.
pub(crate) fn is_pod_told(pod: &Pod, status: &str, word: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let of_it = conditions.iter().find(|one| one.type_ == POD_CONDITION && one.status == status);
    let reason = of_it.is_some_and(|one| one.reason.as_deref() == Some(word) && one.message.is_some());
    reason && is_told(pod)
}

/// Has a node back that an earlier test left dead, and takes away what was done to it.
pub(crate) async fn revive(node: &Node) -> Result<()> {
    let nodes: Api<v1::Node> = Api::all(node.rig().client.clone());
    let mut machine = node.machine().await?;
    machine.set_cable(true).await?;
    machine.thaw().await?;
    // A node whose kernel is dead may be Ready for another 30 s: who answers lives.
    let lives = timeout(ANSWER_PATIENCE, node.run("true")).await.is_ok_and(|told| told.is_ok());
    if !lives {
        let old = boot(&nodes.get(node.name()).await?).to_owned();
        machine.reset().await?;
        let back = |node: Option<&v1::Node>| node.is_some_and(|node| is_ready(node) && boot(node) != old);
        wait::until(&nodes, node.name(), "it is back", BOOT_PATIENCE, back).await?;
    }
    // One that boots for the first time has no object yet.
    if nodes.get(node.name()).await.is_ok_and(|node| !is_open(&node)) {
        let open = json!({ "spec": { "unschedulable": null, "taints": null } });
        nodes.patch(node.name(), &PatchParams::default(), &Patch::Merge(&open)).await.context("open the node")?;
    }
    let open = |node: Option<&v1::Node>| node.is_some_and(|node| is_ready(node) && is_open(node));
    wait::until(&nodes, node.name(), "it is ready and open", BOOT_PATIENCE, open).await?;
    Ok(())
}
