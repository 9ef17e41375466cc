//! What a process costs, as the kernel tells it: memory, wake-ups, time on a CPU.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// Ticks per second in `/proc/PID/stat`: `USER_HZ`, which is 100 wherever we run (proc_pid_stat(5)).
const TICKS: u64 = 100;

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resident {
    /// All of it (`VmRSS`).
    pub(super) total: u64,
    /// What is its own, not of files (`RssAnon`).
    pub(super) anonymous: u64,
    /// The most that it ever was (`VmHWM`).
    pub(super) peak: u64,
}

impl Resident {
    /// That of process `pid` now.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let status = read(&format!("/proc/{pid}/status"))?;
        let bytes = |key| field(&status, key).map(|kilobytes| kilobytes * 1024);
        Ok(Self { total: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")?, peak: bytes("VmHWM:")? })
    }

    /// For people.
    pub(super) fn shown(self) -> String {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let (total, anonymous, peak) = (mb(self.total), mb(self.anonymous), mb(self.peak));
        format!("{total:.1} MB, {anonymous:.1} of it anonymous; peak {peak:.1}")
    }
}

/// How often the threads of process `pid` went to sleep and so were woken again.
pub(super) fn wake_ups(pid: u32) -> Result<u64> {
    let of_thread = |thread: &str| field(&read(&format!("{thread}/status"))?, "voluntary_ctxt_switches:");
    threads(pid)?.iter().map(|thread| of_thread(thread)).sum()
}

/// Time that all threads of process `pid` that live have spent on a CPU (first number of `/proc/PID/task/TID/schedstat`,
/// `Documentation/scheduler/sched-stats.rst`): exact to nanoseconds.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    for thread in threads(pid)? {
        let text = read(&format!("{thread}/schedstat"))?;
        let first = text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        sum += first.with_context(|| format!("find a number in {thread}/schedstat"))?;
    }
    Ok(Duration::from_nanos(sum))
}

/// User and system time of process `pid`, with threads that have ended (`utime`, `stime`): exact to 10 ms.
pub(super) fn user_and_system(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let ticks = ticks(&read(&path)?).with_context(|| format!("find utime and stime in {path}"))?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS))
}

/// Fields 14 and 15 together; the name, field 2, may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

fn threads(pid: u32) -> Result<Vec<String>> {
    let directory = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&directory).with_context(|| format!("read {directory}"))?;
    entries.map(|entry| Ok(entry?.path().display().to_string())).collect()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

/// The number behind `key` in a file of `/proc/PID/` (proc_pid_status(5)).
pub(super) fn field(text: &str, key: &str) -> Result<u64> {
    let number = text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("find {key} in a file of /proc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voluntary_switches_are_not_taken_for_the_others() {
        let status = "VmRSS:\t    4448 kB\nvoluntary_ctxt_switches:\t1\nnonvoluntary_ctxt_switches:\t15\n";
        assert_eq!(field(status, "VmRSS:").ok(), Some(4448));
        assert_eq!(field(status, "voluntary_ctxt_switches:").ok(), Some(1));
        assert!(field(status, "VmSwap:").is_err());
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_times() {
        assert_eq!(ticks("7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 1 0"), Some(42));
        assert_eq!(ticks("7 (cut) S 1"), None);
    }
}
