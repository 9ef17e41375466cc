//! One function per kind of fault. Those that kill return who must have been killed, and only after the kernel has done
//! it; those that hang return who hangs, and how to end it.

mod burst;
mod child;
mod dying;
mod group;
mod hang;
mod lock;
mod namespace;
mod node;
mod thread;
mod vfork;

pub use burst::burst;
pub use child::{removed_at_once, single_child};
pub use dying::dying;
pub use group::group;
pub use hang::{Ending, Hanging, HungTask, hang};
pub use lock::hang_on_lock;
pub use namespace::{child_in_namespace, init_in_namespace};
pub use node::node;
pub use thread::{four_threads, leader_gone};
pub use vfork::vfork_pair;

/// What every eater takes at the most: far above the limit of any provocation, far below what a machine has.
pub(crate) const APPETITE: usize = 200 << 20;

/// Name of a process that overruns the limit.
pub const EATER: &str = "oom-eater";
/// Name of a process that starts an eater and outlives it.
pub const INIT: &str = "oom-init";
/// Name of a process that only dies because its group does.
pub const BYSTANDER: &str = "oom-bystander";
/// Name of a thread that overruns the limit after its leader has exited.
pub const THREAD: &str = "oom-thread";

/// Name of a task that writes to a frozen file system.
pub const WRITER: &str = "hang-writer";
/// Name of a task that hangs and holds a lock meanwhile.
pub const HOLDER: &str = "hang-holder";
/// Name of a task that waits for that lock.
pub const WAITER: &str = "hang-waiter";

/// Who must have been killed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provoked {
    /// Processes killed by decision of the kernel, in no order.
    pub victims: Vec<Victim>,
    /// Processes that had to live on, and did. They have ended since.
    pub survivors: Vec<u32>,
    /// Processes that died with a victim without being counted: they shared its memory.
    pub sharers: Vec<u32>,
}

/// A killed process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Process id, as the caller's pid namespace numbers it.
    pub pid: u32,
    /// Name of the marked task.
    pub comm: &'static str,
    /// Path of its memory cgroup.
    pub cgroup: String,
    /// Its number in its own pid namespace, if that is not the caller's.
    pub namespace_pid: Option<u32>,
    /// Whether it was the first process of its pid namespace.
    pub role: Role,
}

/// What a victim is to its pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It lives in the caller's namespace.
    Plain,
    /// Process 1 of a namespace.
    Init,
    /// Another process of a namespace.
    Child,
}

impl Victim {
    fn plain(pid: u32, comm: &'static str, cgroup: &crate::Cgroup) -> Self {
        Self { pid, comm, cgroup: cgroup.path(), namespace_pid: None, role: Role::Plain }
    }
}
