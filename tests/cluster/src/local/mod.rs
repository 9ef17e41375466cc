//! The agent as a process of this machine, for what a test must do to it: kill it, take its API server, its disk or its BPF
//! file system away.
//!
//! [`Stage`] is a node that only exists in the API; [`Container`] one with a real cgroup, of a pod that only exists in files
//! or in the API; [`Place`] what an agent keeps; [`Agent`] one that runs; [`Proxy`] its way to the API server.

mod agent;
mod container;
mod place;
mod proxy;
mod stage;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use rustix::process::geteuid;

pub use self::{
    agent::Agent,
    container::{Burst, Container, Home},
    place::Place,
    proxy::Proxy,
    stage::{Stage, Told, sum},
};

/// The program under test.
fn detector() -> Result<PathBuf> {
    named("DETECTOR_BIN")
}

/// The program that causes kills.
fn provoke() -> Result<PathBuf> {
    named("DETECTOR_PROVOKE")
}

fn named(key: &str) -> Result<PathBuf> {
    let path = std::env::var_os(key).map(PathBuf::from);
    let path = path.with_context(|| format!("{key} is not set: run these tests with `cargo xtask test cluster`"))?;
    ensure!(path.is_file(), "{key} is {}, which is no file", path.display());
    ensure!(geteuid().is_root(), "tests that run the agent need root");
    Ok(path)
}
