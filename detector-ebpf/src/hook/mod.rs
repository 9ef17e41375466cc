//! One file per family of hooks: each fills one kind of payload. `tracepoint` does so from the records of classic
//! tracepoints, the others from kernel structures.

pub(crate) mod cgroup_life;
pub(crate) mod hung_task;
pub(crate) mod oom;
pub(crate) mod tracepoint;
