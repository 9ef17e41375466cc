//! A watcher of this case's own: started, read until it tells a kill, stopped.

use std::{
    fs::{self, File},
    io::Read,
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{DEADLINE, LOOK_INTERVAL};

/// Program under test.
const DETECTOR: &str = "/detector";

const OUTPUT: &str = "/tmp/containerd.jsonl";
const ERRORS: &str = "/tmp/containerd.err";

/// A running watcher; killed when dropped.
pub(super) struct Watch {
    process: Child,
    output: File,
    /// Bytes of a line that is not complete yet.
    rest: Vec<u8>,
    lines: Vec<Value>,
}

impl Watch {
    /// Starts it and waits until its probes are attached.
    pub(super) fn start() -> Result<Self> {
        let process = Command::new(DETECTOR)
            .args(["watch", "--output", "json"])
            .stdin(Stdio::null())
            .stdout(File::create(OUTPUT)?)
            .stderr(File::create(ERRORS)?)
            .spawn()
            .with_context(|| format!("starting {DETECTOR}"))?;
        let mut watch = Self { process, output: File::open(OUTPUT)?, rest: Vec::new(), lines: Vec::new() };
        watch.wait_for("its first line", |line| line["type"] == "started")?;
        Ok(watch)
    }

    /// The kill of a process of container `id`.
    pub(super) fn kill_in(&mut self, id: &str) -> Result<Value> {
        let of_container = |line: &Value| {
            let path = line["cgroup"]["path"].as_str().unwrap_or_default();
            line["type"] == "oom_kill" && path.contains(id)
        };
        self.wait_for("a kill in the container", of_container)
    }

    /// Stops it as a user would; returns all lines.
    pub(super) fn stop(mut self) -> Result<Vec<Value>> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).context("the watcher's pid")?;
        kill_process(pid, Signal::INT).context("sending SIGINT")?;
        self.wait_for("its last line", |line| line["type"] == "summary")?;
        Ok(std::mem::take(&mut self.lines))
    }

    fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let start = Instant::now();
        loop {
            self.read_lines()?;
            if let Some(line) = self.lines.iter().find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            let told = || format!("{:?}; {}", self.lines, fs::read_to_string(ERRORS).unwrap_or_default());
            ensure!(start.elapsed() < DEADLINE, "the watcher did not tell {what} within {DEADLINE:?}: {}", told());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn read_lines(&mut self) -> Result<()> {
        self.output.read_to_end(&mut self.rest).context("reading the watcher's output")?;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let complete: Vec<u8> = self.rest.drain(..=end).collect();
        for line in complete.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = serde_json::from_slice(line);
            self.lines.push(line.context("reading a line of the watcher")?);
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
