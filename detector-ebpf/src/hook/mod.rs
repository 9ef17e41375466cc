//! One file per family of hooks: each fills one kind of payload.

pub(crate) mod cgroup_life;
pub(crate) mod oom;
