//! The kernel's own times of decision and kill, by ftrace: a witness that belongs to no tool.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result};

const TRACING: &str = "/sys/kernel/tracing";

/// When a victim was killed, in nanoseconds of the boot clock. ftrace shows microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// `oom_kill_process` was entered: where the peers look.
    pub(crate) decision_ns: u64,
    /// The victim was marked: it is killed now.
    pub(crate) mark_ns: u64,
}

/// A running trace.
pub(crate) struct Trace(());

impl Trace {
    /// Starts it, on the boot clock.
    pub(crate) fn start() -> Result<Self> {
        write("trace_clock", "boot")?;
        write("kprobe_events", "p:detector/decision oom_kill_process")?;
        write("events/detector/decision/enable", "1")?;
        write("events/oom/mark_victim/enable", "1")?;
        Ok(Self(()))
    }

    /// The times of all victims so far.
    pub(crate) fn times(&self) -> Result<HashMap<u32, Times>> {
        let path = Path::new(TRACING).join("trace");
        Ok(parse(&fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?))
    }
}

fn write(file: &str, text: &str) -> Result<()> {
    let path = Path::new(TRACING).join(file);
    fs::write(&path, text).with_context(|| format!("writing {text:?} to {}", path.display()))
}

/// Reads lines such as `oom-eater-71 [001] d..1. 12.345678: mark_victim: pid=72 …`: a mark belongs to the decision
/// before it, because kills come one after the other.
fn parse(trace: &str) -> HashMap<u32, Times> {
    let (mut times, mut decision_ns) = (HashMap::new(), 0);
    for line in trace.lines() {
        if let Some((before, _)) = line.split_once(": decision: ") {
            decision_ns = time(before).unwrap_or(decision_ns);
        } else if let Some((before, after)) = line.split_once(": mark_victim: ") {
            let pid = after.split(|c: char| c.is_whitespace() || c == ',').find_map(|word| word.strip_prefix("pid="));
            if let (Some(pid), Some(mark_ns)) = (pid.and_then(|pid| pid.parse().ok()), time(before)) {
                times.insert(pid, Times { decision_ns, mark_ns });
            }
        }
    }
    times
}

/// The time at the end of `before`: seconds and microseconds.
fn time(before: &str) -> Option<u64> {
    let (seconds, micros) = before.rsplit(' ').next()?.split_once('.')?;
    let (seconds, micros): (u64, u64) = (seconds.parse().ok()?, micros.parse().ok()?);
    Some((seconds * 1_000_000 + micros) * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_belongs_to_the_decision_before_it() {
        let trace = "# tracer: nop\n\
            \x20      oom-eater-71  [001] d..2.    12.345678: decision: (oom_kill_process+0x0/0x120)\n\
            \x20      oom-eater-71  [001] d..1.    12.346001: mark_victim: pid=72 comm=oom-eater total-vm=1kB\n";
        let times = Times { decision_ns: 12_345_678_000, mark_ns: 12_346_001_000 };
        assert_eq!(parse(trace), HashMap::from([(72, times)]));
    }
}
