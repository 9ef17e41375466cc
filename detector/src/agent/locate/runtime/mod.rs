//! Names of containers from the files of their runtimes: no socket, no API server, no right beyond reading.
//!
//! The files are there before a container's first process runs, and go soon after its last: they are read when the
//! container's cgroup is made. One file per runtime says where it keeps them and what they say.
//!
//! Of a container whose end came before its first read, CRI-O and Docker keep the file until the kubelet removes the
//! container; containerd does not, but the kubelet's links to its log do tell (`kubelet`). Not to be had after the end:
//! the pid of its first process, and with containerd the names of one that lived too shortly for a log.
//!
//! Only the files of the machine's own runtimes are read. A container that is a node itself, as with kind, keeps those of
//! its containers on file systems of its own, which nobody outside can vouch for: they are named by a watcher inside.

mod containerd;
mod crio;
mod docker;
mod files;
mod kubelet;
mod podman;

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::files::Files;
use super::place::Runtime;

/// Largest file that describes one container, in bytes.
pub const CONFIG_LIMIT: u64 = 1 << 20;

/// Largest list of containers, in bytes.
pub const LIST_LIMIT: u64 = 4 << 20;

/// Largest file with a pid, in bytes.
const PID_LIMIT: u64 = 32;

/// Longest name that is taken, in bytes: that of a Kubernetes object (DNS subdomain, RFC 1123).
const NAME_LIMIT: usize = 253;

/// What a runtime's files tell of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// The runtime whose file it was, where the path did not tell.
    pub runtime: Option<Runtime>,
    /// Name of the container.
    pub container: Option<String>,
    /// Namespace of its pod.
    pub pod_namespace: Option<String>,
    /// Name of its pod.
    pub pod_name: Option<String>,
    /// It is no container of the user's, but the one that holds the pod's namespaces.
    pub sandbox: bool,
    /// Pid of its first process in the machine's pid namespace; not there until it has started.
    pub init_pid: Option<u32>,
}

/// A runtime's file exists, but tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// It could not be read, or is too large.
    #[error("read {path}, which describes a container")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what the runtime writes.
    #[error("understand {path}, which describes a container")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Which container is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Runtime, as far as the path told.
    pub runtime: Runtime,
    /// Container id.
    pub id: &'a str,
    /// The user whose slice it runs in: a rootless container. Only that user's files are believed.
    pub user: Option<u32>,
}

/// Looks a container up in the files of a machine; `Ok(None)`: no runtime has a file for it. Takes as long as their file
/// system pleases.
///
/// # Errors
/// A file is there, but cannot be read or understood, and no other told.
pub fn names(files: &Files<'_>, wanted: Wanted<'_>) -> Result<Option<Names>, NameError> {
    // The id becomes part of a path. Ids of LXC are names; it keeps no such files.
    if !wanted.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let places: &[Lookup] = match wanted.runtime {
        Runtime::Containerd => &[containerd::names, kubelet::names],
        Runtime::CriO => &[crio::names, kubelet::names],
        // Docker keeps names itself, and its containers in a containerd.
        Runtime::Docker => &[docker::names, kubelet::names],
        Runtime::Podman => &[podman::names],
        Runtime::Unknown => &[containerd::names, docker::names, crio::names, podman::names, kubelet::names],
    };
    let mut failed = None;
    for place in places {
        match place(files, wanted) {
            Ok(Some(names)) => return Ok(Some(names)),
            Ok(None) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(None), Err)
}

type Lookup = fn(&Files<'_>, Wanted<'_>) -> Result<Option<Names>, NameError>;

/// Annotations of an OCI bundle's `config.json`; everything else in it is skipped.
#[derive(Deserialize)]
struct Bundle<A> {
    #[serde(default)]
    annotations: A,
}

fn json<T: DeserializeOwned>(files: &Files<'_>, path: &Path, limit: u64) -> Result<Option<T>, NameError> {
    owned_json(files, path, limit, None)
}

/// Reads a JSON file, and only if it belongs to `owner` where one is given: a user's file must not name another's
/// containers.
fn owned_json<T: DeserializeOwned>(
    files: &Files<'_>,
    path: &Path,
    limit: u64,
    owner: Option<u32>,
) -> Result<Option<T>, NameError> {
    let file = files.read(path, limit).map_err(|source| NameError::Read { path: path.to_owned(), source })?;
    let Some(file) = file.filter(|file| owner.is_none_or(|owner| owner == file.owner)) else { return Ok(None) };
    match serde_json::from_slice(&file.bytes) {
        Ok(value) => Ok(Some(value)),
        Err(source) => Err(NameError::Json { path: path.to_owned(), source }),
    }
}

/// The pid in a file, if there is one already.
fn pid(files: &Files<'_>, path: &Path) -> Option<u32> {
    let file = files.read(path, PID_LIMIT).ok()??;
    std::str::from_utf8(&file.bytes).ok()?.trim().parse().ok().filter(|pid| *pid > 0)
}

/// A name fit to be shown: not empty, not overlong, nothing that disturbs a terminal.
fn name(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty() && text.len() <= NAME_LIMIT && !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests;
