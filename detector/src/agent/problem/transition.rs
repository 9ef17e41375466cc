//! What sinks receive.

use std::{sync::Arc, time::Duration};

pub use crate::agent::source::frame::Frame;
use crate::agent::{
    decode::event::{CgroupKey, HungTask, OomMark},
    locate::Place,
    options::Method,
};

/// A problem that changed its state.
#[derive(Clone, Debug, PartialEq)]
pub enum Transition {
    /// The kernel killed a process for want of memory.
    OomKilled(Box<OomKill>),
    /// A task began to hang, hangs on, or hangs no more.
    HungTask(Box<Hang>),
}

/// A task that hangs, from the first scan that found it to the moment it ran or went.
#[derive(Clone, Debug, PartialEq)]
pub struct Hang {
    /// Number of this hang since the program started, from 1: the same in all its transitions.
    pub number: u64,
    /// What changed.
    pub state: HangState,
    /// When this was seen, nanoseconds since boot.
    pub boot_ns: u64,
    /// How long it has hung at least, by the kernel's account or ours, whichever is longer.
    pub hung: Duration,
    /// The newest account of it.
    pub event: HungTask,
    /// Where the task lives; `None` if its cgroup could not be resolved.
    pub place: Option<Arc<Place>>,
    /// Where the holder of the lock lives, if there is one and its cgroup could be resolved.
    pub holder_place: Option<Arc<Place>>,
    /// Where it waits in the kernel, innermost first; empty if the method in use could not tell.
    pub stack: Vec<Frame>,
    /// How it was learned of.
    pub method: Method,
}

/// States of a hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HangState {
    /// Seen for the first time.
    Raised,
    /// A later scan found it hung still.
    Sustained,
    /// It ran again.
    Ran,
    /// It is gone.
    Exited,
}

/// One process killed by the OOM killer.
#[derive(Clone, Debug, PartialEq)]
pub struct OomKill {
    /// The kernel's own account.
    pub mark: OomMark,
    /// Victims of one decision share it.
    pub incident: Incident,
    /// Where the victim lived; `None` if its cgroup could not be resolved.
    pub place: Option<Arc<Place>>,
    /// Init or child of its container.
    pub process: Process,
    /// Whose limit was hit.
    pub limit: Limit,
    /// The cgroup whose limit was hit.
    pub domain: Domain,
    /// Whether the kernel kills a whole cgroup at once (`memory.oom.group`); `None` if it did not tell.
    pub group_kill: Option<bool>,
    /// How it was learned of.
    pub method: Method,
}

/// One decision of the OOM killer and its victims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Number of the incident since the program started, from 1.
    pub number: u64,
    /// Which of its victims this is, from 1.
    pub victim: u32,
}

/// The cgroup whose limit was hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A cgroup.
    Cgroup {
        /// As the kernel names it; `None` where only its path was told and the cgroup is gone.
        key: Option<CgroupKey>,
        /// Depth below the root of the hierarchy.
        level: u32,
        /// Absolute path, where it is known.
        path: Option<Arc<str>>,
        /// Its limit in pages; `None` if unknown or unlimited.
        limit_pages: Option<u64>,
    },
    /// The whole machine ran out of memory.
    Node,
    /// The method in use could not tell.
    Unknown,
}

/// Whose limit was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// The container's own, also where the pod's limit was hit and the container's is no larger.
    Container,
    /// The pod's.
    Pod,
    /// A cgroup above the pod, the container or the victim's own cgroup.
    Ancestor,
    /// The machine's memory.
    Node,
    /// A cgroup that the container made inside itself.
    Nested,
    /// The victim's own cgroup or unit, which is no container.
    Cgroup,
    /// The method in use could not tell.
    Unknown,
}

/// Which process of a container died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    /// The first process: the container dies with it.
    Init,
    /// Another one: the container may live on.
    Child,
    /// Not told, or not in a container.
    Unknown,
}
