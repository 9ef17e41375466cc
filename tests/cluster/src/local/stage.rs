//! A node and pods for one agent of this machine: its Node object, its namespace, what the agent told.

use std::{
    fs,
    path::PathBuf,
    process::Output,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use detector_provoke::Hierarchy;
use k8s_openapi::api::{core::v1::Node, events::v1::Event};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    Agent, Container, Place, Proxy,
    container::{Home, PODS},
};
use crate::{CONTROLLER, Namespace, NodeObject, Rig, wait};

/// How long events may take to be written: what the API server refused is asked again after up to a minute.
const EVENT_PATIENCE: Duration = Duration::from_secs(120);

/// Where events about Nodes are.
const NODE_NAMESPACE: &str = "default";

/// All that an agent sees of a cluster.
pub struct Stage {
    /// The cluster.
    pub rig: Rig,
    /// Where the pod is.
    pub namespace: Namespace,
    /// What the agent keeps.
    pub place: Place,
    /// The agent's way to the API server.
    pub proxy: Proxy,
    /// Where the agent serves.
    pub port: u16,
    hierarchy: Hierarchy,
    _node: NodeObject,
}

/// What the events of a container tell.
#[derive(Debug)]
pub struct Told {
    /// Number of objects.
    pub events: usize,
    /// Happenings: the sum of all series.
    pub kills: i64,
    /// Time of the first.
    pub first: Option<SystemTime>,
    /// Time of the last.
    pub last: Option<SystemTime>,
}

impl Stage {
    /// Makes it; nothing runs yet.
    ///
    /// # Errors
    /// The API server refuses, or this machine has no memory hierarchy.
    pub async fn set(purpose: &str) -> Result<Self> {
        let rig = Rig::connect().await?;
        let namespace = rig.namespace(purpose).await?;
        let node = rig.node_object(&namespace.name, json!({})).await?;
        let server = rig.facts.server.rsplit(':').next().and_then(|port| port.parse().ok());
        let proxy = Proxy::open(server.with_context(|| format!("no port in {}", rig.facts.server))?).await?;
        let place = Place::make(&namespace.name)?;
        let text = fs::read_to_string(&rig.facts.kubeconfig).context("read the administrator's kubeconfig")?;
        let ours = text.replace(&rig.facts.server, &format!("https://127.0.0.1:{}", proxy.port()));
        ensure!(ours != text, "the kubeconfig does not lead to {}", rig.facts.server);
        fs::write(place.file("kubeconfig"), ours).context("write the agent's kubeconfig")?;
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = free.context("find a free port")?.port();
        place.write_settings(&place.settings(port))?;
        let hierarchy = Hierarchy::find()?;
        let pods = hierarchy.mount.join(PODS);
        fs::create_dir_all(&pods).with_context(|| format!("make {}", pods.display()))?;
        Ok(Self { rig, namespace, place, proxy, port, hierarchy, _node: node })
    }

    /// Starts an agent and waits until it is ready.
    ///
    /// # Errors
    /// It is not.
    pub async fn start(&self) -> Result<Agent> {
        let mut agent = self.spawn()?;
        agent.ready().await?;
        Ok(agent)
    }

    /// Starts an agent.
    ///
    /// # Errors
    /// There is none.
    pub fn spawn(&self) -> Result<Agent> {
        let kubeconfig = self.place.file("kubeconfig");
        Agent::spawn(&self.place, &kubeconfig, &self.namespace.name, self.port, self.log())
    }

    /// The file with the log of its agents.
    pub fn log(&self) -> PathBuf {
        self.rig.facts.logs.join(format!("agent-{}.log", self.namespace.name))
    }

    /// A container of the stage's own pod, known by the files of its runtime; its cgroup comes and goes with each
    /// [`Burst`](super::Burst). `number` tells containers of one stage apart.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn container(&self, name: &str, number: u16) -> Result<Container> {
        Container::with_files(
            &self.place.run(),
            Home::numbered(&self.namespace.name, &self.namespace.name, 0),
            name,
            number,
        )
    }

    /// The only container of a pod of its own, in `namespace`; pod and container are called `name`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn pod_of_one(&self, namespace: &Namespace, name: &str, number: u16) -> Result<Container> {
        Container::with_files(&self.place.run(), Home::numbered(&namespace.name, name, number), name, number)
    }

    /// The Node's API.
    pub fn nodes(&self) -> Api<Node> {
        Api::all(self.rig.client.clone())
    }

    /// Runs `detector cleanup` for the agent's settings and node.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn cleanup(&self) -> Result<Output> {
        let mut command = Command::new(super::detector()?);
        command.args(["cleanup", "--config"]).arg(self.place.settings_file());
        command.arg("--kubeconfig").arg(self.place.file("kubeconfig")).env("NODE_NAME", &self.namespace.name);
        command.kill_on_drop(true).output().await.context("run detector cleanup")
    }

    /// Waits until the events of a container tell so many kills, and gives what they tell.
    ///
    /// # Errors
    /// They do not in time.
    pub async fn told(&self, container: &Container, kills: i64) -> Result<Told> {
        let of =
            |events: &[Event]| events.iter().filter(|event| container.is_told_by(event)).cloned().collect::<Vec<_>>();
        let what = format!("{kills} kills are told of {}", container.name);
        let api: Api<Event> = self.rig.api(&container.home.namespace);
        let all =
            wait::all(&api, &ListParams::default(), &what, EVENT_PATIENCE, |events| sum(&of(events)) >= kills).await?;
        let events = of(&all);
        let first = events.iter().filter_map(|event| event.event_time.as_ref()).map(|time| time.0.into()).min();
        let last = events.iter().filter_map(|event| event.series.as_ref());
        let last = last.map(|series| series.last_observed_time.0.into()).max();
        Ok(Told { events: events.len(), kills: sum(&events), first, last: last.or(first) })
    }

    /// All events of the agent about its Node.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn told_of_node(&self) -> Result<Vec<Event>> {
        let api: Api<Event> = self.rig.api(NODE_NAMESPACE);
        let selector = format!("reportingController={CONTROLLER},regarding.name={}", self.namespace.name);
        Ok(api.list(&ListParams::default().fields(&selector)).await.context("list events of the Node")?.items)
    }

    /// Settings with some keys of the top level replaced, written to the agent's file.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn settle(&self, changes: &Value) -> Result<()> {
        let mut settings = self.place.settings(self.port);
        for (key, value) in changes.as_object().into_iter().flatten() {
            settings[key] = value.clone();
        }
        self.place.write_settings(&settings)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Both fail while others use them, or where they were before.
        let pods = self.hierarchy.mount.join(PODS);
        fs::remove_dir(&pods).ok();
        pods.parent().map(fs::remove_dir);
    }
}

/// Happenings that events tell.
pub fn sum<'a>(events: impl IntoIterator<Item = &'a Event>) -> i64 {
    let events = events.into_iter();
    events.map(|event| event.series.as_ref().map_or(1, |series| i64::from(series.count))).sum()
}

impl std::fmt::Display for Told {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} kills in {} events, {:?} to {:?}", self.kills, self.events, self.first, self.last)
    }
}
