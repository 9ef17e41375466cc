//! A node: a virtual machine with a real kubelet. Commands run in it as root, by a server that is part of process 1 of the
//! test guests and of nothing that is shipped (`tests/vm/src/bin/node`).

mod machine;
mod object;

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::core::v1;
use kube::Api;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::RwLock,
    time::{Instant, sleep, timeout, timeout_at},
};

pub use self::{machine::Machine, object::NodeObject};
use crate::{Metrics, Rig, facts::NodeFacts, wait};

/// How long a command in a guest may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(120);

/// Time between two questions to a guest, whose files cannot be watched from here.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// Largest answer of a guest, in bytes.
const LARGEST: u64 = 16 << 20;

/// Calm of the nodes that kill whole containers at once, which serve for disturbances too: a test that takes away their
/// memory, their agent, the API server or the right time holds it for writing, others on such nodes for reading.
pub static CALM: RwLock<()> = RwLock::const_new(());

/// A node of the rig.
#[derive(Clone)]
pub struct Node {
    rig: Rig,
    /// Where it is and what it is like.
    pub facts: NodeFacts,
}

/// How a command in a guest ended.
#[derive(Clone, Debug, Deserialize)]
pub struct Ended {
    /// Exit code; 128 and the signal's number for a process that was killed.
    pub code: i32,
    /// Both output streams.
    pub output: String,
}

impl Node {
    pub(crate) fn new(rig: &Rig, facts: &NodeFacts) -> Self {
        Self { rig: rig.clone(), facts: facts.clone() }
    }

    /// The cluster that it is in.
    pub fn rig(&self) -> &Rig {
        &self.rig
    }

    /// Name of its Node object.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// Waits until its kubelet says that it is ready.
    ///
    /// # Errors
    /// It is not in time.
    pub async fn ready(&self) -> Result<v1::Node> {
        let api: Api<v1::Node> = Api::all(self.rig.client.clone());
        let what = format!("{} is Ready", self.name());
        wait::until(&api, self.name(), &what, wait::POD_PATIENCE, |node| node.is_some_and(is_ready))
            .await?
            .with_context(|| format!("the Node {} is gone", self.name()))
    }

    /// Runs a shell command in the guest as root; an error if it fails.
    ///
    /// # Errors
    /// The guest does not answer, or the command failed; the error says what it printed.
    pub async fn run(&self, command: &str) -> Result<String> {
        let ended = self.try_run(command).await?;
        ensure!(ended.code == 0, "`{command}` in {} ended with {}: {}", self.name(), ended.code, ended.output);
        Ok(ended.output)
    }

    /// Runs a shell command in the guest as root, and tells how it ended.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn try_run(&self, command: &str) -> Result<Ended> {
        let answer = self.ask(&json!({ "run": command })).await?;
        serde_json::from_str(&answer).with_context(|| format!("understand what {} answered", self.name()))
    }

    /// Asks again and again until the output of a command is as wanted, and gives it.
    ///
    /// # Errors
    /// It was not in time; the error shows the last output.
    pub async fn wait_for(
        &self,
        what: &str,
        command: &str,
        patience: Duration,
        mut holds: impl FnMut(&str) -> bool,
    ) -> Result<String> {
        let (deadline, mut last) = (Instant::now() + patience, anyhow!("the guest does not answer"));
        while Instant::now() <= deadline {
            match timeout_at(deadline, self.try_run(command)).await {
                Ok(Ok(ended)) if holds(&ended.output) => return Ok(ended.output),
                Ok(Ok(ended)) => last = anyhow!("last: {}", ended.output),
                // A guest that stood still for a while has closed the connection.
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
            sleep(ASK_INTERVAL).await;
        }
        Err(last.context(format!("wait until {what}: not so after {patience:?}")))
    }

    /// Cuts the node's pods off from the API server (open connections break, new ones are refused at once), or joins them
    /// again. The kubelet has a way of its own and notices nothing.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn set_api_reachable(&self, reachable: bool) -> Result<()> {
        self.ask(&json!({ "api": reachable })).await.map(drop)
    }

    /// The port of this machine that leads to a port of the guest.
    ///
    /// # Errors
    /// It is not forwarded.
    pub fn port(&self, guest: u16) -> Result<u16> {
        let port = self.facts.ports.get(&guest).copied();
        port.with_context(|| format!("port {guest} of {} is not forwarded; {:?} are", self.name(), self.facts.ports))
    }

    /// What a program in the guest shows at `/metrics`.
    ///
    /// # Errors
    /// Nobody answers at that port.
    pub async fn metrics(&self, guest_port: u16) -> Result<Metrics> {
        Metrics::scrape(self.port(guest_port)?).await.with_context(|| format!("read metrics of {}", self.name()))
    }

    /// Reads a program's metrics again and again until they are as wanted, and gives them.
    ///
    /// # Errors
    /// They were not in time.
    pub async fn wait_for_metrics(
        &self,
        guest_port: u16,
        what: &str,
        patience: Duration,
        mut holds: impl FnMut(&Metrics) -> bool,
    ) -> Result<Metrics> {
        let (deadline, mut last) = (Instant::now() + patience, anyhow!("the guest does not answer"));
        while Instant::now() <= deadline {
            match timeout_at(deadline, self.metrics(guest_port)).await {
                Ok(Ok(metrics)) if holds(&metrics) => return Ok(metrics),
                Ok(Ok(_)) => last = anyhow!("the metrics are otherwise"),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
            sleep(ASK_INTERVAL).await;
        }
        Err(last.context(format!("wait until {what}: not so after {patience:?}")))
    }

    /// Path of a container's cgroup in the guest, from its id as the API tells it (`containerd://…`).
    ///
    /// # Errors
    /// The guest has no such cgroup.
    pub async fn cgroup(&self, container_id: &str) -> Result<String> {
        let id = container_id.rsplit('/').next().unwrap_or(container_id);
        // Those of other tests go while this one looks, which `find` calls an error.
        let find = format!("find /sys/fs/cgroup/kubepods -type d -name '*{id}' 2>/dev/null || true");
        let found = self.run(&find).await?;
        let path = found.lines().next().with_context(|| format!("{} has no cgroup of container {id}", self.name()))?;
        Ok(path.to_owned())
    }

    async fn ask(&self, request: &serde_json::Value) -> Result<String> {
        let attempt = || format!("ask {} for {request} (its console: {})", self.name(), self.facts.console.display());
        timeout(COMMAND_PATIENCE, self.exchange(request)).await.with_context(attempt)?.with_context(attempt)
    }

    /// One line there, one line back.
    async fn exchange(&self, request: &serde_json::Value) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.facts.command_port)).await?;
        stream.write_all(format!("{request}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.take(LARGEST).read_to_string(&mut answer).await?;
        ensure!(answer.ends_with('\n'), "the answer has no end: {answer:?}");
        Ok(answer)
    }
}

/// Whether a Node object's condition Ready is True.
pub fn is_ready(node: &v1::Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The number behind a key of a cgroup file such as `memory.events` (`key number`, one a line).
///
/// # Errors
/// There is no such line.
pub fn cgroup_number(text: &str, key: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let number = line.with_context(|| format!("no line {key} in {text:?}"))?;
    number.trim().parse().with_context(|| format!("{key} is no number: {number}"))
}
