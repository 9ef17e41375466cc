//! Stage 2: bytes of a record become a [`KernelEvent`]. Pure: no I/O, no clock, no log.

pub mod event;
mod oom_mark;
mod record;

pub use event::{CgroupChange, CgroupKey, CgroupLife, KernelEvent, OomMark};
pub use record::{DecodeError, decode};
