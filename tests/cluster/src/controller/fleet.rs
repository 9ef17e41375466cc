//! Nodes that only exist in the API, whose Leases a task renews until they fall silent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{SECRET_ANNOTATION, SECRET_SHA256};
use crate::Rig;

/// Label of all Nodes of all fleets.
const LABEL: &str = "detector-tests";

/// Where the kubelets' Leases are.
const LEASES: &str = "kube-node-lease";

/// `leaseDurationSeconds`: a kubelet would renew every quarter of it, which is the shortest that the controller believes.
const LEASE_SECONDS: i32 = 10;

/// How often a Lease is really renewed. The control plane gives a node up after 50 s.
const BEAT: Duration = Duration::from_secs(1);

/// Leases that are renewed, of a very large fleet: more would be the greater part of all that the API server does. They are
/// those of the Nodes that come first by name, and the controller looks at no others unless it suspects them.
const BEATING: usize = 200;

/// Requests that are under way at once.
const AT_ONCE: usize = 16;

/// Nodes.
pub struct Fleet {
    /// All of them, in the order of their names' numbers.
    pub members: Vec<Member>,
    /// What renews their Leases.
    pub heart: Heart,
    nodes: Api<Node>,
    client: Client,
}

/// One Node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its only address.
    pub address: Ipv4Addr,
    /// `status.nodeInfo.bootID` when it was made.
    pub boot: String,
}

/// What a Lease does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is renewed, by a clock that lags by so much.
    Beats(Duration),
    /// It is not.
    Silent,
}

/// Renews Leases, once a second each.
pub struct Heart {
    lives: Arc<Mutex<BTreeMap<String, Life>>>,
    beating: JoinHandle<()>,
}

impl Fleet {
    /// Makes `count` Nodes named `PREFIX-NUMBER`, all well, in as many zones, with netconsole set up.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn make(rig: &Rig, prefix: &str, count: usize) -> Result<Self> {
        // Each fleet of a process has a network of its own: what an earlier one left is nobody's address here.
        static NEXT: AtomicU8 = AtomicU8::new(20);
        let network = NEXT.fetch_add(1, Ordering::Relaxed);
        let members: Vec<_> =
            (0..count).map(|number| Member::numbered(prefix, network, number)).collect::<Result<_>>()?;
        let (nodes, leases) = (Api::all(rig.client.clone()), rig.api::<Lease>(LEASES));
        let made = stream::iter(&members).map(|member| make(&nodes, &leases, member)).buffer_unordered(AT_ONCE);
        made.try_collect::<()>().await.context("make Nodes")?;
        let heart = Heart::start(leases, members.iter().map(|member| member.name.clone()));
        Ok(Self { members, heart, nodes, client: rig.client.clone() })
    }

    /// The API of Nodes.
    pub fn nodes(&self) -> &Api<Node> {
        &self.nodes
    }

    /// Makes bound pods on a node, named `NODE-pod-NUMBER`, that nobody runs.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn pods(&self, namespace: &str, member: &Member, count: usize) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let make = |number: usize| {
            let pods = pods.clone();
            async move {
                let name = format!("{}-pod-{number}", member.name);
                let pod = json!({ "metadata": { "name": name }, "spec": {
                    "nodeName": member.name, "containers": [{ "name": "main", "image": "none" }] } });
                let pod = serde_json::from_value(pod).context("word a pod")?;
                pods.create(&PostParams::default(), &pod).await.with_context(|| format!("make the pod {name}"))
            }
        };
        stream::iter(0..count).map(make).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// The node falls silent. The control plane gives it up by itself after 50 s, or with [`Self::give_up`].
    pub fn silence(&self, member: &Member) {
        self.heart.set(&member.name, Life::Silent);
    }

    /// Sets Ready to Unknown, `ago` ago.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn give_up(&self, member: &Member, ago: Duration) -> Result<()> {
        let message = "Kubelet stopped posting node status.";
        self.status(member, json!({ "conditions": [ready("Unknown", "NodeStatusUnknown", message, ago)] })).await
    }

    /// The node is back with a boot: Ready is True, its Lease is renewed by a clock that lags.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn revive(&self, member: &Member, boot: &str, lag: Duration, further: Option<Value>) -> Result<()> {
        let mut conditions = vec![ready("True", "KubeletReady", "", Duration::ZERO)];
        conditions.extend(further);
        self.status(member, json!({ "nodeInfo": { "bootID": boot }, "conditions": conditions })).await?;
        self.heart.set(&member.name, Life::Beats(lag));
        Ok(())
    }

    /// Patches the node's status as its kubelet does.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn status(&self, member: &Member, status: Value) -> Result<()> {
        let patch = Patch::Strategic(json!({ "status": status }));
        let patched = self.nodes.patch_status(&member.name, &PatchParams::default(), &patch).await;
        patched.with_context(|| format!("report of {}", member.name)).map(drop)
    }

    /// Removes all Nodes and Leases of this fleet and of those that tests before it left.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn clear(self) -> Result<()> {
        self.heart.beating.abort();
        sweep(&self.client).await
    }
}

/// Removes all Nodes and Leases that fleets left.
pub(super) async fn sweep(client: &Client) -> Result<()> {
    let ours = ListParams::default().labels(LABEL);
    let gone = DeleteParams::default();
    Api::<Lease>::namespaced(client.clone(), LEASES).delete_collection(&gone, &ours).await.context("remove Leases")?;
    Api::<Node>::all(client.clone()).delete_collection(&gone, &ours).await.context("remove Nodes")?;
    Ok(())
}

impl Member {
    fn numbered(prefix: &str, network: u8, number: usize) -> Result<Self> {
        let (high, low) = (u8::try_from(number / 250)?, u8::try_from(number % 250)?);
        Ok(Self {
            name: format!("{prefix}-{number}"),
            address: Ipv4Addr::new(127, network, high, low + 1),
            boot: format!("0f3c7a52-11aa-4b5c-{network:04x}-{number:012x}"),
        })
    }

    /// The id of another boot.
    pub fn next_boot(&self) -> String {
        self.boot.replace("0f3c7a52", "1e4d8b63")
    }
}

impl Heart {
    fn start(leases: Api<Lease>, names: impl Iterator<Item = String>) -> Self {
        let names: BTreeSet<_> = names.collect();
        let lives: BTreeMap<_, _> =
            names.into_iter().take(BEATING).map(|name| (name, Life::Beats(Duration::ZERO))).collect();
        let lives = Arc::new(Mutex::new(lives));
        let beating = tokio::spawn(beat(leases, Arc::clone(&lives)));
        Self { lives, beating }
    }

    /// Changes what a node's Lease does, from the next beat on.
    pub fn set(&self, name: &str, life: Life) {
        locked(&self.lives).insert(name.to_owned(), life);
    }

    /// Changes all.
    pub fn set_all(&self, life: Life) {
        locked(&self.lives).values_mut().for_each(|one| *one = life);
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

fn locked(lives: &Mutex<BTreeMap<String, Life>>) -> MutexGuard<'_, BTreeMap<String, Life>> {
    lives.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn beat(leases: Api<Lease>, lives: Arc<Mutex<BTreeMap<String, Life>>>) {
    let mut again = interval(BEAT);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        again.tick().await;
        let all: Vec<_> = locked(&lives).keys().cloned().collect();
        let (leases, lives) = (&leases, &lives);
        let renewals = stream::iter(all).map(|name| async move {
            // Asked at the last moment: what is silenced meanwhile is not renewed any more.
            let life = locked(lives).get(&name).copied();
            if let Some(Life::Beats(lag)) = life {
                let patch = Patch::Merge(json!({ "spec": { "renewTime": micros(lag) } }));
                // One that fails is one beat missed; the next comes in a second.
                leases.patch(&name, &PatchParams::default(), &patch).await.ok();
            }
        });
        renewals.buffer_unordered(AT_ONCE).collect::<()>().await;
    }
}

async fn make(nodes: &Api<Node>, leases: &Api<Lease>, member: &Member) -> Result<()> {
    let Member { name, address, boot } = member;
    let labels = json!({ LABEL: "fleet", "topology.kubernetes.io/zone": name });
    let annotations = json!({ SECRET_ANNOTATION: SECRET_SHA256 });
    let node = json!({
        "metadata": { "name": name, "labels": labels, "annotations": annotations },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": address }, { "type": "Hostname", "address": name }],
            "nodeInfo": { "bootID": boot, "machineID": "", "systemUUID": "", "kernelVersion": "", "osImage": "",
                "containerRuntimeVersion": "", "kubeletVersion": "v1.36.1", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64" },
            "conditions": [ready("True", "KubeletReady", "", Duration::ZERO)],
        },
    });
    let node = serde_json::from_value(node).context("word a Node")?;
    nodes.create(&PostParams::default(), &node).await.with_context(|| format!("make the Node {name}"))?;
    let lease = json!({
        "metadata": { "name": name, "labels": { LABEL: "fleet" } },
        "spec": { "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": micros(Duration::ZERO) } });
    let lease = serde_json::from_value(lease).context("word a Lease")?;
    leases.create(&PostParams::default(), &lease).await.with_context(|| format!("make the Lease {name}"))?;
    Ok(())
}

fn ready(status: &str, reason: &str, message: &str, ago: Duration) -> Value {
    let (now, since) = (seconds(Duration::ZERO), seconds(ago));
    json!({ "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": since })
}

fn before(ago: Duration) -> Timestamp {
    Timestamp::try_from(SystemTime::now() - ago).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn seconds(ago: Duration) -> String {
    format!("{:.0}", before(ago))
}

fn micros(lag: Duration) -> String {
    format!("{:.6}", before(lag))
}
