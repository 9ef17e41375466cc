//! What the agent uses itself, read when it is asked for.

use std::{fs, sync::OnceLock};

use rustix::process::{Resource, getrlimit};

use crate::{
    agent::source::small_file,
    clock::{self, USER_TICK_NS, WallClock},
};

/// Largest `/proc/self/stat` that is read, in bytes: it has some 300.
const LIMIT: u64 = 4096;

/// The process's figures; `None` where the kernel does not tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Process {
    /// Processor time in seconds.
    pub(super) cpu_seconds: f64,
    /// Resident memory in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// When it started, seconds since 1970 UTC.
    pub(super) start_seconds: Option<f64>,
    /// Open file descriptors.
    pub(super) open_fds: Option<u64>,
    /// Limit of these; `None` also if there is none.
    pub(super) max_fds: Option<u64>,
}

impl Process {
    /// Of this process, now.
    pub(super) fn read() -> Self {
        let stat = small_file::read("/proc/self/stat".as_ref(), LIMIT).ok().flatten();
        let stat = stat.and_then(|file| Stat::parse(&String::from_utf8_lossy(&file.bytes)));
        // The directory that is read is open itself.
        let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count().saturating_sub(1) as u64);
        Self {
            cpu_seconds: clock::process_time().as_secs_f64(),
            resident_bytes: stat.map(|stat| stat.resident_pages.saturating_mul(rustix::param::page_size() as u64)),
            start_seconds: stat.map(|stat| started(stat.start_ticks)),
            open_fds: open.ok(),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}

/// Start of the process. Measured once: the wall clock may be set, but a start that moves would look like a restart.
fn started(ticks: u64) -> f64 {
    static STARTED: OnceLock<f64> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let boot_ns = ticks.saturating_mul(USER_TICK_NS);
        WallClock::measure().time(boot_ns).as_duration().as_secs_f64()
    })
}

/// Fields of `/proc/self/stat` (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    /// When the process started, in ticks since boot.
    start_ticks: u64,
    /// Resident pages.
    resident_pages: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The name, in parentheses, may hold anything; what follows the last one is field 3 and on.
        let mut fields = line.rsplit_once(')')?.1.split_ascii_whitespace();
        let start_ticks = fields.nth(22 - 3)?.parse().ok()?;
        let resident_pages = fields.nth(24 - 23)?.parse().ok()?;
        Some(Self { start_ticks, resident_pages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_and_memory_are_found_behind_a_name_with_spaces_and_parentheses() {
        let line =
            "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 3 0 8123 1000000 777 18446744073709551615 1";
        assert_eq!(Stat::parse(line), Some(Stat { start_ticks: 8123, resident_pages: 777 }));
        assert_eq!(Stat::parse("42 (cut) S 1"), None);
    }

    #[test]
    fn this_process_started_in_the_past_and_has_open_files() {
        let process = Process::read();
        let now = WallClock::measure().time(clock::boot_ns()).as_duration().as_secs_f64();
        let start = process.start_seconds.unwrap();
        assert!(start > now - 86_400.0 && start < now + 0.1, "{start} {now}");
        assert!(process.open_fds.unwrap() >= 3);
        assert!(process.resident_bytes.unwrap() > 1 << 20);
    }
}
