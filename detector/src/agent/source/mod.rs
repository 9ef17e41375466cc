//! Stage 1: where records come from. The only stage that touches the kernel, and the only one with `unsafe`.

pub mod bpf;
pub mod btf;
pub mod frame;
pub mod kernel_count;
pub mod kmsg;
pub mod last_words;
pub mod machine;
pub mod memory;
pub mod pin;
pub mod pods;
pub mod previous_boot;
pub(crate) mod small_file;
pub mod spool;
pub mod surroundings;
pub mod symbols;
pub mod task;
pub mod tracepoint_format;

use bpf::health::{Dropped, HealthError};
use detector_common::counter::Ring;

/// Where the flow takes its records from: the kernel side, or bytes recorded from it.
pub trait Records {
    /// Copies the oldest record of `ring` into `record`, replacing what was there. Returns false if none is ready.
    fn next(&mut self, ring: Ring, record: &mut Vec<u8>) -> bool;

    /// What the kernel side counted as lost since its counters were made, for each kind of which any was lost.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    fn dropped(&self) -> Result<Vec<Dropped>, HealthError>;
}
