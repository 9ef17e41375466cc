//! Stage 2: bytes of a record become a [`KernelEvent`]. Pure: no I/O, no clock, no log.

pub mod event;
mod hung_task;
pub mod kernel_log;
pub mod log_clock;
mod oom_mark;
mod record;

pub use event::{CgroupChange, CgroupKey, CgroupLife, HungTask, KernelEvent, OomMark};
pub use record::{DecodeError, decode};
