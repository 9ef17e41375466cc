//! Which kernel runs, and since which boot.

use std::{io, path::Path};

use thiserror::Error;

use super::small_file;

/// Longest line that is read, in bytes.
const LIMIT: u64 = 1024;

/// A file of `/proc` that does not tell what it should.
#[derive(Debug, Error)]
#[error("reading {path}")]
pub struct MachineError {
    /// The file.
    pub path: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its release, such as `6.12.48-amd64`.
    pub kernel: String,
    /// Random id of this boot.
    pub boot_id: String,
}

impl Machine {
    /// Reads them below `root`.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn read(root: &Path) -> Result<Self, MachineError> {
        Ok(Self {
            kernel: line(root, "proc/sys/kernel/osrelease")?,
            boot_id: line(root, "proc/sys/kernel/random/boot_id")?,
        })
    }
}

fn line(root: &Path, file: &str) -> Result<String, MachineError> {
    let path = root.join(file);
    match small_file::read(&path, LIMIT).and_then(|file| file.ok_or(io::ErrorKind::NotFound.into())) {
        Ok(file) => Ok(String::from_utf8_lossy(&file.bytes).trim_end().to_owned()),
        Err(source) => Err(MachineError { path: path.display().to_string(), source }),
    }
}
