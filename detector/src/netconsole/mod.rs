//! `detector netconsole`: has this node's kernel speak to the controller, so that its last words are heard.
//!
//! ```text
//!  EndpointSlices, fixed list ─▶ receivers ─┐
//!  routes, neighbours, devices ─▶ path ─────┼▶ plan (pure) ─▶ configfs ─▶ kernel ─ UDP ─▶ receivers
//!  what stands in configfs ─────────────────┘                     self test: a line, and the question whether it came
//! ```
//!
//! Two targets are kept, to two receivers on other nodes, below names that begin with `detector-`; no other target is ever
//! touched. They stay when this program ends, for the kernel needs no program to speak: `detector cleanup` removes them.
//!
//! It must run in the host's network namespace, for the kernel looks for devices in that of the one who enables a target.

pub mod annotation;
pub mod configfs;
pub mod endpoints;
mod keeper;
pub mod metric;
pub mod path;
pub mod plan;
pub mod preview;
pub mod secret;
pub mod self_test;
mod service;

use std::{error::Error, io, path::Path};

use thiserror::Error;

pub use self::service::{Start, serve};
use self::{path::NetlinkError, plan::Identity, secret::SecretError};
use crate::{cluster::ClientError, config::netconsole::NetconsoleConfig, ops::http::HttpError};

/// Id of this boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why it could not start or go on. An API server that does not answer is no reason, nor is a kernel without netconsole:
/// both may come.
#[derive(Debug, Error)]
pub enum NetconsoleError {
    /// It is not known where the API server is, or which node this is.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nothing can be served.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The kernel's tables cannot be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// There is no secret, or another program has the lock.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The API server does not say where the receivers are.
    #[error("read the EndpointSlices of the receivers' Service")]
    Endpoints(#[source] Box<kube::Error>),
    /// What stands in configfs cannot be read.
    #[error(transparent)]
    Configfs(#[from] configfs::ConfigfsError),
    /// The id of this boot cannot be read.
    #[error("read {BOOT_ID}")]
    BootId(#[source] io::Error),
    /// The program cannot wait for anything.
    #[error("setting up to wait for changes and signals")]
    Runtime(#[source] io::Error),
}

/// Why targets stay.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// The kernel does not let one go, or does not show them.
    #[error(transparent)]
    Configfs(#[from] configfs::ConfigfsError),
    /// There may be some.
    #[error(
        "targets of netconsole were made in this boot, and may stand: {} is not seen from here (with the chart, clean up \
         with netconsole.enabled: true)",
        configfs::tree::NETCONSOLE
    )]
    NotShown,
}

/// Removes all targets of ours on the machine seen through `root`, and tells how many there were; what others made stays.
/// `directory` holds the state of the program that made them.
///
/// # Errors
/// If one stays, or may stay.
pub fn remove_targets(root: &Path, directory: Option<&Path>) -> Result<usize, RemoveError> {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let targets = configfs::Directory::at(below(configfs::tree::NETCONSOLE));
    let made = directory.is_some_and(secret::was_made);
    if made && !targets.is_there() && configfs::module::is_loaded(root) {
        return Err(RemoveError::NotShown);
    }
    Ok(configfs::remove_all(targets)?)
}

/// Who this node is: `node`, this boot, and its secret.
fn identity(config: &NetconsoleConfig, node: String) -> Result<Identity, NetconsoleError> {
    let boot = std::fs::read_to_string(BOOT_ID).map_err(NetconsoleError::BootId)?.trim().to_owned();
    let secret = match &config.state.directory {
        Some(directory) => secret::of_boot(directory, &boot)?,
        None => secret::make()?,
    };
    Ok(Identity { node, boot, secret })
}

/// The root of what is looked at.
fn root() -> &'static Path {
    Path::new("/")
}

/// An error with its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
