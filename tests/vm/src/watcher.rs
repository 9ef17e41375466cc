//! One `detector watch` with one method: started, read line by line, stopped.

use std::{
    fs::{self, File},
    io::Read,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::line::{Line, OomKill, Started, Summary};

/// Program under test.
pub(crate) const DETECTOR: &str = "/detector";

/// How long a watcher may take to attach; loading programs is slow without hardware help.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// How long a record may take from the kernel to the printed line.
const LINE_DEADLINE: Duration = Duration::from_secs(20);

/// The same, for a watcher that missed it once: the remaining cases shall not wait as long again.
const DEAF_DEADLINE: Duration = Duration::from_secs(2);

/// How long a watcher may take to end after SIGINT.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// Lines of its complaint that are shown.
const COMPLAINT_LINES: usize = 6;

/// Time between two looks at the output.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A running watcher.
pub(crate) struct Watcher {
    /// Method of the OOM detector.
    pub(crate) method: String,
    process: Child,
    errors: PathBuf,
    output: File,
    /// Bytes of a line that is not complete yet.
    rest: Vec<u8>,
    deaf: bool,
}

impl Watcher {
    /// Starts it and waits until its probes are attached.
    pub(crate) fn start(method: &str) -> Result<(Self, Started)> {
        let output = PathBuf::from(format!("/tmp/{method}.jsonl"));
        let errors = PathBuf::from(format!("/tmp/{method}.err"));
        let process = Command::new(DETECTOR)
            .args(["watch", "--output", "json", "--method", &format!("oom={method}")])
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?)
            .spawn()
            .with_context(|| format!("starting {DETECTOR}"))?;
        // A node-wide kill must not take the witness.
        fs::write(format!("/proc/{}/oom_score_adj", process.id()), "-1000").context("sparing the watcher")?;
        let output = File::open(&output)?;
        let mut watcher = Self { method: method.to_owned(), process, errors, output, rest: Vec::new(), deaf: false };
        let started = watcher.await_started()?;
        Ok((watcher, started))
    }

    /// Lines up to and without the kill of process `marker`, which was caused after all that is to be judged.
    pub(crate) fn kills_before(&mut self, marker: u32) -> Result<(Vec<OomKill>, Vec<String>)> {
        let deadline = if self.deaf { DEAF_DEADLINE } else { LINE_DEADLINE };
        let (mut kills, mut notices) = (Vec::new(), Vec::new());
        let start = Instant::now();
        loop {
            let mut settled = false;
            for line in self.read_lines()? {
                match line {
                    Line::OomKill(kill) if kill.victim.pid == Some(marker) => settled = true,
                    Line::OomKill(kill) => kills.push(*kill),
                    Line::Notice(n) => {
                        notices.push(format!("notice {}/{} x{}: {}", n.stage, n.kind, n.count, n.message));
                    }
                    Line::Started(_) | Line::Summary(_) => notices.push("an unexpected first or last line".to_owned()),
                }
            }
            if settled {
                return Ok((kills, notices));
            }
            if start.elapsed() > deadline {
                self.deaf = true;
                bail!("no line for the marker kill of {marker} within {deadline:?}; {} kills before", kills.len());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Stops it with SIGINT, as a user would, and returns its last line and the number of lines printed after the kill
    /// that was read last.
    pub(crate) fn stop(mut self) -> Result<(Summary, usize)> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).context("the watcher's pid")?;
        kill_process(pid, Signal::INT).context("sending SIGINT")?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait()? {
                break status;
            }
            ensure!(start.elapsed() < STOP_DEADLINE, "still running {STOP_DEADLINE:?} after SIGINT");
            std::thread::sleep(LOOK_INTERVAL);
        };
        let lines = self.read_lines()?;
        ensure!(status.success(), "ended with {status} after SIGINT: {}", self.complaint());
        let late = lines.iter().filter(|line| matches!(line, Line::OomKill(_))).count();
        match lines.into_iter().next_back() {
            Some(Line::Summary(summary)) => Ok((summary, late)),
            other => Err(anyhow!("the last line is no summary but {other:?}")),
        }
    }

    fn await_started(&mut self) -> Result<Started> {
        let start = Instant::now();
        loop {
            if let Some(first) = self.read_lines()?.into_iter().next() {
                return match first {
                    Line::Started(started) => Ok(started),
                    other => bail!("the first line is {other:?}"),
                };
            }
            if let Some(status) = self.process.try_wait()? {
                bail!("ended with {status} before it was attached: {}", self.complaint());
            }
            ensure!(start.elapsed() < START_DEADLINE, "not attached after {START_DEADLINE:?}: {}", self.complaint());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn read_lines(&mut self) -> Result<Vec<Line>> {
        self.output.read_to_end(&mut self.rest).context("reading the watcher's output")?;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let complete: Vec<u8> = self.rest.drain(..=end).collect();
        let lines = complete.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(parse).collect()
    }

    /// What it complained of: the first line, which says what was attempted, and the last ones.
    fn complaint(&self) -> String {
        let text = fs::read_to_string(&self.errors).unwrap_or_default();
        let mut lines: Vec<_> = text.lines().collect();
        if lines.len() > COMPLAINT_LINES {
            lines.drain(1..=lines.len() - COMPLAINT_LINES);
        }
        lines.join(" | ")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Fails only if it has ended.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn parse(line: &[u8]) -> Result<Line> {
    serde_json::from_slice(line).with_context(|| format!("reading line {}", String::from_utf8_lossy(line)))
}
