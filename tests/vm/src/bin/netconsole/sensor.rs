//! The program under test, and what it leaves in configfs.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// netconsole's directory in configfs.
pub(crate) const TARGETS: &str = "/sys/kernel/config/netconsole";

/// Where it serves health and metrics.
const LISTEN: &str = "127.0.0.1:20258";

/// How long a metric may take to have a value, and the program to end.
const PATIENCE: Duration = Duration::from_secs(120);

const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Looks at targets until two find the same.
const LOOKS: usize = 1000;

/// A running `detector netconsole`.
pub(crate) struct Sensor(Child);

impl Sensor {
    /// Starts it with these receivers.
    pub(crate) fn start(receivers: &[&str]) -> Result<Self> {
        let config = format!(
            "receivers: {{fixed: [{}], spread: 0s}}\ntargets: {{poll: 5s}}\nmodules: {{load: true}}\n\
             health: {{listen: \"{LISTEN}\"}}\nlog: {{format: text, level: info}}\n",
            receivers.join(", ")
        );
        fs::write("/tmp/netconsole.yaml", config)?;
        let mut command = Command::new("/detector");
        command.args(["netconsole", "--config", "/tmp/netconsole.yaml"]).env("NODE_NAME", "guest");
        Ok(Self(command.spawn().context("starting the sensor")?))
    }

    /// Waits until its metrics have this line.
    pub(crate) fn wait_for_metric(&self, line: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            let page = metrics().unwrap_or_else(|cause| format!("{cause:#}"));
            if page.lines().any(|told| told == line) {
                return Ok(());
            }
            let ours = || page.lines().filter(|line| line.starts_with("detector_")).collect::<Vec<_>>().join("; ");
            ensure!(start.elapsed() < PATIENCE, "there is no `{line}` in {}", ours());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.end(Signal::TERM)?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                ensure!(status.success(), "it ended with {status}");
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "it did not end");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Kills it.
    pub(crate) fn kill(mut self) -> Result<ExitStatus> {
        self.end(Signal::KILL)?;
        Ok(self.0.wait()?)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.0), signal).context("ending the sensor")
    }
}

fn metrics() -> Result<String> {
    let mut stream = TcpStream::connect(LISTEN)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A target of ours.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    name: String,
    pub(crate) enabled: bool,
    pub(crate) device: String,
    pub(crate) local: String,
    pub(crate) remote: String,
    pub(crate) mac: String,
    /// The kernel knows userdata.
    pub(crate) userdata: bool,
}

/// Targets of ours that stood at one moment: what is read one after the other counts only if a second look finds the same.
pub(crate) fn standing() -> Result<Vec<Standing>> {
    let mut before = look()?;
    for _ in 0..LOOKS {
        let now = look()?;
        if before.is_some() && now == before {
            return Ok(now.unwrap_or_default());
        }
        before = now;
    }
    bail!("the targets never stood still")
}

/// One look; `None` if a target went meanwhile.
fn look() -> Result<Option<Vec<Standing>>> {
    let entries = match fs::read_dir(TARGETS) {
        // configfs is not mounted yet.
        Err(_) if !Path::new(TARGETS).exists() => return Ok(Some(Vec::new())),
        entries => entries?,
    };
    let mut standing = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { bail!("{}", path.display()) };
        let attribute = |name: &str| fs::read_to_string(path.join(name)).map(|text| text.trim().to_owned());
        if !name.starts_with("detector-") {
            continue;
        }
        let attributes = ["enabled", "dev_name", "local_ip", "remote_ip", "remote_mac"].map(attribute);
        let [Ok(enabled), Ok(device), Ok(local), Ok(remote), Ok(mac)] = attributes else { return Ok(None) };
        let userdata = path.join("userdata").is_dir();
        let (name, enabled) = (name.to_owned(), enabled == "1");
        standing.push(Standing { name, enabled, device, local, remote, mac, userdata });
    }
    standing.sort();
    Ok(Some(standing))
}
