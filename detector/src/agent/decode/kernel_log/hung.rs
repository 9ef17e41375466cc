//! Lines of the hung-task watch (`kernel/hung_task.c`).

use super::{LogEvent, comm, cut, cut_last, number};
use crate::agent::decode::event::{Comm, LockKind};

/// A task hangs. Told at each scan, as long as `kernel.hung_task_warnings` (10 a boot) lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskBlocked {
    /// Its name.
    pub comm: Comm,
    /// Its thread id.
    pub pid: u32,
    /// Seconds since the kernel's watch found it waiting, rounded down.
    pub seconds: u64,
}

/// What a hung task waits for (Linux 6.16 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskBlocker {
    /// Name of the hung task.
    pub comm: Comm,
    /// Its thread id.
    pub pid: u32,
    /// Kind of lock; `None` is a semaphore of readers and writers, wanted as which of both is not told.
    pub lock: Option<LockKind>,
    /// Name and thread id of the task that most likely holds it, or held it last; `None` if the kernel found none.
    pub holder: Option<(Comm, u32)>,
}

const TASK: &[u8] = b"INFO: task ";
const SILENCED: &[u8] = b"Future hung task reports are suppressed";

/// What stands between the hung task and the holder, with the kind of lock. Each is longer than a task's name can be.
const OWNED: [(&[u8], LockKind); 4] = [
    (b" is blocked on a mutex likely owned by task ", LockKind::Mutex),
    (b" blocked on a semaphore likely last held by task ", LockKind::Semaphore),
    (b" <reader> blocked on an rw-semaphore likely owned by task ", LockKind::RwsemReader),
    (b" <writer> blocked on an rw-semaphore likely owned by task ", LockKind::RwsemWriter),
];

/// What stands behind a hung task whose holder was not found.
const ORPHANED: [(&[u8], Option<LockKind>); 3] = [
    (b" is blocked on a mutex, but the owner is not found.", Some(LockKind::Mutex)),
    (b" is blocked on a semaphore, but the last holder is not found.", Some(LockKind::Semaphore)),
    (b" is blocked on an rw-semaphore, but the owner is not found.", None),
];

pub(super) fn event(text: &[u8]) -> Option<LogEvent> {
    if text.starts_with(SILENCED) {
        return Some(LogEvent::HungTasksSilenced);
    }
    let text = text.strip_prefix(TASK)?;
    blocked(text).map(LogEvent::TaskBlocked).or_else(|| blocker(text).map(LogEvent::TaskBlocker))
}

fn blocked(text: &[u8]) -> Option<TaskBlocked> {
    let (before, seconds) = cut_last(text.strip_suffix(b" seconds.")?, b" for more than ")?;
    // Since Linux 7.1 a task that waits for a device is told by other words.
    let named = before.strip_suffix(b" blocked in I/O wait").or_else(|| before.strip_suffix(b" blocked"))?;
    let (comm, pid) = task(named)?;
    Some(TaskBlocked { comm, pid, seconds: number(seconds)? })
}

fn blocker(text: &[u8]) -> Option<TaskBlocker> {
    for (words, kind) in OWNED {
        let Some((hung, holder)) = cut(text, words) else { continue };
        let (comm, pid) = task(hung)?;
        let holder = match kind {
            LockKind::RwsemReader | LockKind::RwsemWriter => {
                holder.strip_suffix(b" <reader>").or_else(|| holder.strip_suffix(b" <writer>"))?
            }
            // Whether a full stop ends the line differs between the two.
            LockKind::Mutex | LockKind::Semaphore => holder.strip_suffix(b".").unwrap_or(holder),
        };
        return Some(TaskBlocker { comm, pid, lock: Some(kind), holder: Some(task(holder)?) });
    }
    let (named, lock) = ORPHANED.iter().find_map(|(words, lock)| Some((text.strip_suffix(*words)?, *lock)))?;
    let (comm, pid) = task(named)?;
    Some(TaskBlocker { comm, pid, lock, holder: None })
}

/// `NAME:NUMBER`; a name may have colons of its own, such as `kworker/0:1`.
fn task(named: &[u8]) -> Option<(Comm, u32)> {
    let (name, pid) = cut_last(named, b":")?;
    Some((comm(name)?, number(pid)?))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::agent::decode::kernel_log::{
        parse,
        tests::{event, name},
    };

    // Linux 7.3 and 5.10 (recorded); then a test list of 7.1's wording; then built.
    #[rstest]
    #[case::a_name_with_a_colon("INFO: task hang:0 (x) :152 blocked for more than 2 seconds.", "hang:0 (x) ", 152, 2)]
    #[case::a_worker("INFO: task kworker/2:3:117 blocked for more than 120 seconds.", "kworker/2:3", 117, 120)]
    #[case::of_a_device("INFO: task dd:456 blocked in I/O wait for more than 122 seconds.", "dd", 456, 122)]
    #[case::a_name_like_the_line("INFO: task a:1 blocked:7 blocked for more than 5 seconds.", "a:1 blocked", 7, 5)]
    fn a_hung_task(#[case] text: &str, #[case] comm: &str, #[case] pid: u32, #[case] seconds: u64) {
        let expected = TaskBlocked { comm: name(comm), pid, seconds };
        assert_eq!(event(text), Some(LogEvent::TaskBlocked(expected)));
    }

    #[rstest]
    #[case::no_number("INFO: task x: blocked for more than 2 seconds.")]
    #[case::no_name_end("INFO: task x blocked for more than 2 seconds.")]
    #[case::more_behind("INFO: task x:1 blocked for more than 2 seconds. Or so.")]
    #[case::another("INFO: task x:1 can't die for more than 143 seconds.")]
    fn no_hung_task(#[case] text: &str) {
        assert_eq!(event(text), None);
    }

    #[rstest]
    // A public hang report on 7.0-rc2; mails that proposed the lines for mutex, semaphore and rw-semaphore (2025).
    #[case::a_mutex(
        "INFO: task systemd-udevd:2268 is blocked on a mutex likely owned by task systemd-udevd:2258.",
        ("systemd-udevd", 2268), Some(LockKind::Mutex), Some(("systemd-udevd", 2258))
    )]
    #[case::a_mutex_of_a_worker(
        "INFO: task kworker/0:0:9 is blocked on a mutex likely owned by task kworker/1:66:4095.",
        ("kworker/0:0", 9), Some(LockKind::Mutex), Some(("kworker/1:66", 4095))
    )]
    #[case::a_semaphore(
        "INFO: task cat:1803 blocked on a semaphore likely last held by task cat:1802",
        ("cat", 1803), Some(LockKind::Semaphore), Some(("cat", 1802))
    )]
    #[case::a_reader(
        "INFO: task NvmlTaskRunner:11290 <reader> blocked on an rw-semaphore likely owned by task VLLM::EngineCor:46249 <writer>",
        ("NvmlTaskRunner", 11_290), Some(LockKind::RwsemReader), Some(("VLLM::EngineCor", 46_249))
    )]
    #[case::a_writer(
        "INFO: task rw_sem_thread2:36526 <writer> blocked on an rw-semaphore likely owned by task rw_sem_thread1:36525 <writer>",
        ("rw_sem_thread2", 36_526), Some(LockKind::RwsemWriter), Some(("rw_sem_thread1", 36_525))
    )]
    // A public hang report; then the texts of `kernel/hung_task.c`, 6.17.
    #[case::an_rw_semaphore_of_nobody(
        "INFO: task worker:488783 is blocked on an rw-semaphore, but the owner is not found.",
        ("worker", 488_783), None, None
    )]
    #[case::a_mutex_of_nobody(
        "INFO: task a:1 is blocked on a mutex, but the owner is not found.",
        ("a", 1), Some(LockKind::Mutex), None
    )]
    #[case::a_semaphore_of_nobody(
        "INFO: task a:1 is blocked on a semaphore, but the last holder is not found.",
        ("a", 1), Some(LockKind::Semaphore), None
    )]
    fn what_a_hung_task_waits_for(
        #[case] text: &str,
        #[case] (comm, pid): (&str, u32),
        #[case] lock: Option<LockKind>,
        #[case] holder: Option<(&str, u32)>,
    ) {
        let holder = holder.map(|(comm, pid)| (name(comm), pid));
        assert_eq!(event(text), Some(LogEvent::TaskBlocker(TaskBlocker { comm: name(comm), pid, lock, holder })));
    }

    #[test]
    fn a_recorded_log_tells_as_many_as_the_kernel_was_allowed_to() {
        let file = include_bytes!("../../../../../tests/fixtures/kmsg/names-groups-hangs-7.3.log");
        let lines = file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b" "));
        let events = lines.filter_map(|line| parse(line).expect("a record").event());
        let told = events.filter_map(|event| match event {
            LogEvent::TaskBlocked(task) => Some((task.pid, task.seconds)),
            LogEvent::HungTasksSilenced => Some((0, 0)),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        assert_eq!(told, [(152, 2), (153, 2), (154, 2), (152, 3), (153, 3), (154, 3), (152, 4), (0, 0)]);
    }
}
