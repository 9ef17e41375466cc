//! What programs cost: run time and number of runs, which the kernel counts while somebody asks it to.
//!
//! aya names the programs and holds their descriptors; what the kernel counted for them stands in
//! `/proc/self/fdinfo/N` (`bpf_prog_show_fdinfo`, `kernel/bpf/syscall.c`).

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::{
    Ebpf,
    sys::{Stats, SyscallError, enable_stats},
};
use thiserror::Error;

use super::rung::Hook;

const DIRECTORY: &str = "/proc/self/fdinfo";

/// The kernel counts the run time of all BPF programs of the machine as long as this lives.
#[derive(Debug)]
pub struct Counting {
    _descriptor: OwnedFd,
}

/// The kernel does not count: it wants `CAP_SYS_ADMIN` for it, and is older than 5.8 otherwise.
#[derive(Debug, Error)]
#[error("having the kernel count the run time of BPF programs (BPF_ENABLE_STATS, which wants CAP_SYS_ADMIN)")]
pub struct CountingError(#[from] SyscallError);

impl Counting {
    /// Switches the counting on. It costs some 20 ns a run.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn start() -> Result<Self, CountingError> {
        Ok(Self { _descriptor: enable_stats(Stats::RunTime)? })
    }
}

/// What one program has cost since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Name of the program.
    pub program: String,
    /// What it is attached to, several of them separated by commas; `None` if it is not attached.
    pub hook: Option<String>,
    /// How often it ran while the kernel counted.
    pub runs: u64,
    /// Nanoseconds that these runs took.
    pub run_ns: u64,
}

/// The kernel does not tell what a program has cost.
#[derive(Debug, Error)]
pub enum CostError {
    /// A file cannot be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of a program lacks a number.
    #[error("{path} has no `{key}` (Linux 5.1 and later have)")]
    NoNumber {
        /// The file.
        path: String,
        /// What was looked for.
        key: &'static str,
    },
}

/// What each loaded program has cost so far. `attached`: programs and their hooks.
pub(super) fn of(ebpf: &Ebpf, attached: &[(&'static str, Hook)]) -> Result<Vec<Cost>, CostError> {
    let mut costs = Vec::new();
    for (name, program) in ebpf.programs() {
        // Without a descriptor it is not loaded.
        let Ok(descriptor) = program.fd() else { continue };
        let path = format!("{DIRECTORY}/{}", descriptor.as_fd().as_raw_fd());
        let info = fs::read_to_string(&path).map_err(|source| CostError::Read { path: path.clone(), source })?;
        let get = |key| number(&info, key).ok_or_else(|| CostError::NoNumber { path: path.clone(), key });
        let (runs, run_ns) = (get("run_cnt:")?, get("run_time_ns:")?);
        let hooks: Vec<String> =
            attached.iter().filter(|(program, _)| *program == name).map(|(_, hook)| hook.to_string()).collect();
        let hook = (!hooks.is_empty()).then(|| hooks.join(", "));
        costs.push(Cost { program: name.to_owned(), hook, runs, run_ns });
    }
    costs.sort_by(|one, other| one.program.cmp(&other.program));
    Ok(costs)
}

fn number(info: &str, key: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_program_are_found() {
        let info = "prog_id:\t361\nrun_time_ns:\t5000\nrun_cnt:\t2\n";
        assert_eq!([number(info, "run_time_ns:"), number(info, "run_cnt:")], [Some(5000), Some(2)]);
        assert_eq!(number(info, "memlock:"), None);
    }
}
