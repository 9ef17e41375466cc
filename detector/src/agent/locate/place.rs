//! Where something happened: a memory cgroup and who owns it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A memory cgroup with its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Absolute path in the hierarchy, as seen from its root, such as `/kubepods.slice/…`.
    pub path: Arc<str>,
    /// Who owns it.
    pub owner: Owner,
}

/// What became of a container or a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerChange {
    /// A container lives at this place; told when it is first seen, and again when its names become known or change.
    Seen(Arc<Place>),
    /// The container with this id is gone. Its pod may live on and start another.
    Gone {
        /// Its id.
        id: String,
    },
    /// The pod is gone with all its containers.
    PodGone {
        /// Its uid, as [`Pod::uid`].
        uid: String,
    },
}

/// Who owns a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A container.
    Container(Container),
    /// A pod, but none of its containers: the pod's own cgroup, or a sandbox.
    Pod(Pod),
    /// A systemd unit, such as `ssh.service`.
    Unit(String),
    /// None of these: a cgroup that somebody made.
    Cgroup,
}

/// A container as path and runtime tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Who runs it.
    pub runtime: Runtime,
    /// Its id, most often 64 hexadecimal digits.
    pub id: String,
    /// Depth of the container's cgroup below the root of the hierarchy.
    pub level: u32,
    /// Its name, once the runtime's files told it.
    pub name: Option<String>,
    /// Pid of the container's init in the machine's pid namespace, where the runtime tells.
    pub init_pid: Option<u32>,
    /// The pod, if it belongs to one.
    pub pod: Option<Pod>,
}

/// A Kubernetes pod as path and runtime tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`; for a static pod the 32 hexadecimal digits of `kubernetes.io/config.hash`.
    pub uid: String,
    /// Quality of service, from the path.
    pub qos: Qos,
    /// Depth of the pod's cgroup below the root of the hierarchy.
    pub level: u32,
    /// Name of its namespace, once the runtime's files told it.
    pub namespace: Option<String>,
    /// Its name, once the runtime's files told it.
    pub name: Option<String>,
}

/// Quality of service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Qos {
    /// Requests equal limits.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// No requests.
    BestEffort,
}

/// Container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// containerd by its CRI plugin or another client.
    Containerd,
    /// CRI-O.
    CriO,
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// A container by the shape of its path, whose runtime the path does not tell.
    Unknown,
}
