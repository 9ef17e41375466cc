//! Causes real OOM kills: the fault itself, not a log line that looks like it.
//!
//! Each function in [`scenario`] takes a memory cgroup made with [`cgroup`], provokes one kind of kill in it and says
//! which processes the kernel must have killed. What the kernel itself counted is read with [`Cgroup::kills`] and
//! [`vmstat_kills`]. All processes are reaped and all cgroups removed, also after a failure.
//!
//! Everything here stays inside a cgroup of its own, but for [`scenario::node`] and [`scenario::dying`], which refuse to
//! run outside a test guest ([`guest`]).

pub mod cgroup;
pub mod error;
pub mod guest;
pub mod hierarchy;
mod memory;
mod process;
pub mod scenario;
mod stage;

pub use cgroup::{Cgroup, Limits, vmstat_kills};
pub use error::Error;
pub use hierarchy::{Hierarchy, Version};
pub use scenario::{Provoked, Role, Victim};
