//! One `detector watch`: started, read line by line, stopped.

use std::{
    fs::{self, File},
    io::Read,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    line::{Line, Started, Summary},
    parameters::Methods,
};

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
    process: Child,
    errors: PathBuf,
    output: File,
    /// Bytes of a line that is not complete yet.
    rest: Vec<u8>,
    deaf: bool,
}

/// Lines of a watcher.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// In their order.
    pub(crate) all: Vec<Line>,
    /// Whether what was waited for came in time.
    pub(crate) complete: bool,
}

impl Watcher {
    /// Starts it and waits until its probes are attached. `name` is that of its files; `prepare` may take rights away.
    pub(crate) fn start(
        name: &str,
        arguments: &[String],
        prepare: impl FnOnce(&mut Command),
    ) -> Result<(Self, Started)> {
        let output = PathBuf::from(format!("/tmp/{}.jsonl", name.replace('/', "-")));
        let errors = output.with_extension("err");
        let mut command = Command::new(DETECTOR);
        command.args(["watch", "--output", "json"]).args(arguments);
        command.stdin(Stdio::null()).stdout(File::create(&output)?).stderr(File::create(&errors)?);
        prepare(&mut command);
        let process = command.spawn().with_context(|| format!("starting {DETECTOR}"))?;
        // A node-wide kill must not take the witness.
        fs::write(format!("/proc/{}/oom_score_adj", process.id()), "-1000").context("sparing the watcher")?;
        let output = File::open(&output)?;
        let mut watcher = Self { process, errors, output, rest: Vec::new(), deaf: false };
        let started = watcher.await_started()?;
        Ok((watcher, started))
    }

    /// Starts one that watches by these methods and no others.
    pub(crate) fn forced(methods: &Methods) -> Result<(Self, Started)> {
        let words = methods.each().flat_map(|(detector, method)| {
            ["--kind".to_owned(), detector.to_owned(), "--method".to_owned(), format!("{detector}={method}")]
        });
        Self::start(&methods.name(), &words.collect::<Vec<_>>(), |_| ())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Lines from now on until `done` holds for them, or the deadline has passed. Once it has, the next ones are shorter.
    pub(crate) fn lines_until(&mut self, done: impl Fn(&[Line]) -> bool) -> Result<Lines> {
        let deadline = if self.deaf { DEAF_DEADLINE } else { LINE_DEADLINE };
        let lines = self.lines_within(deadline, done)?;
        self.deaf |= !lines.complete;
        Ok(lines)
    }

    /// The same with a deadline of the caller's.
    pub(crate) fn lines_within(&mut self, deadline: Duration, done: impl Fn(&[Line]) -> bool) -> Result<Lines> {
        let mut lines = Lines::default();
        let start = Instant::now();
        loop {
            lines.all.extend(self.read_lines()?);
            lines.complete = done(&lines.all);
            if lines.complete || start.elapsed() > deadline {
                return Ok(lines);
            }
            if let Some(status) = self.process.try_wait()? {
                bail!("ended with {status}: {}", self.complaint());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Stops it with SIGINT, as a user would, and returns its last line and those that came before it and were
    /// not read yet.
    pub(crate) fn stop(mut self) -> Result<(Summary, Vec<Line>)> {
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
        let mut lines = self.read_lines()?;
        ensure!(status.success(), "ended with {status} after SIGINT: {}", self.complaint());
        match lines.pop() {
            Some(Line::Summary(summary)) => Ok((summary, lines)),
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
