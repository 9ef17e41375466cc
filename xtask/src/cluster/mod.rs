//! A real cluster for tests: a control plane on this machine, and nodes with a real kubelet in QEMU.
//!
//! [`go`] builds Kubernetes; [`pki`] makes certificates; [`plane`] starts the control plane, each program of it a
//! [`server`] on a [`port`] of its own; [`guest`] packs a disk, [`node`] boots it; [`rig`] joins all, and tells the tests
//! by a file.

mod go;
mod guest;
mod node;
mod pki;
mod plane;
pub(crate) mod port;
mod rig;
pub(crate) mod server;

use std::{path::PathBuf, process::ExitCode, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, kill_process, test_kill_process};

use crate::{process, workspace};
pub(crate) use rig::{Extent, Rig, VARIABLE};

/// How long `down` waits for a rig to end.
const DOWN_PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks at a rig that runs.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Name of the rig of `cargo xtask cluster`, and its directory below `target`.
const DEVELOPERS: &str = "rig";

/// A control plane, and nodes in QEMU, to develop against.
///
/// `up` stays until Ctrl-C or `down` and prints what to use; it may run beside `cargo xtask test`.
#[derive(clap::Subcommand)]
#[command(after_help = "Examples:\n  cargo xtask cluster up &\n  \
    target/rig/kubectl get nodes\n  cargo test -p detector-cluster-tests --test api\n  cargo xtask cluster down")]
pub(crate) enum Command {
    /// Start a rig and keep it until Ctrl-C or `down`.
    Up(Up),
    /// End the rig of this source tree.
    Down,
}

/// What a rig consists of.
#[derive(clap::Args)]
pub(crate) struct Up {
    /// Only the control plane, no nodes: starts in seconds.
    #[arg(long)]
    api_only: bool,
    /// Nodes without the product's image, which is then not built.
    #[arg(long, conflicts_with = "api_only")]
    without_image: bool,
    /// Put this static binary into the product's image instead of a release build.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["api_only", "without_image"])]
    binary: Option<PathBuf>,
}

pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Up(options) => up(options),
        Command::Down => down(),
    }
}

/// Begins in the background what the level `cluster` will need and others do not: Kubernetes, which compiles for minutes.
/// What fails here fails again, and is told, when it is needed.
pub(crate) fn prepare() {
    thread::spawn(|| go::ensure_tools().map(drop));
}

fn up(options: &Up) -> Result<ExitCode> {
    let directory = workspace::target().join(DEVELOPERS);
    if let Some(pid) = rig::running(&directory) {
        bail!(
            "a rig of this source tree runs already as process {}: `cargo xtask cluster down` ends it",
            pid.as_raw_nonzero()
        );
    }
    let extent = match options {
        Up { api_only: true, .. } => Extent::Api,
        Up { without_image: true, .. } => Extent::Nodes,
        Up { .. } => Extent::All,
    };
    let mut rig = Rig::start(&directory, extent, options.binary.as_deref())?;
    rig.wait()?;
    process::say(format_args!(
        "up: `{}/kubectl get nodes`; tests: `cargo test -p detector-cluster-tests`; Ctrl-C or `cargo xtask cluster down` \
         ends it",
        directory.display()
    ));
    loop {
        rig.must_run()?;
        thread::sleep(LOOK_INTERVAL);
    }
}

fn down() -> Result<ExitCode> {
    let directory = workspace::target().join(DEVELOPERS);
    let Some(pid) = rig::running(&directory) else {
        bail!("no rig of this source tree runs (looked into {})", directory.display());
    };
    kill_process(pid, Signal::TERM).context("end the rig")?;
    let start = std::time::Instant::now();
    while test_kill_process(pid).is_ok() {
        if start.elapsed() > DOWN_PATIENCE {
            bail!("end the rig: process {} still runs after {DOWN_PATIENCE:?}", pid.as_raw_nonzero());
        }
        thread::sleep(LOOK_INTERVAL);
    }
    process::say("the rig has ended");
    Ok(ExitCode::SUCCESS)
}
