//! The kernel's own word on hung tasks: its log, and the settings of its watch.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Largest record of the log (`CONSOLE_EXT_LOG_MAX`, `kernel/printk/printk.c`).
const RECORD: usize = 8192;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Settings of the kernel's watch on hung tasks (`Documentation/admin-guide/sysctl/kernel.rst`): name, value for the
/// cases, value of a fresh kernel. Warnings stay as few as they are, so that seeing more is worth something.
const SETTINGS: [(&str, u64, u64); 3] = [
    ("hung_task_timeout_secs", TIMEOUT.as_secs(), 120),
    ("hung_task_check_interval_secs", 1, 0),
    ("hung_task_warnings", WARNINGS as u64, WARNINGS as u64),
];

/// What a task must hang at least to be told.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);

/// Warnings that the kernel writes before it falls silent.
pub(crate) const WARNINGS: usize = 10;

/// The kernel looks for hung tasks every second, until this is dropped.
pub(crate) struct Scans;

impl Scans {
    /// Changes the settings and gives the kernel its warnings back.
    pub(crate) fn often() -> Result<Self> {
        let scans = Self;
        for (name, value, _) in SETTINGS {
            set(name, value)?;
        }
        Ok(scans)
    }
}

impl Drop for Scans {
    fn drop(&mut self) {
        for (name, _, usual) in SETTINGS {
            if let Err(cause) = set(name, usual) {
                println!("GUEST {cause:#}");
            }
        }
    }
}

fn set(name: &str, value: u64) -> Result<()> {
    let path = format!("/proc/sys/kernel/{name}");
    fs::write(&path, value.to_string()).with_context(|| format!("writing {value} to {path}"))
}

/// What the kernel said about hung tasks since this was opened.
#[derive(Debug, Default)]
pub(crate) struct Warned {
    /// Process ids with the names of tasks that it warned of.
    pub(crate) tasks: BTreeMap<u32, String>,
    /// Tasks that wait for a mutex with those that hold it, on kernels that tell (Linux 6.16).
    pub(crate) holders: BTreeMap<u32, u32>,
}

/// The kernel's log from one moment on.
pub(crate) struct Log {
    file: File,
    warned: Warned,
}

impl Log {
    /// Opens it at its end.
    pub(crate) fn open() -> Result<Self> {
        let mut file =
            File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").context("opening /dev/kmsg")?;
        file.seek(SeekFrom::End(0)).context("going to the end of /dev/kmsg")?;
        Ok(Self { file, warned: Warned::default() })
    }

    /// Reads until `done` holds, or fails after `deadline`.
    pub(crate) fn until(&mut self, deadline: Duration, done: impl Fn(&Warned) -> bool) -> Result<&Warned> {
        let start = Instant::now();
        loop {
            self.read()?;
            if done(&self.warned) {
                return Ok(&self.warned);
            }
            if start.elapsed() > deadline {
                bail!("the kernel warned of no more than {:?} within {deadline:?}", self.warned.tasks);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// What it said so far.
    pub(crate) fn warned(&mut self) -> Result<&Warned> {
        self.read()?;
        Ok(&self.warned)
    }

    fn read(&mut self) -> Result<()> {
        let mut record = [0; RECORD];
        loop {
            match self.file.read(&mut record) {
                Ok(length) => self.warned.add(&String::from_utf8_lossy(&record[..length])),
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Records were overwritten before they were read; the next read goes on behind them.
                Err(cause) if cause.kind() == ErrorKind::BrokenPipe => {}
                Err(cause) => return Err(io::Error::into(cause)),
            }
        }
    }
}

impl Warned {
    /// Takes in one record: `3,1201,8123456,-;INFO: task NAME:PID blocked for more than 2 seconds.`
    fn add(&mut self, record: &str) {
        let Some((_, text)) = record.split_once(';') else { return };
        let Some(text) = text.lines().next().and_then(|line| line.strip_prefix("INFO: task ")) else { return };
        if let Some((task, lock)) = text.split_once(" is blocked on a ") {
            let holder = lock.strip_prefix("mutex likely owned by task ").and_then(named);
            if let (Some((task, _)), Some((holder, _))) = (named(task), holder) {
                self.holders.insert(task, holder);
            }
        } else if let Some((pid, name)) = text.split_once(" blocked ").and_then(|(task, _)| named(task)) {
            self.tasks.insert(pid, name.to_owned());
        }
    }
}

/// `NAME:PID`, perhaps with a full stop and more behind it. A name may contain colons.
fn named(text: &str) -> Option<(u32, &str)> {
    let (name, pid) = text.rsplit_once(':')?;
    let digits = pid.find(|c: char| !c.is_ascii_digit()).unwrap_or(pid.len());
    Some((pid[..digits].parse().ok()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_read_with_their_tasks_and_holders() {
        let mut warned = Warned::default();
        warned.add("3,1201,8123456,-;INFO: task a: b:97 blocked for more than 2 seconds.\n SUBSYSTEM=x\n");
        warned.add("3,1,2,-;INFO: task hang-writer:98 blocked in I/O wait for more than 2 seconds.\n");
        warned.add("3,1,2,-;INFO: task w:99 is blocked on a mutex likely owned by task h:98.\n");
        warned.add("3,1,2,-;INFO: task w:99 is blocked on a mutex, but the owner is not found.\n");
        warned.add("3,1,2,-;      Not tainted 6.12.1 #1\n");
        assert_eq!(warned.tasks.get(&97).map(String::as_str), Some("a: b"));
        assert_eq!(warned.tasks.len(), 2);
        assert_eq!(warned.holders, BTreeMap::from([(99, 98)]));
    }
}
