//! Settings of the agent, checked: what is here follows its rules, so that no other module has to look again.
//!
//! ```text
//! file ─▶ yaml: a tree of values with places ─▶ table: keys, fields, contradictions ─▶ Config
//!                                     └───────────────┴─▶ mistake: all of them at once
//! ```
//!
//! [`agent`] is the table of the agent's file, [`controller`] that of the controller's. All else knows nothing of what is set.

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "controller")]
pub mod controller;
pub mod field;
pub mod file;
pub mod mistake;
#[cfg(feature = "agent")]
pub mod netconsole;
pub mod reference;
pub mod table;
pub mod texts;
#[cfg(any(feature = "agent", feature = "controller"))]
pub mod watch;
mod yaml;

#[cfg(feature = "agent")]
use std::{io::Read, path::Path};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use mistake::{Mistake, Mistakes};
pub use table::{Applies, Difference};
#[cfg(any(feature = "agent", feature = "controller"))]
pub use watch::{Reload, Watch};

#[cfg(feature = "agent")]
use crate::agent::options::Chosen;

/// The settings of `detector agent` in the file at `path`. Keys that it does not have keep their defaults; an empty file
/// is valid.
///
/// # Errors
///
/// All mistakes of the file at once.
#[cfg(feature = "agent")]
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    agent::AGENT.load(path)
}

/// The same from any source, which messages call `name`.
///
/// # Errors
///
/// As [`load`].
#[cfg(feature = "agent")]
pub fn load_from(name: &str, source: impl Read) -> Result<Config, Mistakes> {
    agent::AGENT.load_from(name, source)
}

/// The settings in `bytes`, which messages call `name`.
///
/// # Errors
///
/// As [`load`].
#[cfg(feature = "agent")]
pub fn parse(name: &str, bytes: &[u8]) -> Result<Config, Mistakes> {
    agent::AGENT.parse(name, bytes)
}

/// All settings of `detector agent`.
#[cfg(feature = "agent")]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Which detectors run, and how.
    pub detectors: Chosen,
    /// Last words of the kernel.
    pub last_words: LastWords,
    /// Finding out who owns a cgroup.
    pub locate: Locate,
    /// Node conditions.
    pub conditions: Conditions,
    /// Kubernetes events.
    pub events: Events,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// Health endpoints.
    pub health: Health,
    /// What survives a restart.
    pub state: State,
    /// What is told of the boot before.
    pub previous_boot: PreviousBoot,
    /// The agent's own log.
    pub log: Log,
}

#[cfg(feature = "agent")]
impl Config {
    /// Keys that differ in `new`, in the order of the file, each with when it comes into force.
    #[must_use]
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        agent::AGENT.differences(self, new)
    }

    /// These settings with those of `new` that come into force at once; the rest waits for a restart.
    #[must_use]
    pub fn at_run_time(&self, new: &Self) -> Self {
        agent::AGENT.at_run_time(self, new)
    }
}

/// A wildcard takes its port on all addresses, also of the other family: `[::]` takes IPv4 as well (ipv6(7), `bindv6only`).
#[cfg(any(feature = "agent", feature = "controller"))]
fn listeners(metrics: Option<SocketAddr>, health: Option<SocketAddr>) -> Option<table::Contradiction> {
    let (metrics, health) = (metrics?, health?);
    let wild = metrics.ip().is_unspecified() || health.ip().is_unspecified();
    (metrics != health && metrics.port() == health.port() && wild).then(|| table::Contradiction {
        keys: vec!["metrics.listen", "health.listen"],
        rule: format!(
            "must be the same address or have another port: {metrics} and {health} cannot both be listened on"
        ),
    })
}

/// Last words of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastWords {
    /// Have the kernel print them: `kernel.ftrace_dump_on_oops`.
    pub print_by_kernel: bool,
}

/// Finding out who owns a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locate {
    /// Watch the pods of this node by the API; needs the right to list and watch pods.
    pub pod_watch: bool,
    /// How long a kill waits for names before it is told without them; at most 30 s.
    pub hold: Duration,
}

/// Node conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Write them at all.
    pub enabled: bool,
    /// How often they are written though nothing changed; each agent spreads its own over a tenth of it.
    pub heartbeat: Duration,
    /// Names of processes (`comm`, at most 15 bytes) whose hang is a `KernelDeadlock`: kubelet, runtimes, shims, init.
    pub runtime_processes: Vec<String>,
}

/// Kubernetes events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// Write them at all.
    pub enabled: bool,
    /// Namespace of events about the Node: `default` or `kube-system` (the API server refuses others).
    pub node_namespace: String,
    /// Writes about all subjects of this node together.
    pub node_budget: Budget,
    /// Writes about one pod.
    pub pod_budget: Budget,
    /// Happenings of one kind to one container within this time become one series.
    pub series: Duration,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Writes at once; at least 1.
    pub burst: u32,
    /// One more is allowed after each such time.
    pub every: Duration,
}

/// Prometheus metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where they are served; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// How long the series of a pod are kept after it is gone.
    pub keep: Duration,
    /// Series of one metric at most; what goes beyond is counted in `detector_series_refused_total`.
    pub series: usize,
}

/// Health endpoints `/livez`, `/readyz` and `/healthz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where they are served; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

/// Where the state is kept, unless the settings say otherwise.
pub const DEFAULT_STATE: &str = "/run/detector";

/// Where maps and programs are pinned, unless the settings say otherwise.
pub const DEFAULT_PINS: &str = "/sys/fs/bpf/detector";

/// Where the agent notes which boot it saw last, unless the settings say otherwise.
pub const DEFAULT_BOOTS: &str = "/var/lib/detector/boot.json";

/// What is told of the boot before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousBoot {
    /// How long after the boot the condition says that the boot before crashed.
    pub keep: Duration,
}

/// What survives a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Directory of the state file and the spool; `None`: nothing survives.
    pub directory: Option<PathBuf>,
    /// Directory on a bpffs below which maps and programs are pinned; `None`: they go with the process.
    pub pins: Option<PathBuf>,
    /// File on a disk that says which boot the agent saw last; `None`: that is not noted.
    pub boots: Option<PathBuf>,
}

/// The agent's own log, on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `json` for programs, `text` for people.
    pub format: LogFormat,
    /// `error`, `warn`, `info` or `debug`.
    pub level: LogLevel,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl LogFormat {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Json, Self::Text];

    /// Its name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What keeps the agent from its work.
    Error,
    /// What is lost or goes wrong once.
    Warn,
    /// Problems, changes of methods, start and end.
    Info,
    /// Each write to the API.
    Debug,
}

impl LogLevel {
    /// All of them, the quietest first.
    pub const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// Its name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

impl Default for Locate {
    fn default() -> Self {
        Self { pod_watch: false, hold: Duration::from_secs(30) }
    }
}

impl Default for Conditions {
    fn default() -> Self {
        let names = [
            "systemd",
            "init",
            "kubelet",
            "containerd",
            "containerd-shim",
            "crio",
            "conmon",
            "conmonrs",
            "dockerd",
            "cri-dockerd",
            "runc",
            "crun",
        ];
        Self {
            enabled: true,
            heartbeat: Duration::from_secs(30 * 60),
            runtime_processes: names.map(str::to_owned).to_vec(),
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self {
            enabled: true,
            node_namespace: "default".to_owned(),
            node_budget: Budget { burst: 10, every: Duration::from_secs(10) },
            pod_budget: Budget { burst: 6, every: Duration::from_secs(60) },
            series: Duration::from_secs(10 * 60),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([0, 0, 0, 0], 20257))),
            keep: Duration::from_secs(10 * 60),
            series: 10_000,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([0, 0, 0, 0], 20256))) }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            directory: Some(DEFAULT_STATE.into()),
            pins: Some(DEFAULT_PINS.into()),
            boots: Some(DEFAULT_BOOTS.into()),
        }
    }
}

impl Default for PreviousBoot {
    fn default() -> Self {
        Self { keep: Duration::from_secs(24 * 3600) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Json, level: LogLevel::Info }
    }
}
