//! One running controller.

use std::{fs::File, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{Metrics, metrics::get};

/// How long a controller may take to be ready, to end, or to show what a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at its metrics.
const LOOK: Duration = Duration::from_millis(20);

/// A running controller. Dropping it kills it.
pub struct Replica {
    /// Name of its pod: the beginning of its identity as leader, and of what it witnesses.
    pub pod: String,
    /// Where it hears datagrams.
    pub netconsole: u16,
    child: Child,
    port: u16,
    log: PathBuf,
}

/// Where a replica listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// For datagrams.
    pub netconsole: u16,
    /// For health and metrics.
    pub health: u16,
}

impl Ports {
    /// Ports that nobody uses by now.
    ///
    /// # Errors
    /// There are none.
    pub fn free() -> Result<Self> {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let (udp, tcp) = (udp.context("find a free port")?, tcp.context("find a free port")?);
        Ok(Self { netconsole: udp.port(), health: tcp.port() })
    }
}

/// What a replica is started with.
pub(super) struct Start {
    pub(super) pod: String,
    pub(super) namespace: String,
    pub(super) ports: Ports,
    pub(super) settings: PathBuf,
    pub(super) kubeconfig: PathBuf,
    pub(super) log: PathBuf,
}

impl Replica {
    /// Starts one. Its log is appended to a file.
    pub(super) fn spawn(start: Start) -> Result<Self> {
        let out = File::options().create(true).append(true).open(&start.log);
        let out = out.with_context(|| format!("open {}", start.log.display()))?;
        let mut command = Command::new(program()?);
        command.arg("controller").arg("--config").arg(&start.settings).arg("--kubeconfig").arg(&start.kubeconfig);
        command.env("POD_NAME", &start.pod).env("POD_NAMESPACE", &start.namespace).env_remove("NODE_NAME");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).kill_on_drop(true);
        let child = command.spawn().context("start a controller")?;
        let Ports { netconsole, health: port } = start.ports;
        Ok(Self { pod: start.pod, netconsole, child, port, log: start.log })
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
            if let Some(status) = self.child.try_wait().context("look after the controller")? {
                return Err(anyhow!("the controller ended with {status}; its log: {}", self.log.display()));
            }
            ensure!(Instant::now() < deadline, "the controller is not ready; its log: {}", self.log.display());
        }
    }

    /// What it shows at `/metrics`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.port).await.with_context(|| format!("its log: {}", self.log.display()))
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
            let metrics = self.metrics().await?;
            if holds(&metrics) {
                return Ok(metrics);
            }
            ensure!(Instant::now() < deadline, "wait until {what}: not so; {}", shown(&metrics));
        }
    }

    /// Bytes of memory that are its own, and not the program's file: `RssAnon` of proc_pid_status(5).
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> Result<u64> {
        self.status("RssAnon:")
    }

    /// All resident memory: `VmRSS`.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    fn status(&self, key: &str) -> Result<u64> {
        let pid = self.child.id().context("the controller has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the controller's memory")?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no line {key}"))?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().context("memory is no number")?;
        Ok(kibibytes << 10)
    }

    /// Sends SIGKILL at once; [`Self::killed`] then waits for its end.
    ///
    /// # Errors
    /// It had ended.
    pub fn kill_now(&self) -> Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).context("it has ended")?;
        kill_process(pid, Signal::KILL).context("send SIGKILL")
    }

    /// Waits for its end after [`Self::kill_now`].
    ///
    /// # Errors
    /// It ended otherwise.
    pub async fn killed(mut self) -> Result<()> {
        let status = timeout(PATIENCE, self.child.wait()).await.context("wait for the controller's end")??;
        ensure!(status.code().is_none(), "it ended by itself with {status}; its log: {}", self.log.display());
        Ok(())
    }

    /// Ends it as the kubelet does.
    ///
    /// # Errors
    /// It fails, or does not end.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).context("it has ended")?;
        kill_process(pid, Signal::TERM).context("send SIGTERM")?;
        let status = timeout(PATIENCE, self.child.wait()).await.context("wait for the controller's end")??;
        ensure!(status.success(), "the controller ended with {status}; its log: {}", self.log.display());
        Ok(())
    }
}

/// Samples that are not zero.
fn shown(metrics: &Metrics) -> String {
    let own = |name: &str| name.starts_with("detector_") && !name.contains("_bucket");
    let seen = metrics.samples().iter().filter(|sample| sample.value != 0.0 && own(&sample.name));
    let seen: Vec<_> = seen.map(|sample| format!("{} {:?} {}", sample.name, sample.labels, sample.value)).collect();
    format!("its metrics:\n{}", seen.join("\n"))
}

fn program() -> Result<PathBuf> {
    let path = std::env::var_os("DETECTOR_BIN").map(PathBuf::from);
    let path = path.context("DETECTOR_BIN is not set: run these tests with `cargo xtask test cluster`")?;
    ensure!(path.is_file(), "DETECTOR_BIN is {}, which is no file", path.display());
    Ok(path)
}

fn ticks() -> tokio::time::Interval {
    let mut again = interval(LOOK);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    again
}
