//! A running `detector agent`, in a mount namespace in which `/run` is the fake node's, and in a memory cgroup of its own.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use detector_provoke::{Cgroup, Hierarchy, Limits, Version};

use super::exposition::Exposition;
use crate::cluster::{port, server::Server};

/// Name of the Node object.
pub(super) const NODE: &str = "bench";

/// Cgroup of the agent, so that the kernel tells all memory that is charged to it.
const CGROUP: &str = "detector-bench-agent";

/// How long anything that is waited for may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long a scrape may take.
const SCRAPE_PATIENCE: Duration = Duration::from_secs(10);

/// Makes the mounts that end with the namespace, enters the cgroup, and becomes the agent. Tracepoints are attached
/// through tracefs, which not every machine has mounted.
const SCRIPT: &str = r#"
mount --bind "$BENCH_RUN" /run && mount -t bpf bpf "$BENCH_PINS" || exit 1
[ -e /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing || true
echo $$ > "$BENCH_CGROUP/cgroup.procs" || exit 1
exec "$@"
"#;

/// Where an agent finds and leaves everything.
pub(super) struct Place<'a> {
    /// The program.
    pub(super) detector: &'a Path,
    /// How to reach the API server.
    pub(super) kubeconfig: &'a Path,
    /// Directory for everything else.
    pub(super) directory: &'a Path,
}

impl Place<'_> {
    /// What the agent sees as `/run`.
    pub(super) fn run(&self) -> PathBuf {
        self.directory.join("run")
    }
}

/// A running agent. It is ended when dropped.
pub(super) struct Agent {
    server: Server,
    metrics: u16,
    cgroup: PathBuf,
    version: Version,
    /// Dropped after the agent.
    _cgroup: Cgroup,
}

impl Agent {
    /// Starts it with the default settings and `further` ones, and waits until its probes are attached and its first
    /// condition is written. `name` is that of its log and of its state.
    pub(super) fn start(place: &Place<'_>, name: &str, further: &str) -> Result<Self> {
        let [metrics, health] = port::free()?;
        let config = place.directory.join(format!("{name}.yaml"));
        let (state, pins) = (place.directory.join(name), place.directory.join("pins"));
        for directory in [&state, &pins, &place.run()] {
            fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        }
        let settings = format!(
            "metrics:\n  listen: 127.0.0.1:{metrics}\nhealth:\n  listen: 127.0.0.1:{health}\n\
             state:\n  directory: {}\n  pins: {}\n{further}",
            state.display(),
            pins.display()
        );
        fs::write(&config, settings).with_context(|| format!("write {}", config.display()))?;
        let hierarchy = Hierarchy::find()?;
        let own = Cgroup::make(&hierarchy, CGROUP, Limits::default())?;
        let cgroup = hierarchy.mount.join(CGROUP);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", SCRIPT, "sh"]).arg(place.detector).arg("agent");
        command.arg("--config").arg(config).arg("--kubeconfig").arg(place.kubeconfig);
        command.env("BENCH_RUN", place.run()).env("BENCH_PINS", pins).env("BENCH_CGROUP", &cgroup);
        command.env("NODE_NAME", NODE);
        let server = Server::start(name, &command, place.directory)?;
        let mut agent = Self { server, metrics, cgroup, version: hierarchy.version, _cgroup: own };
        agent.server.wait_until("the agent is ready", PATIENCE, || Ok(get(health, "/readyz").is_ok()))?;
        agent.wait_for("the first condition is written", |metrics| {
            metrics.sum("detector_api_writes_total", &["kind=\"condition\"", "result=\"done\""]) > 0.0
        })?;
        Ok(agent)
    }

    /// Its process id: each program on the way to it replaced the one before.
    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Its metrics now.
    pub(super) fn metrics(&self) -> Result<Exposition> {
        get(self.metrics, "/metrics").map(|text| Exposition::parse(&text))
    }

    /// Time from the connection to the last byte of `/metrics`, and the number of bytes.
    pub(super) fn scrape(&self) -> Result<(Duration, usize)> {
        let start = Instant::now();
        let bytes = get(self.metrics, "/metrics")?.len();
        Ok((start.elapsed(), bytes))
    }

    /// Waits until its metrics are so.
    pub(super) fn wait_for(&mut self, what: &str, mut is_so: impl FnMut(&Exposition) -> bool) -> Result<Exposition> {
        let start = Instant::now();
        loop {
            self.server.must_run().with_context(|| format!("wait until {what}"))?;
            let metrics = self.metrics()?;
            if is_so(&metrics) {
                return Ok(metrics);
            }
            ensure!(start.elapsed() < PATIENCE, "wait until {what}: not so after {PATIENCE:?}");
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// All memory that the kernel charges to it, now and at most, in bytes: also pages of its files and the maps of its
    /// programs (since Linux 5.11).
    pub(super) fn charged(&self) -> Result<(u64, Option<u64>)> {
        let (now, most) = match self.version {
            Version::V1 => ("memory.usage_in_bytes", "memory.max_usage_in_bytes"),
            Version::V2 => ("memory.current", "memory.peak"),
        };
        let number = |file: &str| {
            let path = self.cgroup.join(file);
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            text.trim().parse::<u64>().with_context(|| format!("find a number in {}", path.display()))
        };
        // Linux 5.19 and later have the second file on v2.
        Ok((number(now)?, number(most).ok()))
    }
}

/// The body of a page of the agent.
fn get(port: u16, page: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("connect for {page}"))?;
    stream.set_read_timeout(Some(SCRAPE_PATIENCE))?;
    let request = format!("GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(|| format!("ask for {page}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read {page}"))?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("read {page}: no answer of HTTP: {answer:?}") };
    ensure!(head.starts_with("HTTP/1.1 200"), "read {page}: {body}");
    Ok(body.to_owned())
}
