//! Stage 2: bytes of a record become a [`KernelEvent`]. Pure: no I/O, no clock, no log.

pub mod event;

pub use event::{CgroupLife, KernelEvent, OomMark};
