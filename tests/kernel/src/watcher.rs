//! A `detector watch --output json` as child process.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Lines that wait to be looked at; a watcher that writes more waits itself.
const LINES: usize = 16_384;

/// How long one line may take.
pub(crate) const LINE_DEADLINE: Duration = Duration::from_secs(60);

/// A running watcher. Dropping it kills it.
pub struct Watcher {
    process: Child,
    lines: Receiver<Value>,
    /// Its first line.
    pub started: Value,
}

/// What a watcher printed after it was told to stop.
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Lines that had not been read before, the last one included.
    pub lines: Vec<Value>,
}

impl Watcher {
    /// Starts a watcher and waits until its probes are attached.
    pub fn start(words: &[&str]) -> Result<Self> {
        let detector = crate::detector()?;
        let mut process = Command::new(&detector)
            .args(["watch", "--output", "json"])
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", detector.display()))?;
        let output = process.stdout.take().context("the watcher's output is no pipe")?;
        let mut watcher = Self { process, lines: read(output), started: Value::Null };
        let first = watcher.next()?;
        anyhow::ensure!(first["type"] == "started", "the first line is {first}");
        watcher.started = first;
        Ok(watcher)
    }

    /// The next line.
    pub fn next(&self) -> Result<Value> {
        match self.lines.recv_timeout(LINE_DEADLINE) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("the watcher printed nothing for {LINE_DEADLINE:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the watcher ended, or printed something that is no JSON"),
        }
    }

    /// The next `count` kills in cgroup `path`; those of other cgroups are passed over.
    pub fn kills(&self, path: &str, count: usize) -> Result<Vec<Value>> {
        let mut kills = Vec::with_capacity(count);
        while kills.len() < count {
            let line = self.next().with_context(|| format!("after {} of {count} kills in {path}", kills.len()))?;
            if line["type"] == "oom_kill" && line["cgroup"]["path"] == path {
                kills.push(line);
            }
        }
        Ok(kills)
    }

    /// Stops it as Ctrl-C does and reads all that it still prints.
    pub fn stop(mut self) -> Result<Ended> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).context("the watcher's pid")?;
        kill_process(pid, Signal::INT).context("sending SIGINT")?;
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(LINE_DEADLINE) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("the watcher still runs {LINE_DEADLINE:?} after SIGINT"),
            }
        }
        Ok(Ended { status: self.process.wait()?, lines })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Reads lines on a thread of its own, so that a test can wait for one with a deadline. Ends with the output, or at the
/// first line that is no JSON.
pub(crate) fn read(output: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = sync_channel(LINES);
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Some(value) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { return };
            if sender.send(value).is_err() {
                return;
            }
        }
    });
    receiver
}
