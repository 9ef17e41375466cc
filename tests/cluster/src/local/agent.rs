//! One running agent.

use std::{
    fs::File,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::Place;
use crate::{Metrics, metrics::get};

/// How long an agent may take to be ready, to end, or to show what a test waits for: more than the longest pause after writes
/// that failed, which is 60 s.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at its metrics.
const LOOK: Duration = Duration::from_millis(20);

/// A running agent. Dropping it kills it.
pub struct Agent {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Agent {
    /// Starts one that serves at `port`, in the name of `node`. It sees `place.run()` as `/run`, where the files of
    /// container runtimes are, in a mount namespace of its own. Its log is appended to the file `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(place: &Place, kubeconfig: &std::path::Path, node: &str, port: u16, log: PathBuf) -> Result<Self> {
        let out = File::options().create(true).append(true).open(&log);
        let out = out.with_context(|| format!("open {}", log.display()))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /run && exec \"$@\"").arg(place.run());
        command.arg(super::detector()?).arg("agent").arg("--config").arg(place.settings_file());
        command.arg("--kubeconfig").arg(kubeconfig).arg("--termination-log").arg(place.termination());
        command.env("NODE_NAME", node).stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).kill_on_drop(true);
        let child = command.spawn().context("start an agent")?;
        Ok(Self { child, port, log })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It ended, or is not ready in time.
    pub async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut again = ticks();
        loop {
            again.tick().await;
            if get(self.port, "/readyz").await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().context("look after the agent")? {
                return Err(anyhow!("the agent ended with {status}; its log: {}", self.log.display()));
            }
            ensure!(Instant::now() < deadline, "the agent is not ready; its log: {}", self.log.display());
        }
    }

    /// What it shows at `/metrics`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.port).await
    }

    /// Looks at its metrics again and again until they are as wanted, and gives them.
    ///
    /// # Errors
    /// They were not in time; the error shows those that are not zero.
    pub async fn wait_for(&self, what: &str, mut holds: impl FnMut(&Metrics) -> bool) -> Result<Metrics> {
        let deadline = Instant::now() + PATIENCE;
        let mut again = ticks();
        loop {
            again.tick().await;
            let metrics = self.metrics().await.with_context(|| format!("its log: {}", self.log.display()))?;
            if holds(&metrics) {
                return Ok(metrics);
            }
            if Instant::now() > deadline {
                let own = |name: &str| name.starts_with("detector_") && !name.contains("_bucket");
                let seen = metrics.samples().iter().filter(|sample| sample.value != 0.0 && own(&sample.name));
                let seen: Vec<_> =
                    seen.map(|sample| format!("{} {:?} {}", sample.name, sample.labels, sample.value)).collect();
                let log = self.log.display();
                return Err(anyhow!("wait until {what}: not so; its log: {log}; its metrics:\n{}", seen.join("\n")));
            }
        }
    }

    /// Bytes of memory that are its own, and not the program's file: `RssAnon` of proc_pid_status(5).
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> Result<u64> {
        let pid = self.child.id().context("the agent has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the agent's memory")?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no line RssAnon")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().context("RssAnon is no number")?;
        Ok(kibibytes << 10)
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// It had ended.
    pub async fn kill(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "the agent had ended; its log: {}", self.log.display());
        self.child.kill().await.context("kill the agent")
    }

    /// Ends it as the kubelet does.
    ///
    /// # Errors
    /// It fails, or does not end.
    pub async fn stop(self) -> Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).context("it has ended")?;
        kill_process(pid, Signal::TERM).context("send SIGTERM")?;
        let log = self.log.clone();
        let status = self.ended().await?;
        ensure!(status.success(), "the agent ended with {status}; its log: {}", log.display());
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not.
    pub async fn ended(mut self) -> Result<ExitStatus> {
        let ended: io::Result<_> = timeout(PATIENCE, self.child.wait()).await.context("wait for the agent's end")?;
        ended.context("wait for the agent's end")
    }
}

fn ticks() -> tokio::time::Interval {
    let mut again = interval(LOOK);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    again
}
