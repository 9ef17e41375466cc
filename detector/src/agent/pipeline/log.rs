//! The kernel's log on its way through the stages: a method of its own, or the witness of a better one.
//!
//! ```text
//! line ─▶ event ─▶ kill, hung task ─┬─ the detector lives by the log ──────────▶ told
//!                                   └─ it has a better method ─▶ witness ─ alone ─▶ told, and the method was silent
//! ```

use arrayvec::ArrayVec;

use crate::agent::{
    decode::{
        event::{Holder, HungTask, Lock, Stamp, Task},
        kernel_log::{self, LogError, LogEvent, TaskBlocked, TaskBlocker},
        log_clock::{LogClock, Now},
    },
    options::Detector,
    problem::{
        oom_log::{At, CPU_UNTOLD, LoggedKill, OomLog},
        witness::Witness,
    },
};

/// How long a hung task is held back for the line that names the lock and its holder. It stands behind the task's stack,
/// some dozens of lines later.
const HOLD_HANG_NS: u64 = 1_000_000_000;

/// What the log tells.
#[derive(Debug)]
pub(super) enum Logged {
    /// A process was killed.
    Kill(Box<LoggedKill>),
    /// A task hangs.
    Hang(Box<HungTask>),
}

impl Logged {
    /// Whose business it is.
    pub(super) const fn detector(&self) -> Detector {
        match self {
            Self::Kill(_) => Detector::Oom,
            Self::Hang(_) => Detector::HungTask,
        }
    }

    /// When it was written, nanoseconds since boot: approximate.
    pub(super) const fn boot_ns(&self) -> u64 {
        match self {
            Self::Kill(kill) => kill.mark.stamp.boot_ns,
            Self::Hang(event) => event.stamp.boot_ns,
        }
    }

    /// The task that it is about.
    pub(super) fn tid(&self) -> Option<u32> {
        match self {
            Self::Kill(kill) => kill.mark.victim.pid,
            Self::Hang(event) => event.task.pid,
        }
    }
}

/// The log, and what of it waits.
#[derive(Debug)]
pub(super) struct Log {
    clock: LogClock,
    kills: OomLog,
    witness: Witness<Logged>,
    /// A hung task that waits for the line on its lock, since when.
    hang: Option<(Box<HungTask>, u64)>,
    /// The log said that it tells of no further hung task.
    silent: bool,
    /// When the last line was read, nanoseconds since boot: that of the kill that is held back, too.
    read_ns: u64,
    /// Length of a jiffy in nanoseconds: lengths of hangs are kept in jiffies.
    tick_ns: u64,
}

impl Log {
    /// The log as it was at its end at the time `now`.
    pub(super) fn new(page_bytes: u64, tick_ns: u64, now: Now) -> Self {
        Self {
            clock: LogClock::default(),
            kills: OomLog::new(page_bytes, now.boot_ns),
            witness: Witness::default(),
            hang: None,
            silent: false,
            read_ns: now.boot_ns,
            tick_ns: tick_ns.max(1),
        }
    }

    /// Takes in one record of the log, read at the time `now`, and returns what it completes.
    ///
    /// # Errors
    /// If it has not the shape of one.
    pub(super) fn line(&mut self, record: &[u8], now: Now) -> Result<Vec<Logged>, LogError> {
        let line = kernel_log::parse(record)?;
        let Some(event) = line.event() else { return Ok(Vec::new()) };
        self.read_ns = now.boot_ns;
        let boot_ns = self.clock.boot_ns(line.time_us, now);
        let at = At { sequence: line.sequence, time_us: line.time_us, boot_ns };
        match event {
            LogEvent::HungTasksSilenced => {
                self.silent = true;
                Ok(Vec::new())
            }
            LogEvent::TaskBlocked(blocked) => {
                let stamp = Stamp { boot_ns, cpu: CPU_UNTOLD, sequence: line.sequence };
                let hang = Box::new(hung_task(&blocked, stamp, self.tick_ns));
                Ok(self
                    .hang
                    .replace((hang, now.boot_ns))
                    .map(|(earlier, _)| Logged::Hang(earlier))
                    .into_iter()
                    .collect())
            }
            LogEvent::TaskBlocker(blocker) => {
                let waits = self.hang.take_if(|(hang, _)| hang.task.pid == Some(blocker.pid));
                Ok(waits.map(|(hang, _)| Logged::Hang(with_lock(hang, &blocker))).into_iter().collect())
            }
            event => Ok(self.kills.push(event, at).into_iter().map(kill).collect()),
        }
    }

    /// Lines were lost. Returns what was held back.
    pub(super) fn lost(&mut self) -> Vec<Logged> {
        let kill = self.kills.lost().map(kill);
        self.held_hang().into_iter().chain(kill).collect()
    }

    /// What was held back long enough.
    pub(super) fn release(&mut self, now_ns: u64) -> Vec<Logged> {
        let kill = self.kills.release(now_ns).map(kill);
        let hang = self.hang.take_if(|(_, since)| since.saturating_add(HOLD_HANG_NS) <= now_ns);
        hang.map(|(hang, _)| Logged::Hang(hang)).into_iter().chain(kill).collect()
    }

    /// What is held back: nothing is read any more.
    pub(super) fn finish(&mut self) -> Vec<Logged> {
        let kill = self.kills.finish().map(kill);
        self.held_hang().into_iter().chain(kill).collect()
    }

    fn held_hang(&mut self) -> Option<Logged> {
        self.hang.take().map(|(hang, _)| Logged::Hang(hang))
    }

    /// Whether the log said that it tells of no further hung task; asked once each time.
    pub(super) fn takes_silence(&mut self) -> bool {
        std::mem::take(&mut self.silent)
    }

    /// When the last line of concern was read, nanoseconds since boot.
    pub(super) fn read_ns(&self) -> u64 {
        self.read_ns
    }

    /// What waits for its record, and what records wait for.
    pub(super) fn witness(&mut self) -> &mut Witness<Logged> {
        &mut self.witness
    }

    /// Whether anything is held back.
    pub(super) fn holds(&self) -> bool {
        self.kills.next_due().is_some() || self.hang.is_some()
    }

    /// When [`Log::release`] or the witness has something, nanoseconds since boot.
    pub(super) fn next_due(&self) -> Option<u64> {
        let hang = self.hang.as_ref().map(|(_, since)| since.saturating_add(HOLD_HANG_NS));
        self.kills.next_due().into_iter().chain(hang).chain(self.witness.next_due()).min()
    }
}

fn kill(kill: LoggedKill) -> Logged {
    Logged::Kill(Box::new(kill))
}

/// A hung task as the log tells it: no process, no cgroup, no stack. Its seconds are rounded down, and so is the length.
fn hung_task(blocked: &TaskBlocked, stamp: Stamp, tick_ns: u64) -> HungTask {
    HungTask {
        stamp,
        task: Task {
            tgid: None,
            pid: Some(blocked.pid),
            start_ns: None,
            leader_start_ns: None,
            comm: Some(blocked.comm),
            leader_comm: None,
            cgroup: None,
        },
        switches: None,
        hung_jiffies: Some(blocked.seconds.saturating_mul(1_000_000_000) / tick_ns),
        lock: None,
        stack: ArrayVec::new(),
    }
}

/// The log tells the holder as likely only, and by name and number alone.
fn with_lock(mut hang: Box<HungTask>, blocker: &TaskBlocker) -> Box<HungTask> {
    let holder = blocker.holder.map(|(comm, pid)| {
        let unknown =
            Task { tgid: None, start_ns: None, leader_start_ns: None, leader_comm: None, cgroup: None, ..hang.task };
        Holder { task: Task { pid: Some(pid), comm: Some(comm), ..unknown }, likely: true }
    });
    hang.lock = blocker.lock.map(|kind| Some(Lock { kind, holder }));
    hang
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::decode::event::LockKind;

    const NOW: Now = Now { boot_ns: 900_000_000_000, monotonic_ns: 900_000_000_000 };

    fn told(log: &mut Log, text: &str) -> Vec<Logged> {
        log.line(format!("3,77,899999000,-;{text}\n").as_bytes(), NOW).expect("a record")
    }

    #[test]
    fn a_blocked_task_is_a_hung_task_of_which_little_is_known() {
        let mut log = Log::new(4096, 4_000_000, NOW);
        assert!(told(&mut log, "INFO: task cp:812 blocked for more than 122 seconds.").is_empty());
        let events = log.release(log.next_due().expect("it waits"));
        let [Logged::Hang(hang)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((hang.task.pid, hang.task.tgid, hang.hung_jiffies), (Some(812), None, Some(30_500)));
        assert_eq!(hang.stamp.boot_ns, NOW.boot_ns);
        assert_eq!((events[0].detector(), events[0].tid()), (Detector::HungTask, Some(812)));
    }

    #[test]
    fn the_line_on_its_lock_completes_a_hung_task() {
        let mut log = Log::new(4096, 4_000_000, NOW);
        told(&mut log, "INFO: task cp:812 blocked for more than 122 seconds.");
        let events = told(&mut log, "INFO: task cp:812 is blocked on a mutex likely owned by task sync:813.");
        let [Logged::Hang(hang)] = events.as_slice() else { panic!("{events:?}") };
        let lock = hang.lock.flatten().expect("told");
        let holder = lock.holder.expect("told");
        assert_eq!((lock.kind, holder.task.pid, holder.likely), (LockKind::Mutex, Some(813), true));
        assert_eq!(log.next_due(), None);
    }

    #[test]
    fn another_hung_task_ends_the_wait_of_the_one_before() {
        let mut log = Log::new(4096, 4_000_000, NOW);
        told(&mut log, "INFO: task cp:812 blocked for more than 122 seconds.");
        let events = told(&mut log, "INFO: task cp:813 blocked for more than 122 seconds.");
        assert_eq!(events.iter().map(Logged::tid).collect::<Vec<_>>(), [Some(812)]);
        assert_eq!(log.finish().iter().map(Logged::tid).collect::<Vec<_>>(), [Some(813)]);
    }

    #[test]
    fn a_kill_waits_for_the_line_that_might_follow_and_is_then_released() {
        let mut log = Log::new(4096, 4_000_000, NOW);
        let line = "Out of memory: Killed process 5 (eater) total-vm:100kB, anon-rss:80kB, file-rss:4kB, shmem-rss:0kB, \
                    UID:0 pgtables:16kB oom_score_adj:0";
        assert!(told(&mut log, line).is_empty());
        let due = log.next_due().expect("it waits");
        assert!(log.release(due - 1).is_empty());
        assert_eq!(log.release(due).iter().map(Logged::tid).collect::<Vec<_>>(), [Some(5)]);
        assert_eq!(log.next_due(), None);
    }

    #[test]
    fn what_no_kernel_writes_is_refused() {
        let mut log = Log::new(4096, 4_000_000, NOW);
        assert!(log.line(b"no prefix", NOW).is_err());
    }
}
