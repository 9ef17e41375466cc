//! A file that holds records from the moment they leave the ring until what they led to is saved elsewhere.
//!
//! A process may be killed at any moment, also between taking a record and acting on it. So the record is written here
//! first, and its place in the ring given free afterwards: a record is in the ring, here, or in both, never in neither.
//! What is in both is told once by [`Seen`]. Nothing is flushed to the disk: the enemy is SIGKILL, which the page cache
//! survives; a power cut ends the boot, and with it all that the records tell of.
//!
//! ```text
//! head   magic (8) · ABI (4) · boot id (36)
//! frame  length (4) · checksum (4) · record        again and again
//! ```
//!
//! The file should lie on a tmpfs such as `/run`: it need not outlive the boot, and a file system that is frozen or waits
//! for a disk would hold up the reader. Numbers are in the machine's byte order; the file never leaves it.

mod frames;
mod seen;

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

use frames::{HEAD, Head};
pub use frames::{Replay, read};
pub use seen::{Moment, Seen};

/// Its name in the directory of the agent's state.
pub const FILE: &str = "spool";

/// Largest file in bytes: some 4,500 kills. State must be saved, and the file cleared, before it is full.
pub const LIMIT: u64 = 4 << 20;

/// Bytes from which the file should be cleared soon.
const HALF: u64 = LIMIT / 2;

/// The file, open.
#[derive(Debug)]
pub struct Spool {
    file: File,
    path: PathBuf,
    head: [u8; HEAD],
    /// Bytes that are valid.
    length: u64,
    /// Records of an earlier run that were not taken yet, oldest first.
    left: VecDeque<Vec<u8>>,
    /// What was found beside them, without records.
    found: Replay,
    /// The last attempt failed, and so did all since it was told.
    failing: bool,
    trouble: Option<SpoolError>,
    unspooled: u64,
    /// Frame in work, kept for its memory.
    frame: Vec<u8>,
}

/// Why records are not safe against a sudden end of this process.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The file cannot be opened, read or begun anew.
    #[error("{attempt} the spool {path}")]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A record could not be written: no space, or a read-only file system.
    #[error(
        "writing a record to the spool {path}: until this works again, records that are in work when this process is killed are lost"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It was not cleared for too long.
    #[error("writing a record to the spool {path}: it would exceed {LIMIT} bytes, because it was not cleared")]
    Full {
        /// The file.
        path: PathBuf,
    },
}

impl Spool {
    /// Opens the file, or makes it, and reads what is there. What another boot or another version of the records left is
    /// counted and dropped, as is a damaged end. `boot_id` is that of `/proc/sys/kernel/random/boot_id`.
    ///
    /// # Errors
    /// If the file cannot be opened or read. A missing directory is not made.
    pub fn open(path: &Path, boot_id: &str) -> Result<Self, SpoolError> {
        let failed = |attempt| {
            let path = path.to_owned();
            move |source| SpoolError::File { attempt, path, source }
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        // Neither somewhere else, nor waiting for whoever is at the other end of a FIFO.
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(path).map_err(failed("opening"))?;
        let mut bytes = Vec::new();
        (&file).take(LIMIT).read_to_end(&mut bytes).map_err(failed("reading"))?;
        let head = Head::of(boot_id);
        let mut found = read(&bytes, boot_id);
        let mut spool = Self {
            file,
            path: path.to_owned(),
            head: head.bytes(),
            length: found.valid_bytes,
            left: std::mem::take(&mut found.records).into(),
            found,
            failing: false,
            trouble: None,
            unspooled: 0,
            frame: Vec::new(),
        };
        if spool.length < HEAD as u64 {
            // As when a record cannot be written: the next one tries again, for a full disk may have room by then.
            spool.trouble = spool.clear().err();
            spool.failing = spool.trouble.is_some();
        } else {
            spool.file.set_len(spool.length).map_err(failed("cutting the damaged end of"))?;
        }
        Ok(spool)
    }

    /// The oldest record of an earlier run that was not taken yet. It stays in the file until that is cleared.
    pub fn take_left(&mut self) -> Option<Vec<u8>> {
        self.left.pop_front()
    }

    /// Whether records of an earlier run are to be taken.
    #[must_use]
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// What was found at the start and is of no use: without records.
    #[must_use]
    pub const fn found(&self) -> &Replay {
        &self.found
    }

    /// Writes a record. If that fails it is told by [`Self::take_trouble`], and the record goes on without.
    pub fn append(&mut self, record: &[u8]) {
        match self.try_append(record) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.unspooled += 1;
                if !self.failing {
                    self.trouble = Some(error);
                }
                self.failing = true;
            }
        }
    }

    /// Why records are not safe, once until they are again.
    pub const fn take_trouble(&mut self) -> Option<SpoolError> {
        self.trouble.take()
    }

    /// Records that could not be written since the last call.
    pub const fn take_unspooled(&mut self) -> u64 {
        std::mem::replace(&mut self.unspooled, 0)
    }

    /// Whether it is time to save what the records led to, and to clear the file.
    #[must_use]
    pub const fn wants_clearing(&self) -> bool {
        self.length > HALF
    }

    /// Whether it holds no record.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length <= HEAD as u64
    }

    /// Forgets all records, if none of an earlier run is left to be taken. To be called once all that those taken led to is
    /// saved.
    ///
    /// # Errors
    /// If the file cannot be cut. Then its records are found again at the next start: see [`Seen`].
    pub fn clear(&mut self) -> Result<(), SpoolError> {
        if self.has_left() {
            return Ok(());
        }
        let cleared = self.file.set_len(0).and_then(|()| self.file.write_all_at(&self.head, 0));
        // What cannot be told is not trusted: the next record begins the file again.
        self.length = if cleared.is_ok() { HEAD as u64 } else { 0 };
        cleared.map_err(|source| SpoolError::File { attempt: "clearing", path: self.path.clone(), source })
    }

    fn try_append(&mut self, record: &[u8]) -> Result<(), SpoolError> {
        if self.length == 0 {
            self.clear()?;
        }
        self.frame.clear();
        frames::append(&mut self.frame, record);
        let end = self.length + self.frame.len() as u64;
        if end > LIMIT {
            return Err(SpoolError::Full { path: self.path.clone() });
        }
        match self.file.write_all_at(&self.frame, self.length) {
            Ok(()) => {
                self.length = end;
                Ok(())
            }
            Err(source) => {
                // Half a frame is found out by its checksum, and the next one takes its place; this is tidiness.
                self.file.set_len(self.length).ok();
                Err(SpoolError::Write { path: self.path.clone(), source })
            }
        }
    }
}

#[cfg(test)]
mod tests;
