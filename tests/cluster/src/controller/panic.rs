//! One panic from its first datagram to the reason on the last pod: how long that takes, and what was asked for.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Effect, Fleet, Member, Recorder, Recording, Replica, Stage, send};

/// What a panic cost.
#[derive(Clone, Debug)]
pub struct Panic {
    /// From the first datagram to the arrival of the last pod with its reason in a watch.
    pub delay: Duration,
    /// Requests by what they asked for, until its step had ended.
    pub asked: BTreeMap<String, usize>,
    /// Reads of Leases of nodes, from the first datagram until this node's is stale.
    pub leases: usize,
}

impl Panic {
    /// Causes one of a node of so many pods that falls silent, and waits until all of them carry the reason.
    ///
    /// # Errors
    /// They do not in time.
    pub async fn cause(
        stage: &Stage,
        fleet: &Fleet,
        node: &Member,
        pods: usize,
        replicas: &[&Replica],
    ) -> Result<Self> {
        let (recorder, audit) = (Recorder::start(&stage.rig).await?, stage.audit()?);
        let words = Recording::named("oom-6.12")?.of(&node.name, &node.boot);
        let ports: Vec<_> = replicas.iter().map(|replica| replica.netconsole).collect();
        fleet.silence(node);
        let start = Instant::now();
        send(node.address, &ports, &words.datagrams)?;
        let of_pods = format!("{}-pod-", node.name);
        let delay = recorder.until(&of_pods, Effect::PodTold, pods).await? - start;
        let told = |incident: &super::Incident| incident.step("Annotate") == Some("Done");
        stage.incidents.until(&node.name, "the step is written down", told).await?;
        // Until all that belongs to it was asked: the log is complete after 2 s of silence, and the Lease is stale.
        stage.incidents.until(&node.name, "its Lease is stale", |incident| incident.has("LeaseStale")).await?;
        let of_nodes = audit.asked()?.iter().filter(|ask| ask.is_of_node_lease()).count();
        Ok(Self { delay, asked: audit.counts()?, leases: of_nodes })
    }

    /// Requests but for reads of Leases, which are a matter of time, and the leader's own.
    pub fn requests(&self) -> usize {
        self.asked.iter().filter(|(what, _)| !what.ends_with(" leases")).map(|(_, number)| number).sum()
    }
}
