//! One file per family of hooks: each fills one kind of payload. `tracepoint` does so from the records of classic
//! tracepoints, the others from kernel structures.

pub(crate) mod cgroup_life;
pub(crate) mod hung_task;
mod kill_count;
pub(crate) mod oom;
pub(crate) mod panic;
pub(crate) mod tracepoint;
