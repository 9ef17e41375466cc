//! What the kernel tests share: a running watcher, read line by line.
//!
//! The tests need root and the environment variables `DETECTOR_BIN`, `DETECTOR_KEEPER` and `DETECTOR_PROVOKE`, which
//! `cargo xtask test kernel` sets. Each test has a cgroup of its own; they run one after the other (`--test-threads=1`), so that the
//! machine-wide count of kills is theirs. Kills outside are still told apart by their cgroup.

pub mod keeper;
pub mod watcher;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;

/// The program under test.
pub fn detector() -> Result<PathBuf> {
    named("DETECTOR_BIN")
}

/// The program that causes kills.
pub fn provoke() -> Result<PathBuf> {
    named("DETECTOR_PROVOKE")
}

/// The program that keeps the kernel side as the agent does: an example of `detector`.
pub fn keeper() -> Result<PathBuf> {
    named("DETECTOR_KEEPER")
}

fn named(key: &str) -> Result<PathBuf> {
    let path = std::env::var_os(key).map(PathBuf::from);
    let path = path.with_context(|| format!("{key} is not set: run these tests with `cargo xtask test kernel`"))?;
    ensure!(path.is_file(), "{key} is {}, which is no file", path.display());
    ensure!(geteuid().is_root(), "the kernel tests need root");
    Ok(path)
}
