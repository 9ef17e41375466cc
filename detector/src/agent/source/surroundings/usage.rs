//! What this process uses itself: memory as `/proc/self/status` tells (proc_pid_status(5)).

use std::path::Path;

use crate::agent::source::small_file::{self, under};

/// Largest `/proc/self/status` that is read, in bytes: it has some 1.5 kB.
const LIMIT: u64 = 64 << 10;

/// Memory of this process, in bytes; `None` where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now (`VmRSS`).
    pub resident: Option<u64>,
    /// The part of it that no file backs (`RssAnon`).
    pub anon: Option<u64>,
    /// The most that was ever resident (`VmHWM`).
    pub peak: Option<u64>,
}

impl Memory {
    /// Of this process, now.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let file = small_file::read(&under(root, "/proc/self/status"), LIMIT).ok().flatten();
        file.map_or_else(Self::default, |file| Self::parse(&String::from_utf8_lossy(&file.bytes)))
    }

    fn parse(status: &str) -> Self {
        let bytes = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key))?;
            value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        Self { resident: bytes("VmRSS:"), anon: bytes("RssAnon:"), peak: bytes("VmHWM:") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_bytes() {
        let status = "Name:\tdetector\nVmHWM:\t    9000 kB\nVmRSS:\t    8000 kB\nRssAnon:\t    3000 kB\nThreads:\t1\n";
        let memory = Memory { resident: Some(8_192_000), anon: Some(3_072_000), peak: Some(9_216_000) };
        assert_eq!(Memory::parse(status), memory);
    }

    #[test]
    fn what_is_not_told_is_unknown() {
        assert_eq!(Memory::parse("VmRSS:\tmany kB\nVmHWM:\t18446744073709551615 kB\n"), Memory::default());
    }
}
