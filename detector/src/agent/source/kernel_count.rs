//! The kernel's own count of kills, to hold ours against.

use std::{io, path::Path};

use thiserror::Error;

use super::small_file;

/// File with the count, below the root of the file system.
const VMSTAT: &str = "proc/vmstat";

/// Largest `/proc/vmstat` that is read, in bytes: it has some 5 kB.
const LIMIT: u64 = 256 << 10;

/// Why the count cannot be told.
#[derive(Debug, Error)]
pub enum KernelCountError {
    /// The file cannot be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file has no such line, or no number in it.
    #[error("{path} has no line `oom_kill N` (Linux 4.13 and later have)")]
    NoLine {
        /// The file.
        path: String,
    },
}

/// Kills since boot on this machine: `oom_kill` of `/proc/vmstat` below `root`.
///
/// # Errors
/// If the file cannot be read or has no such line.
pub fn oom_kills(root: &Path) -> Result<u64, KernelCountError> {
    let path = root.join(VMSTAT);
    let told = || path.display().to_string();
    let read = |source| KernelCountError::Read { path: told(), source };
    let file = small_file::read(&path, LIMIT).map_err(read)?.ok_or_else(|| read(io::ErrorKind::NotFound.into()))?;
    parse(&String::from_utf8_lossy(&file.bytes)).ok_or_else(|| KernelCountError::NoLine { path: told() })
}

fn parse(vmstat: &str) -> Option<u64> {
    let line = vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_among_its_neighbours() {
        assert_eq!(parse("oom_kill_disable 3\noom_kill 17\nnuma_hit 5\n"), Some(17));
    }

    #[test]
    fn a_file_without_the_count_says_so() {
        assert_eq!(parse("nr_free_pages 1\noom_kill many\n"), None);
    }
}
