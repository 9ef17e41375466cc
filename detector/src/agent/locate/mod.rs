//! Stage 3: which container, pod or unit a memory cgroup belongs to.

pub mod place;

pub use place::{Container, Owner, Place, Pod, Qos, Runtime};
