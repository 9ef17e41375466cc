//! A running `detector watch --output json`: timed while it starts, looked at from outside, stopped as a user would.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::vitals::{self, Resident};

/// A started watcher.
pub(super) struct Watcher {
    process: Child,
    /// From before the fork to its first line, which says that the probes are attached.
    pub(super) start: Duration,
    /// That line.
    pub(super) started: Value,
    /// Reads the rest and returns the last line and the number of kills told.
    reader: Option<JoinHandle<Result<Told>>>,
}

/// What a watcher told between its first line and its end.
pub(super) struct Told {
    /// Lines about kills.
    pub(super) kills: u64,
    /// The closing line.
    pub(super) summary: Value,
}

impl Watcher {
    /// Starts it and waits until its probes are attached.
    pub(super) fn start(detector: &Path) -> Result<Self> {
        let began = Instant::now();
        let mut process = Command::new(detector)
            .args(["watch", "--output", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", detector.display()))?;
        let output = process.stdout.take().context("the watcher has no output")?;
        let mut output = BufReader::new(output);
        let mut first = String::new();
        output.read_line(&mut first).context("read the watcher's first line")?;
        let start = began.elapsed();
        let started: Value = serde_json::from_str(&first).with_context(|| format!("read the line {first:?}"))?;
        ensure!(started["type"] == "started", "the watcher's first line is {first:?}");
        let reader = Some(std::thread::spawn(move || read_all(output)));
        Ok(Self { process, start, started, reader })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its memory now.
    pub(super) fn resident(&self) -> Result<Resident> {
        Resident::of(self.pid())
    }

    /// How often it went to sleep and so was woken again.
    pub(super) fn wake_ups(&self) -> Result<u64> {
        vitals::wake_ups(self.pid())
    }

    /// Stops it by Ctrl-C and gives what it told.
    pub(super) fn stop(mut self) -> Result<Told> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("the watcher's pid")?;
        kill_process(pid, Signal::INT).context("stop the watcher")?;
        let status = self.process.wait().context("wait for the watcher")?;
        ensure!(status.success(), "the watcher ended with {status}");
        match self.reader.take().map(JoinHandle::join) {
            Some(Ok(told)) => told,
            _ => bail!("the watcher's output was not read to its end"),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn read_all(output: impl std::io::BufRead) -> Result<Told> {
    let (mut kills, mut last) = (0, String::new());
    for line in output.lines() {
        last = line.context("read the watcher's output")?;
        kills += u64::from(last.starts_with(r#"{"type":"oom_kill""#));
    }
    let summary: Value = serde_json::from_str(&last).with_context(|| format!("read the line {last:?}"))?;
    ensure!(summary["type"] == "summary", "the watcher's last line is {last:?}");
    Ok(Told { kills, summary })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_and_the_last_line_is_kept() {
        let output = "{\"type\":\"oom_kill\",\"cpu\":0}\n{\"type\":\"notice\"}\n{\"type\":\"summary\",\"lost\":0}\n";
        let told = read_all(output.as_bytes()).expect("read");
        assert_eq!((told.kills, &told.summary["lost"]), (1, &Value::from(0)));
    }
}
