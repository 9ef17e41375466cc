//! A container for one agent of this machine: its runtime's files, its real cgroup, and kills in it.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use serde_json::json;
use tokio::process::{Child, Command};

use crate::Metrics;

/// The kubelet's place for pods of the class Burstable, below the root of the memory hierarchy.
pub(super) const PODS: &str = "kubepods/burstable";

/// The pod of a container.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// The uid that its cgroup's path has.
    pub uid: String,
}

/// A container of a pod that need not be in the API.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its pod.
    pub home: Home,
    /// Its id, without the runtime's name.
    pub id: String,
}

/// Kills in containers, caused by a process of their own, so that they go on whatever happens to the agent.
pub struct Burst {
    child: Child,
    kills: u32,
    containers: usize,
}

impl Home {
    /// A pod that only this process has; `number` tells its pods apart.
    pub(super) fn numbered(namespace: &str, pod: &str, number: u16) -> Self {
        let uid = format!("0d6dfc9d-3f4b-4c55-{number:04x}-{:012x}", std::process::id());
        Self { namespace: namespace.to_owned(), pod: pod.to_owned(), uid }
    }
}

impl Container {
    /// A container of which nothing is known on this machine but its cgroup.
    pub fn without_files(home: Home, name: &str, number: u16) -> Self {
        Self { name: name.to_owned(), home, id: format!("{:0>60}{number:04x}", format!("{:x}", std::process::id())) }
    }

    /// A container with the files of containerd below `run`.
    pub(super) fn with_files(run: &Path, home: Home, name: &str, number: u16) -> Result<Self> {
        let container = Self::without_files(home, name, number);
        let bundle = run.join("containerd/io.containerd.runtime.v2.task/k8s.io").join(&container.id);
        fs::create_dir_all(&bundle).with_context(|| format!("make {}", bundle.display()))?;
        let config = json!({ "annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": name,
            "io.kubernetes.cri.sandbox-name": container.home.pod,
            "io.kubernetes.cri.sandbox-namespace": container.home.namespace,
        } });
        fs::write(bundle.join("config.json"), config.to_string()).context("write what a runtime writes")?;
        Ok(container)
    }

    /// Begins `kills` kills, at most `parallel` eaters at a time.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn burst(&self, kills: u32, parallel: u32) -> Result<Burst> {
        Burst::start(std::slice::from_ref(self), kills, parallel)
    }

    /// Causes `kills` kills and waits for them.
    ///
    /// # Errors
    /// The kernel counted another number.
    pub async fn kills(&self, kills: u32) -> Result<()> {
        self.burst(kills, 1)?.end().await
    }

    /// What an agent counted of it.
    pub fn counted(&self, metrics: &Metrics) -> f64 {
        let Home { namespace, pod, .. } = &self.home;
        let labels = [("namespace", &**namespace), ("pod", &**pod), ("container", &*self.name)];
        metrics.sum("detector_container_oom_kills_total", &labels)
    }

    /// Whether an event is about it, by the names of pod and container.
    pub fn is_told_by(&self, event: &Event) -> bool {
        let Some(about) = &event.regarding else { return false };
        let field = about.field_path.as_deref().unwrap_or_default();
        about.name.as_deref() == Some(&self.home.pod) && field.ends_with(&format!("{{{}}}", self.name))
    }

    /// Below the root of the memory hierarchy.
    fn cgroup(&self) -> String {
        format!("{PODS}/pod{}/{}", self.home.uid, self.id)
    }
}

impl Burst {
    /// Begins one kill in each of `containers`, one after the other.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn one_each(containers: &[Container]) -> Result<Self> {
        Self::start(containers, 1, 1)
    }

    fn start(containers: &[Container], kills: u32, parallel: u32) -> Result<Self> {
        let mut command = Command::new(super::provoke()?);
        command.args(["oom", "--limit-mib", "8"]);
        for container in containers {
            command.arg("--cgroup").arg(container.cgroup());
        }
        command.args(["--kills", &kills.to_string(), "--parallel", &parallel.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Ok(Self { child: command.spawn().context("start provoke")?, kills, containers: containers.len() })
    }

    /// Whether all kills have happened.
    ///
    /// # Errors
    /// Nobody knows.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("look after provoke")?.is_some())
    }

    /// Waits for the last kill.
    ///
    /// # Errors
    /// The kernel counted another number of kills than were provoked.
    pub async fn end(self) -> Result<()> {
        let Self { child, kills, containers } = self;
        let output = child.wait_with_output().await.context("wait for provoke")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "provoke ended with {}: {said}", output.status);
        let exact = text.matches(&format!(" kernel_cgroup={kills} ")).count();
        ensure!(exact == containers, "the kernel counted otherwise: {text}");
        Ok(())
    }
}
