//! `node`: process 1 of a guest that is a node of a cluster: a real containerd and a real kubelet, and two servers of the
//! rig's own. One runs commands as root for tests ([`command`]); the other is the service `kubernetes` to pods ([`relay`]).
//! Both exist in test guests only.
//!
//! Process 1 leaves the initramfs ([`root`]), starts itself as `serve` ([`service`]) and then only collects orphans.

mod command;
mod relay;
mod root;
mod service;

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use rustix::{
    process::{WaitOptions, getpid, wait},
    system::{RebootCommand, reboot},
};

/// Where this program is once the root file system is there.
const SELF: &str = "/sbin/init";

/// Its argument as the one that starts everything.
const SERVE: &str = "serve";

/// Where programs are; the kernel gives process 1 no such list.
const PROGRAMS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

fn main() -> ExitCode {
    let done = if getpid().is_init() { init() } else { service::run() };
    if let Err(cause) = done {
        println!("NODE failed: {cause:#}");
    }
    if getpid().is_init() {
        rustix::fs::sync();
        // If that fails, process 1 ends and the kernel panics, which the host sees.
        reboot(RebootCommand::PowerOff).ok();
    }
    ExitCode::FAILURE
}

/// Does not end while the node lives.
fn init() -> Result<()> {
    root::enter().context("entering the root file system")?;
    let server = Command::new(SELF).arg(SERVE).env("PATH", PROGRAMS).spawn().context("starting the node")?;
    loop {
        if let Some((pid, status)) = wait(WaitOptions::empty()).context("waiting for processes")?
            && pid.as_raw_nonzero().get().unsigned_abs() == server.id()
        {
            bail!("the node ended with {status:?}");
        }
    }
}
