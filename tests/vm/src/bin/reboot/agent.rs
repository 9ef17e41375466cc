//! The agent under test.

use std::{
    fs,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::api;

/// What the host packed.
const PROGRAM: &str = "/detector";

/// Where the agent writes which boot this is.
const NOTE: &str = "/var/lib/detector/boot.json";

const SETTINGS: &str = "/settings.yaml";
const KUBECONFIG: &str = "/kubeconfig";

/// No certificate at all, in base64: without any of its own the client wants those of the machine, which has none.
const NO_AUTHORITY: &str = "IwoK";

/// Longest wait for its end; it waits for the disk for two seconds.
const END: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A running agent.
pub(crate) struct Agent(Child);

impl Agent {
    /// Starts it.
    pub(crate) fn start() -> Result<Self> {
        let settings = format!(
            "state: {{directory: /tmp/state, pins: disabled, boots: {NOTE}}}\nmetrics: {{listen: disabled}}\n\
             health: {{listen: disabled}}\n"
        );
        fs::write(SETTINGS, settings).context("writing settings")?;
        let server = api::ADDRESS;
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: x\n\
             clusters: [{{name: c, cluster: {{server: 'http://{server}', certificate-authority-data: {NO_AUTHORITY}}}}}]\n\
             users: [{{name: u, user: {{token: t}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n"
        );
        fs::write(KUBECONFIG, kubeconfig).context("writing a kubeconfig")?;
        let mut command = Command::new(PROGRAM);
        command.args([
            "agent",
            "--config",
            SETTINGS,
            "--kubeconfig",
            KUBECONFIG,
            "--termination-log",
            "/tmp/last-words",
        ]);
        Ok(Self(command.env("NODE_NAME", "node-a").spawn().context("starting the agent")?))
    }

    /// Asks it to stop, and waits.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).context("asking the agent to stop")?;
        let start = Instant::now();
        while start.elapsed() < END {
            if let Some(status) = self.0.try_wait().context("waiting for the agent")? {
                ensure!(status.success(), "the agent ended with {status}");
                return Ok(());
            }
            thread::sleep(LOOK_INTERVAL);
        }
        bail!("the agent was asked to stop, and did not within {END:?}")
    }
}

/// Its note, as it stands in the file.
pub(crate) fn note_text() -> Result<String> {
    fs::read_to_string(NOTE).with_context(|| format!("reading {NOTE}"))
}

/// The same, read.
pub(crate) fn note() -> Result<Value> {
    serde_json::from_str(&note_text()?).with_context(|| format!("understanding {NOTE}"))
}
