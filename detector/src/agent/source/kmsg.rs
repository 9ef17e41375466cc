//! The kernel's log, record by record (`Documentation/ABI/testing/dev-kmsg`).

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags, SeekFrom},
    io::Errno,
};
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use super::small_file;

/// The log, below the root of the file system.
const KMSG: &str = "/dev/kmsg";

/// Largest record: 8 KiB of text with its prefix (`CONSOLE_EXT_LOG_MAX`, `include/linux/printk.h`; newer kernels have 2 KiB),
/// and as much again. The kernel refuses to read into less than the record.
const RECORD_BYTES: usize = 16 << 10;

/// The kernel's log from now on.
#[derive(Debug)]
pub struct Kmsg {
    file: Arc<OwnedFd>,
    /// The same, as long as its lines shall wake anybody.
    wake: Option<AsyncFd<Arc<OwnedFd>>>,
    path: PathBuf,
    /// Number of the last record.
    last: Option<u64>,
    /// Records were overwritten since.
    overrun: bool,
    buffer: Vec<u8>,
}

/// Why the log cannot be read.
#[derive(Debug, Error)]
pub enum KmsgError {
    /// There is no such device.
    #[error("opening {}: there is no such device (in a container it must be mounted)", path.display())]
    Missing {
        /// The device.
        path: PathBuf,
    },
    /// It may not be opened. While `kernel.dmesg_restrict` is 1 it takes CAP_SYSLOG (`devkmsg_open`,
    /// `kernel/printk/printk.c`); and the device's owner and the device cgroup have a say.
    #[error(
        "opening {}: not permitted; it needs CAP_SYSLOG where kernel.dmesg_restrict is 1, and the right to read the device",
        path.display()
    )]
    NotPermitted {
        /// The device.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("{what} {}", path.display())]
    Other {
        /// What was attempted.
        what: &'static str,
        /// The device.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// What a look at the log found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// A record, and how many before it were overwritten before they could be read.
    Record {
        /// Number of records lost right before this one.
        lost: u64,
    },
    /// Nothing more for now.
    Nothing,
}

impl Kmsg {
    /// Opens the log of the machine seen through `root` (`/` for this machine) and goes to its end: what was written
    /// before is not read. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If there is no such device, it may not be opened, or it cannot be waited for.
    pub fn open(root: &Path) -> Result<Self, KmsgError> {
        let path = small_file::under(root, KMSG);
        let other = |what, source: io::Error| KmsgError::Other { what, path: path.clone(), source };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR | Errno::NXIO | Errno::NODEV => KmsgError::Missing { path: path.clone() },
            Errno::PERM | Errno::ACCESS => KmsgError::NotPermitted { path: path.clone(), source: error.into() },
            error => other("opening", error.into()),
        })?;
        rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(|error| other("going to the end of", error.into()))?;
        let mut log =
            Self { file: Arc::new(fd), wake: None, path, last: None, overrun: false, buffer: vec![0; RECORD_BYTES] };
        log.listen()?;
        Ok(log)
    }

    /// From now on, and for what is there already, [`Kmsg::wait`] returns. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the log cannot be waited for.
    pub fn listen(&mut self) -> Result<(), KmsgError> {
        if self.wake.is_none() {
            // SAFETY: `OwnedFd` owns its descriptor, hands out the same one at each call, and `AsyncFd` owns a part in it, so
            // that the descriptor stays open and stays this file's as long as it is registered.
            let wake = unsafe { AsyncFd::register(Arc::clone(&self.file)) };
            let failed = |source| KmsgError::Other { what: "waiting for", path: self.path.clone(), source };
            self.wake = Some(wake.map_err(|error| failed(error.into()))?);
        }
        Ok(())
    }

    /// From now on no line wakes anybody: the kernel would do so for each.
    pub fn rest(&mut self) {
        self.wake = None;
    }

    /// Waits until there may be something to read. The log must then be read until there is nothing more: it wakes again
    /// only for what is written after. For ever while it rests.
    ///
    /// # Errors
    /// If the log cannot be waited for.
    pub async fn wait(&self) -> Result<(), KmsgError> {
        let Some(wake) = &self.wake else { return std::future::pending().await };
        match wake.readable().await {
            Ok(mut guard) => {
                guard.clear_ready();
                Ok(())
            }
            Err(source) => Err(KmsgError::Other { what: "waiting for", path: self.path.clone(), source }),
        }
    }

    /// Copies the next record into `record`, replacing what was there. If records were overwritten before they could be
    /// read, it goes on with the oldest that is left, and says how many are missing.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn next(&mut self, record: &mut Vec<u8>) -> Result<Read, KmsgError> {
        loop {
            match rustix::io::read(&self.file, self.buffer.as_mut_slice()) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(Read::Nothing),
                Ok(length) => {
                    record.clear();
                    record.extend_from_slice(self.buffer.get(..length).unwrap_or_default());
                    return Ok(Read::Record { lost: self.lost_before(record) });
                }
                // Overwritten: the next read gives the oldest record there is, whose number tells how many are missing.
                Err(Errno::PIPE) => self.overrun = true,
                Err(Errno::INTR) => {}
                Err(error) => {
                    let path = self.path.clone();
                    return Err(KmsgError::Other { what: "reading", path, source: error.into() });
                }
            }
        }
    }

    /// Records missing between the last one and this one; at least one if the kernel said so, also before the first.
    fn lost_before(&mut self, record: &[u8]) -> u64 {
        let overrun = u64::from(std::mem::take(&mut self.overrun));
        let Some(sequence) = sequence(record) else { return overrun };
        let lost = self.last.map_or(0, |last| sequence.saturating_sub(last.saturating_add(1)));
        self.last = Some(sequence);
        lost.max(overrun)
    }
}

/// Number of a record: the second field.
fn sequence(record: &[u8]) -> Option<u64> {
    let field = record.split(|byte| matches!(byte, b',' | b';')).nth(1)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Within a runtime, which `Kmsg::open` needs.
    fn open(root: &Path) -> Result<Kmsg, KmsgError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _within = runtime.enter();
        Kmsg::open(root)
    }

    #[test]
    fn a_missing_device_is_told_by_its_path() {
        let root = tempfile::tempdir().unwrap();
        let error = open(root.path()).unwrap_err();
        assert!(matches!(&error, KmsgError::Missing { path } if path.ends_with("dev/kmsg")), "{error}");
    }

    #[test]
    fn what_is_no_log_is_refused_and_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dev")).unwrap();
        let path = root.path().join("dev/kmsg");
        fs::write(&path, "6,1,2,-;text\n").unwrap();
        assert!(matches!(open(root.path()), Err(KmsgError::Other { what: "waiting for", .. })));
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(matches!(open(root.path()), Err(KmsgError::Other { what: "going to the end of", .. })));
    }

    #[test]
    fn a_refusal_names_what_is_needed() {
        let error =
            KmsgError::NotPermitted { path: "/dev/kmsg".into(), source: io::ErrorKind::PermissionDenied.into() };
        let text = error.to_string();
        assert!(text.contains("CAP_SYSLOG") && text.contains("kernel.dmesg_restrict"), "{text}");
    }

    #[test]
    fn the_number_of_a_record_is_its_second_field() {
        assert_eq!(sequence(b"6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n"), Some(339));
        assert_eq!(sequence(b"6;a,7"), None);
        assert_eq!(sequence(b""), None);
    }
}
