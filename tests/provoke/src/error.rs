//! What can go wrong while provoking a fault.

use std::{io, path::PathBuf};

/// Why a fault could not be provoked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("reading {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("writing {value:?} to {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A cgroup could not be made.
    #[error("making cgroup {path}")]
    Make {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A cgroup could not be removed in time.
    #[error("removing cgroup {path}")]
    Remove {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the kernel does not have the expected entry.
    #[error("{path} has no number {key:?}")]
    NoEntry {
        /// Which file.
        path: PathBuf,
        /// Which entry.
        key: &'static str,
    },
    /// The machine has no hierarchy with a memory controller.
    #[error("no mounted cgroup hierarchy in /proc/self/mountinfo has the memory controller")]
    NoHierarchy,
    /// The name of a cgroup is not one below the root.
    #[error("cgroup name {name:?} must be a relative path without `.` and `..`")]
    Name {
        /// What was given.
        name: String,
    },
    /// The provocation needs what only cgroup v2 has.
    #[error("{what} needs cgroup v2")]
    NeedsVersion2 {
        /// What was asked for.
        what: &'static str,
    },
    /// The provocation would harm the machine.
    #[error("{what} harms the whole machine and runs in a test guest only (`detector.guest=1` in /proc/cmdline)")]
    NotInGuest {
        /// What was asked for.
        what: &'static str,
    },
    /// A system call failed.
    #[error("system call {call}")]
    Call {
        /// Its name.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Something did not happen in time.
    #[error("waited {seconds} s in vain until {what}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// A process of the provocation ended otherwise than it must.
    #[error("{who} (pid {pid}) had to be {wanted}, but {found}")]
    Ending {
        /// Its part.
        who: &'static str,
        /// Its process id.
        pid: u32,
        /// How it had to end.
        wanted: &'static str,
        /// How it ended.
        found: String,
    },
    /// A process hangs elsewhere in the kernel than it must.
    #[error("process {pid} had to hang in {wanted}, but hangs in {found:?}")]
    HangsElsewhere {
        /// Its process id.
        pid: u32,
        /// Where it must.
        wanted: &'static str,
        /// Functions, innermost first.
        found: Vec<String>,
    },
    /// A process of the provocation was not found in its cgroup.
    #[error("cgroup {cgroup} has processes {found:?}, expected {expected} of them")]
    Members {
        /// Path in the hierarchy.
        cgroup: String,
        /// Process ids.
        found: Vec<u32>,
        /// How many there must be.
        expected: usize,
    },
}

impl Error {
    /// The last error of the C library, as failure of `call`.
    pub(crate) fn last(call: &'static str) -> Self {
        Self::Call { call, source: io::Error::last_os_error() }
    }

    /// A failure of `call`.
    pub(crate) fn call(call: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self::Call { call, source: errno.into() }
    }
}
