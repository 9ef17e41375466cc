//! Causes real OOM kills and hung tasks: the fault itself, not a log line that looks like it.
//!
//! Each function in [`scenario`] takes memory cgroups made with [`cgroup`], provokes one kind of fault in them and says
//! which processes the kernel must have killed, or which hang. What the kernel itself counted is read with
//! [`Cgroup::kills`] and [`vmstat_kills`]. All processes are reaped and all cgroups removed, also after a failure.
//!
//! Everything here stays inside a cgroup of its own, but for [`scenario::node`] and what freezes a file system
//! ([`scenario::dying`], [`scenario::hang`], [`scenario::hang_on_lock`]), which refuse to run outside a test guest
//! ([`guest`]).

pub mod cgroup;
pub mod error;
mod frozen;
pub mod guest;
pub mod hierarchy;
mod memory;
mod process;
pub mod scenario;
mod stage;

pub use cgroup::{Cgroup, Limits, vmstat_kills};
pub use error::Error;
pub use hierarchy::{Hierarchy, Version};
pub use process::stack;
pub use scenario::{Ending, Hanging, HungTask, Provoked, Role, Victim};
