//! A namespace with the controller's rights, settings, and what its replicas share.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};

use super::{
    Audit, Gate, Incidents, Ports, Replica, fleet,
    replica::Start,
    rights::{self, ACCOUNT},
};
use crate::{Namespace, Rig, wait};

/// The file that users apply.
const DEFINITION: &str = "deploy/crd/kernelincidents.yaml";

/// Name of the Lease of the leader (`contract::remediation`).
const LEADER: &str = "detector-controller";

/// Files in its directory: the way to the API server, and the one through a gate.
const KUBECONFIG: &str = "kubeconfig";
const GATED: &str = "kubeconfig-gated";

/// All that controllers see of a cluster, apart from its Nodes.
pub struct Stage {
    /// The cluster.
    pub rig: Rig,
    /// Where the controller is, and the pods of the test.
    pub namespace: Namespace,
    /// What they write.
    pub incidents: Incidents,
    policy: Value,
    directory: PathBuf,
    started: AtomicU32,
}

/// A policy that does all that may be done about many nodes at once, with some keys replaced.
pub fn policy(changes: &Value) -> Value {
    let budget = json!({ "nodesAtOnce": 1000, "nodesPerZone": 1000, "nodesPerHour": 1000, "notReadyPercent": 100 });
    let mut policy = json!({
        "mode": "act", "cordon": true, "annotate": true, "deletePods": true, "failPods": true, "release": "outOfService",
        "rebootWindow": "2m", "closeAfter": "1m", "budget": budget,
    });
    for (key, value) in changes.as_object().into_iter().flatten() {
        policy[key] = value.clone();
    }
    policy
}

impl Stage {
    /// Makes it; nothing runs yet. What earlier tests left of Nodes and incidents is removed.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn set(purpose: &str, policy: Value) -> Result<Self> {
        let rig = Rig::connect().await?;
        fleet::sweep(&rig.client).await?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("find the source tree")?;
        let definition = fs::read_to_string(root.join(DEFINITION)).with_context(|| format!("read {DEFINITION}"))?;
        rig.apply(&definition).await?;
        let words = ["wait", "--for", "condition=Established", "--timeout", "60s", "crd/kernelincidents.detector.dev"];
        rig.kubectl(&words).await?;
        let incidents = Incidents::new(rig.client.clone());
        incidents.clear("").await.context("remove what earlier tests left")?;
        let namespace = rig.namespace(purpose).await?;
        rights::grant(&rig, &namespace).await?;
        let directory = std::env::temp_dir().join(format!("detector-{}", namespace.name));
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let stage = Self { rig, namespace, incidents, policy, directory, started: AtomicU32::new(0) };
        stage.write_kubeconfig().await?;
        Ok(stage)
    }

    /// Starts a replica with a pod's name of its own, and waits until it is ready.
    ///
    /// # Errors
    /// It is not.
    pub async fn start(&self) -> Result<Replica> {
        let mut replica = self.spawn()?;
        replica.ready().await?;
        Ok(replica)
    }

    /// Starts a replica.
    ///
    /// # Errors
    /// There is none.
    pub fn spawn(&self) -> Result<Replica> {
        self.spawn_at(Ports::free()?)
    }

    /// Starts a replica that hears and serves there.
    ///
    /// # Errors
    /// There is none.
    pub fn spawn_at(&self, ports: Ports) -> Result<Replica> {
        self.spawn_with(ports, KUBECONFIG)
    }

    /// A way to the API server that can stand still; those that [`Self::start_behind`] starts take it.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn gate(&self) -> Result<Gate> {
        let token = self.rig.token(&self.namespace.name, ACCOUNT, None).await?;
        let gate = Gate::open(self.rig.client_with_token(&token).await?).await?;
        let mut kubeconfig = self.rig.kubeconfig_with_token(&token);
        kubeconfig["clusters"][0]["cluster"] = json!({ "server": format!("http://{}", gate.address) });
        fs::write(self.directory.join(GATED), kubeconfig.to_string()).context("write the kubeconfig of a gate")?;
        Ok(gate)
    }

    /// Starts a replica behind the gate, and waits until it is ready.
    ///
    /// # Errors
    /// It is not.
    pub async fn start_behind(&self, _: &Gate) -> Result<Replica> {
        let mut replica = self.spawn_with(Ports::free()?, GATED)?;
        replica.ready().await?;
        Ok(replica)
    }

    fn spawn_with(&self, ports: Ports, kubeconfig: &str) -> Result<Replica> {
        let pod = format!("{}-{}", self.namespace.name, self.started.fetch_add(1, Ordering::Relaxed));
        let settings = self.directory.join(format!("{pod}.yaml"));
        fs::write(&settings, format!("{:#}\n", self.settings(ports))).context("write the settings")?;
        Replica::spawn(Start {
            pod: pod.clone(),
            namespace: self.namespace.name.clone(),
            ports,
            settings,
            kubeconfig: self.directory.join(kubeconfig),
            log: self.rig.facts.logs.join(format!("controller-{pod}.log")),
        })
    }

    /// Name of the pod that leads, by the Lease.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn leader(&self) -> Result<Option<String>> {
        let lease = self.leases().get_opt(LEADER).await.context("read the leader's Lease")?;
        Ok(lease.as_ref().and_then(holder))
    }

    /// Waits until another than `former` leads, and gives its name.
    ///
    /// # Errors
    /// Nobody does in time.
    pub async fn led_by_another(&self, former: &str) -> Result<String> {
        let is_new = |lease: Option<&Lease>| lease.and_then(holder).is_some_and(|pod| pod != former);
        let lease = wait::until(&self.leases(), LEADER, "another leads", 2 * wait::PATIENCE, is_new).await?;
        lease.as_ref().and_then(holder).context("a Lease has a holder")
    }

    /// Removes the Lease of a leader that is dead, as if its time were over.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn free_lease(&self) -> Result<()> {
        self.leases().delete(LEADER, &DeleteParams::default()).await.context("remove the leader's Lease").map(drop)
    }

    /// What replicas ask for from now on.
    ///
    /// # Errors
    /// The API server keeps no log.
    pub fn audit(&self) -> Result<Audit> {
        Audit::begin(&self.rig, &self.namespace.name, ACCOUNT)
    }

    /// Removes what is outside of the namespace.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn clear(self, fleet: fleet::Fleet) -> Result<()> {
        fleet.clear().await?;
        self.incidents.clear("").await?;
        rights::revoke(&self.rig, &self.namespace.name).await
    }

    fn settings(&self, ports: Ports) -> Value {
        let listen = format!("127.0.0.1:{}", ports.health);
        json!({
            "netconsole": { "listen": format!("127.0.0.1:{}", ports.netconsole) },
            "policy": self.policy,
            "metrics": { "listen": listen },
            "health": { "listen": listen },
            "log": { "format": "text", "level": "debug" },
        })
    }

    fn leases(&self) -> Api<Lease> {
        self.namespace.api()
    }

    async fn write_kubeconfig(&self) -> Result<()> {
        let token = self.rig.token(&self.namespace.name, ACCOUNT, None).await?;
        let kubeconfig = self.rig.kubeconfig_with_token(&token);
        fs::write(self.directory.join(KUBECONFIG), kubeconfig.to_string()).context("write the controller's kubeconfig")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// Pod of the holder: identities are `POD_RANDOM`.
fn holder(lease: &Lease) -> Option<String> {
    let identity = lease.spec.as_ref()?.holder_identity.as_deref()?;
    identity.rsplit_once('_').map(|(pod, _)| pod.to_owned()).filter(|pod| !pod.is_empty())
}
