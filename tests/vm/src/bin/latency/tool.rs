//! One tool that prints a line per kill: started on a terminal of its own, every line stamped as it appears.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
    time::{ClockId, clock_gettime},
};

/// Longest wait for a tool's first line; without hardware help compilers are slow.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// Lines that may wait between the reader and the one who asks; more than a kill ever has.
const QUEUE: usize = 1024;

/// A tool to measure.
pub(crate) struct Wanted {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
    pub(crate) words: &'static [&'static str],
}

/// A running tool.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// From its start to its first line, in milliseconds.
    pub(crate) start_ms: f64,
    process: Child,
    lines: Receiver<Stamped>,
    /// Boot clock at the line of each victim.
    seen: HashMap<u32, u64>,
}

/// A line and the boot clock at its appearance, in nanoseconds.
struct Stamped {
    text: String,
    at_ns: u64,
}

impl Tool {
    /// Starts it and waits for its first line, which all of them print once they are attached.
    pub(crate) fn start(wanted: &Wanted) -> Result<Self> {
        let (ours, theirs) = terminal()?;
        let start = Instant::now();
        let process = Command::new(wanted.program)
            .args(wanted.words)
            .stdin(Stdio::null())
            .stdout(theirs)
            .spawn()
            .with_context(|| format!("executing {}", wanted.program))?;
        let (to, lines) = sync_channel(QUEUE);
        thread::spawn(move || read_lines(ours, &to));
        let mut tool = Self { name: wanted.name, start_ms: 0.0, process, lines, seen: HashMap::new() };
        let first = |text: &str| text.contains("Tracing") || text.contains("\"started\"");
        tool.await_line(START_DEADLINE, first).context("waiting for its first line")?;
        tool.start_ms = start.elapsed().as_secs_f64() * 1e3;
        Ok(tool)
    }

    /// Resident memory (`VmRSS`), in kB.
    pub(crate) fn resident_kb(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("{} has no VmRSS", self.name))
    }

    /// Waits until it has told of the kill of `victim`.
    pub(crate) fn await_kill(&mut self, victim: u32, deadline: Duration) -> Result<()> {
        let stamped = self.await_line(deadline, |text| victim_of(text) == Some(victim));
        let at_ns = stamped.with_context(|| format!("waiting for {} to tell of {victim}", self.name))?;
        self.seen.insert(victim, at_ns);
        Ok(())
    }

    /// The boot clock at its line about `victim`.
    pub(crate) fn seen(&self, victim: u32) -> Option<u64> {
        self.seen.get(&victim).copied()
    }

    fn await_line(&mut self, deadline: Duration, wanted: impl Fn(&str) -> bool) -> Result<u64> {
        let start = Instant::now();
        let mut others = 0;
        loop {
            match self.lines.recv_timeout(deadline.saturating_sub(start.elapsed())) {
                Ok(line) if wanted(&line.text) => return Ok(line.at_ns),
                Ok(_) => others += 1,
                Err(RecvTimeoutError::Timeout) => bail!("no such line within {deadline:?}, {others} others"),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(anyhow!("it ended: {:?}", self.process.try_wait()));
                }
            }
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A pseudo-terminal: our side and the tool's, which hands bytes on as they are.
fn terminal() -> Result<(OwnedFd, OwnedFd)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("opening /dev/ptmx")?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?.into_string().context("the terminal's name is not UTF-8")?;
    let theirs = File::options().read(true).write(true).open(&name).with_context(|| format!("opening {name}"))?;
    let mut settings = tcgetattr(&theirs)?;
    settings.make_raw();
    tcsetattr(&theirs, OptionalActions::Now, &settings)?;
    Ok((ours, theirs.into()))
}

/// Stamps all lines until the tool is gone: its terminal then reads as EIO.
fn read_lines(terminal: OwnedFd, to: &SyncSender<Stamped>) {
    let mut terminal = File::from(terminal);
    let (mut rest, mut bytes) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = terminal.read(&mut bytes) {
        let at_ns = boot_ns();
        rest.extend_from_slice(&bytes[..count]);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line).into_owned();
            if to.send(Stamped { text, at_ns }).is_err() {
                return;
            }
        }
    }
}

fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The killed process that a line tells of, in the words of any of the tools.
fn victim_of(line: &str) -> Option<u32> {
    let digits = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    if let Some((_, rest)) = line.split_once("OOM kill of PID ") {
        return digits(rest);
    }
    let object: serde_json::Value = serde_json::from_str(line).ok()?;
    (object["type"] == "oom_kill").then(|| object["victim"]["pid"].as_u64()?.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_victim_is_found_in_the_words_of_each_tool() {
        let peer = "03:21:07 Triggered by PID 71 (\"a\"), OOM kill of PID 72 (\"b\"), 2048 pages, loadavg: 0.1\n";
        assert_eq!(victim_of(peer), Some(72));
        assert_eq!(victim_of(r#"{"type":"oom_kill","trigger":{"pid":71},"victim":{"pid":73}}"#), Some(73));
        assert_eq!(victim_of(r#"{"type":"started"}"#), None);
        assert_eq!(victim_of("Tracing oom_kill_process()... Hit Ctrl-C to end."), None);
    }
}
