//! Deaths without a word, and what only looked like one: a machine that stands still, one without power, one without
//! network. What remains possible, what is learned when it is back, and that nothing is deleted on silence alone.

use anyhow::{Result, ensure};
use detector_cluster_tests::controller::{INCIDENT_ANNOTATION, Incident};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::ListParams};
use tokio::time::Instant;

use crate::{
    mortal::{Mortal, is_dark, is_open, is_pod_told},
    times::Times,
    workload::Workload,
};

/// What a node may have died of that went silent and whose kernel would have been heard.
const ALL: [&str; 5] = ["Power", "Hang", "Network", "Hypervisor", "Kubelet"];

/// Steps that end pods.
const DESTRUCTIVE: [&str; 5] = ["DeletePods", "FailPods", "TaintOutOfService", "ForceDeletePods", "DeleteNode"];

/// A node that is going to be silent, and its pods.
pub(crate) struct Silence<'a> {
    dying: &'a mut Mortal,
    workload: &'a Workload,
    here: Vec<Pod>,
}

impl<'a> Silence<'a> {
    /// Has a look at what runs on the node.
    pub(crate) async fn begin(dying: &'a mut Mortal, workload: &'a Workload) -> Result<Self> {
        let here = workload.pods_on(&dying.node).await?;
        ensure!(here.len() >= 2, "only {} pods run on {}", here.len(), dying.node.name());
        Ok(Self { dying, workload, here })
    }

    /// The machine stands still, and goes on.
    pub(crate) async fn of_a_machine_that_stands_still(&mut self) -> Result<()> {
        let mut times = times("A machine that stands still");
        self.dying.machine.freeze().await?;
        let seen = self.is_seen(&mut times).await;
        self.dying.machine.thaw().await?;
        seen?;
        self.is_sharpened("Stall", &["Hang", "Hypervisor"], &mut times).await?;
        self.dying.when_node("our conditions say again what they said", |node| !is_dark(node)).await?;
        times.now("its conditions say again what they said");
        times.print();
        self.kept_its_pods().await
    }

    /// The machine has no power, and boots.
    pub(crate) async fn of_power(&mut self) -> Result<()> {
        let mut times = times("A machine without power");
        self.dying.machine.power_off().await?;
        let seen = self.is_seen(&mut times).await;
        let kept = self.kept_its_pods().await;
        self.dying.machine.power_on().await?;
        seen?;
        kept?;
        self.dying.when_booted().await?;
        times.now("it is back with another boot");
        self.is_sharpened("Reset", &["Power", "Hang", "Hypervisor"], &mut times).await?;
        times.print();
        Ok(())
    }

    /// The machine has no network, and has it again.
    pub(crate) async fn of_network(&mut self) -> Result<()> {
        let mut times = times("A machine without network");
        self.dying.machine.set_cable(false).await?;
        let seen = self.is_seen(&mut times).await;
        // The plan has come to the first step that ends pods, and does not take it.
        let held = |one: &Incident| one.hold("DeletePods") == Some("NoCorroboration");
        let held = self.dying.incident("no pod is deleted of a node that is only silent", held).await;
        self.dying.machine.set_cable(true).await?;
        seen?;
        held?;
        self.is_sharpened("Stall", &["Network", "Kubelet"], &mut times).await?;
        self.dying.when_node("our conditions say again what they said", |node| !is_dark(node)).await?;
        times.now("its conditions say again what they said");
        times.print();
        self.kept_its_pods().await
    }

    /// Waits until the silence is an incident whose reason each pod carries, and looks at what it leaves open.
    async fn is_seen(&self, times: &mut Times) -> Result<()> {
        let silent = |one: &Incident| one.text("cause") == "Silent" && one.has("LeaseStale") && one.has("ReadyUnknown");
        let incident = self.dying.incident("there is an incident of a silent node", silent).await?;
        times.now("an incident says that it is silent");
        for kind in ALL {
            ensure!(incident.possible().contains(&kind), "{kind} is not possible: {:?}", incident.possible());
        }
        ensure!(!incident.possible().contains(&"Panic"), "a panic would have been heard: {:?}", incident.possible());
        let name = incident.name_any();
        let of_it = |pod: &Pod| {
            is_pod_told(pod, "Unknown", "NodeLost") && pod.annotations().get(INCIDENT_ANNOTATION) == Some(&name)
        };
        let told = self.workload.when_each("each is told", &self.here, of_it).await?;
        times.note("each pod carries the reason", Some(told));
        self.dying.when_node("our conditions are Unknown", is_dark).await?;
        times.now("it is let live again");
        Ok(())
    }

    /// Waits until the incident has another cause, and shows it.
    async fn is_sharpened(&self, cause: &str, possible: &[&str], times: &mut Times) -> Result<()> {
        let sharpened = |one: &Incident| one.text("cause") == cause && one.possible() == possible;
        let what = format!("it turns out to be {cause}, of {possible:?}");
        let incident = self.dying.incident(&what, sharpened).await?;
        times.now(&what);
        println!("{}: {}", incident.name_any(), incident.text("message"));
        self.dying.when_node("it takes pods again", is_open).await?;
        times.now("it takes pods again");
        let incident = self.dying.incident("it is still there", |_| true).await?;
        for step in DESTRUCTIVE {
            ensure!(!matches!(incident.step(step), Some("Intended" | "Done")), "{step} was taken: {incident:#?}");
        }
        Ok(())
    }

    /// Every pod that was there is there, with its uid, and nobody means to end it.
    async fn kept_its_pods(&self) -> Result<()> {
        let pods = self.workload.pods().list(&ListParams::default()).await?.items;
        for pod in &self.here {
            let still = pods.iter().find(|other| other.uid() == pod.uid());
            ensure!(still.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none()), "{} is gone", pod.name_any());
        }
        Ok(())
    }
}

fn times(title: &str) -> Times {
    Times::since(&format!("{title}, seconds since its last"), Instant::now())
}
