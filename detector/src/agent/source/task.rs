//! What `/proc` tells of one task.
//!
//! A task that hangs may hold locks that other files of `/proc` wait for: `cmdline`, `environ`, `maps` and the like take
//! its `mmap_lock`, and whoever reads them hangs with it. `status`, `stat` and `comm` take no lock that is slept on.
//! `stack` waits for `exec_update_lock` (`lock_trace`, `fs/proc/base.c`), which a task that hangs in the middle of
//! execve(2) holds: it is read by a thread of its own that is not waited for without end.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use detector_common::oom::COMM_LENGTH;
use thiserror::Error;

use super::{
    frame::Frame,
    small_file::{self, under},
};

/// Largest file that is read, in bytes. A stack has at most 64 lines (`MAX_STACK_TRACE_DEPTH`).
const LIMIT: u64 = 64 << 10;
/// How long a stack is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// Threads that wait for a stack in vain at most. Beyond it none is read until one of them comes back.
const MAX_STUCK: usize = 4;
/// Memory for the stack of such a thread: it reads one small file.
const THREAD_STACK: usize = 128 << 10;

/// Why `/proc` did not tell.
#[derive(Debug, Error)]
pub enum TaskError {
    /// A file cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("reading {}: it lacks {what}", path.display())]
    Lacks {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// No answer in time.
    #[error("reading {}: no answer within {PATIENCE:?}", path.display())]
    Stuck {
        /// The file.
        path: PathBuf,
    },
    /// The thread that reads cannot be started.
    #[error("starting a thread to read the stack of a task")]
    Thread(#[source] io::Error),
}

/// What a look at a task found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// There is no such task.
    Gone,
    /// There is.
    Seen(Seen),
}

/// A task as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Thread group: what user space calls the pid.
    pub tgid: u32,
    /// Its name, NUL padded.
    pub comm: [u8; COMM_LENGTH],
    /// How often it was switched away from, by its own will or not.
    pub switches: u64,
    /// Start of the task, nanoseconds since boot, rounded down to a tick of user space (10 ms).
    pub start_ns: u64,
    /// Its state, as in proc_pid_stat(5).
    pub state: State,
}

/// States of a task, as far as they matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// `D`: uninterruptible sleep.
    Uninterruptible,
    /// `Z`, `X`: it ended and waits for its parent.
    Dead,
    /// Any other: it runs, may run, or waits for something that signals end.
    Other,
}

/// Setting of the time after which the kernel calls a task hung (`Documentation/admin-guide/sysctl/kernel.rst`).
const TIMEOUT: &str = "/proc/sys/kernel/hung_task_timeout_secs";

/// Seconds after which the kernel calls a task hung; 0: it does not look. `None`: it has no watch for hung tasks.
#[must_use]
pub fn hung_task_timeout(root: &Path) -> Option<u64> {
    setting(root, TIMEOUT)
}

/// Setting of the time between two scans of the kernel's watch; 0: as [`TIMEOUT`].
const CHECK_INTERVAL: &str = "/proc/sys/kernel/hung_task_check_interval_secs";

/// Time between two scans of the kernel's watch: its interval, but no longer than its timeout (`watchdog`,
/// `kernel/hung_task.c`). `None`: it does not scan.
#[must_use]
pub fn hung_task_scan(root: &Path) -> Option<Duration> {
    let timeout = hung_task_timeout(root).filter(|seconds| *seconds > 0)?;
    let interval = setting(root, CHECK_INTERVAL).filter(|seconds| *seconds > 0);
    Some(Duration::from_secs(interval.map_or(timeout, |interval| interval.min(timeout))))
}

fn setting(root: &Path, path: &str) -> Option<u64> {
    let file = small_file::read(&under(root, path), LIMIT).ok()??;
    std::str::from_utf8(&file.bytes).ok()?.trim().parse().ok()
}

/// What `/proc/self/ns/pid` of the machine's own pid namespace points to: its inode number is fixed (`PROC_PID_INIT_INO`,
/// `include/linux/proc_ns.h`).
const MACHINES_PIDS: &str = "pid:[4026531836]";

/// Whether this process lives in the machine's own pid namespace. In another one the numbers that the kernel tells are not
/// those of `/proc`: looked up there, a task is gone or somebody else.
#[must_use]
pub fn sees_the_machine(root: &Path) -> bool {
    std::fs::read_link(under(root, "/proc/self/ns/pid")).map_or(true, |target| target == Path::new(MACHINES_PIDS))
}

/// Looks at task `tid`, which may be any thread. Never waits for the task.
///
/// # Errors
/// If its files cannot be read or understood; that says nothing of the task.
pub fn look(root: &Path, tid: u32) -> Result<Look, TaskError> {
    // In this order: if the number is given to another task in between, the start that is told is the other's.
    let Some((path, status)) = read(root, tid, "status")? else { return Ok(Look::Gone) };
    let status = String::from_utf8_lossy(&status);
    let lacks = |what| TaskError::Lacks { path: path.clone(), what };
    let number =
        |key: &'static str| field(&status, key).and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| lacks(key));
    let tgid = u32::try_from(number("Tgid")?).map_err(|_| lacks("Tgid"))?;
    let switches = number("voluntary_ctxt_switches")?.saturating_add(number("nonvoluntary_ctxt_switches")?);
    let state = match field(&status, "State").and_then(|text| text.bytes().next()).ok_or_else(|| lacks("State"))? {
        b'D' => State::Uninterruptible,
        b'Z' | b'X' => State::Dead,
        _ => State::Other,
    };
    let Some((path, stat)) = read(root, tid, "stat")? else { return Ok(Look::Gone) };
    let (comm, ticks) = of_stat(&stat).ok_or(TaskError::Lacks { path, what: "name and start" })?;
    let start_ns = ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1));
    Ok(Look::Seen(Seen { tgid, comm, switches, start_ns, state }))
}

/// Name of task `tid`; `None` if it is gone or unreadable.
#[must_use]
pub fn comm(root: &Path, tid: u32) -> Option<[u8; COMM_LENGTH]> {
    let (_, name) = read(root, tid, "comm").ok()??;
    Some(padded(name.strip_suffix(b"\n").unwrap_or(&name)))
}

/// Reads files of tasks that may make the reader wait without end, with patience that ends.
#[derive(Debug, Default)]
pub struct PatientReader {
    /// Threads that did not come back.
    stuck: Arc<AtomicUsize>,
}

impl PatientReader {
    /// The kernel stack of task `tid`, innermost frame first; empty if it is gone. Needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// If it cannot be read, or not in time.
    pub fn stack(&self, root: &Path, tid: u32) -> Result<Vec<Frame>, TaskError> {
        let root = root.to_owned();
        let path = file(&root, tid, "stack");
        let text = self.within(PATIENCE, path, move || read(&root, tid, "stack"))?;
        let text = text.map(|(_, bytes)| bytes).unwrap_or_default();
        Ok(String::from_utf8_lossy(&text).lines().filter_map(Frame::of_line).collect())
    }

    /// Whether file `name` of task `tid` can be read in time, which says that the next reader need not wait either.
    ///
    /// # Errors
    /// If it cannot be read, or not in time.
    pub fn answers(&self, root: &Path, tid: u32, name: &'static str) -> Result<bool, TaskError> {
        let root = root.to_owned();
        let path = file(&root, tid, name);
        Ok(self.within(PATIENCE, path, move || read(&root, tid, name))?.is_some())
    }

    fn within<T: Send + 'static>(
        &self,
        patience: Duration,
        path: PathBuf,
        work: impl FnOnce() -> Result<T, TaskError> + Send + 'static,
    ) -> Result<T, TaskError> {
        if self.stuck.load(Ordering::Relaxed) >= MAX_STUCK {
            return Err(TaskError::Stuck { path });
        }
        self.stuck.fetch_add(1, Ordering::Relaxed);
        let (stuck, (answer, wait)) = (Arc::clone(&self.stuck), mpsc::sync_channel(1));
        let thread = thread::Builder::new().name("stack".to_owned()).stack_size(THREAD_STACK).spawn(move || {
            let result = work();
            stuck.fetch_sub(1, Ordering::Relaxed);
            // Nobody waits any more: the answer came too late to be of use.
            answer.send(result).ok();
        });
        if let Err(error) = thread {
            self.stuck.fetch_sub(1, Ordering::Relaxed);
            return Err(TaskError::Thread(error));
        }
        wait.recv_timeout(patience).unwrap_or(Err(TaskError::Stuck { path }))
    }
}

fn file(root: &Path, tid: u32, name: &str) -> PathBuf {
    under(root, "/proc").join(tid.to_string()).join(name)
}

/// Path and content; `None` if the task is gone.
fn read(root: &Path, tid: u32, name: &str) -> Result<Option<(PathBuf, Vec<u8>)>, TaskError> {
    let path = file(root, tid, name);
    match small_file::read(&path, LIMIT) {
        Ok(found) => Ok(found.map(|file| (path, file.bytes))),
        // It went between opening and reading.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(source) => Err(TaskError::Read { path, source }),
    }
}

/// Value of a line `key:\tvalue`.
fn field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// Name and start in ticks: fields 2 and 22 of proc_pid_stat(5). The name stands in brackets and may hold any byte.
fn of_stat(stat: &[u8]) -> Option<([u8; COMM_LENGTH], u64)> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let ticks = rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
    Some((padded(stat.get(open + 1..close)?), ticks))
}

/// As the kernel keeps it: at most 15 bytes. `/proc` tells longer names of workers.
fn padded(name: &[u8]) -> [u8; COMM_LENGTH] {
    let mut comm = [0; COMM_LENGTH];
    for (to, from) in comm.iter_mut().take(COMM_LENGTH - 1).zip(name) {
        *to = *from;
    }
    comm
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const STATUS: &str = "Name:\tdd\nUmask:\t0022\nState:\tD (disk sleep)\nTgid:\t4711\nNgid:\t0\nPid:\t4712\n\
                          voluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n";
    const STAT: &str =
        "4712 (a) b) D 1 4711 4711 0 -1 4194304 82 0 0 0 0 0 0 0 20 0 2 0 12345 3055616 256 18446 1 1 0 0";

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("proc/4712");
        fs::create_dir_all(&directory).expect("a directory");
        for (name, content) in files {
            fs::write(directory.join(name), content).expect("a file");
        }
        root
    }

    #[test]
    fn a_look_tells_group_switches_start_and_state() {
        let root = machine(&[("status", STATUS), ("stat", STAT)]);
        let Look::Seen(seen) = look(root.path(), 4712).expect("readable") else { panic!("it is there") };
        assert_eq!((seen.tgid, seen.switches, seen.state), (4711, 42, State::Uninterruptible));
        assert_eq!(seen.start_ns, 123_450_000_000);
        assert_eq!(&seen.comm[..5], b"a) b\0");
    }

    #[test]
    fn a_scan_comes_at_its_interval_but_no_later_than_the_timeout() {
        let scan = |timeout: &str, interval: &str| {
            let root = tempfile::tempdir().expect("a directory");
            let directory = root.path().join("proc/sys/kernel");
            fs::create_dir_all(&directory).expect("a directory");
            fs::write(directory.join("hung_task_timeout_secs"), timeout).expect("a file");
            fs::write(directory.join("hung_task_check_interval_secs"), interval).expect("a file");
            hung_task_scan(root.path()).map(|scan| scan.as_secs())
        };
        assert_eq!(scan("120\n", "0\n"), Some(120));
        assert_eq!(scan("120\n", "10\n"), Some(10));
        assert_eq!(scan("20\n", "60\n"), Some(20));
        assert_eq!(scan("0\n", "10\n"), None);
        assert_eq!(hung_task_scan(Path::new("/nowhere")), None);
    }

    #[test]
    fn no_files_is_a_task_that_is_gone() {
        assert_eq!(look(machine(&[]).path(), 4712).expect("an answer"), Look::Gone);
        assert_eq!(look(machine(&[("status", STATUS)]).path(), 4712).expect("an answer"), Look::Gone);
    }

    #[test]
    fn a_file_that_lacks_something_is_no_task_that_is_gone() {
        let root = machine(&[("status", "Name:\tdd\nState:\tD\n"), ("stat", STAT)]);
        let error = look(root.path(), 4712).expect_err("no Tgid");
        assert!(error.to_string().ends_with("/proc/4712/status: it lacks Tgid"), "{error}");
        let root = machine(&[("status", STATUS), ("stat", "4712 (dd D 1")]);
        assert!(look(root.path(), 4712).is_err());
    }

    #[test]
    fn this_process_is_seen_as_it_is() {
        let own = std::process::id();
        let Look::Seen(seen) = look(Path::new("/"), own).expect("readable") else { panic!("it is there") };
        assert_eq!((seen.tgid, seen.state == State::Dead), (own, false));
        assert!(seen.start_ns <= crate::clock::boot_ns());
        assert!(comm(Path::new("/"), own).is_some());
    }

    #[test]
    fn a_stack_is_read_line_by_line() {
        let stack = "[<0>] io_schedule+0x46/0x80\n[<0>] ext4_map_blocks+0x12/0x5d0 [ext4]\n";
        let root = machine(&[("stack", stack)]);
        let frames = PatientReader::default().stack(root.path(), 4712).expect("readable");
        let told: Vec<String> = frames.iter().map(Frame::to_string).collect();
        assert_eq!(told, ["io_schedule+0x46", "ext4_map_blocks+0x12 [ext4]"]);
    }

    #[test]
    fn threads_that_never_come_back_are_few_and_not_waited_for() {
        let reader = PatientReader::default();
        let (never, forever) = mpsc::sync_channel::<()>(1);
        let forever = Arc::new(std::sync::Mutex::new(forever));
        let mut attempts = 0;
        for _ in 0..2 * MAX_STUCK {
            let forever = Arc::clone(&forever);
            let waits = move || {
                forever.lock().map(|forever| forever.recv().ok()).ok();
                Ok(())
            };
            let before = reader.stuck.load(Ordering::Relaxed);
            assert!(matches!(reader.within(Duration::ZERO, "stack".into(), waits), Err(TaskError::Stuck { .. })));
            attempts += usize::from(reader.stuck.load(Ordering::Relaxed) > before);
        }
        assert_eq!(attempts, MAX_STUCK);
        drop(never);
    }
}
