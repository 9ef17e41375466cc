//! Which generation of programs writes: see `detector_common::gate`.

use aya_ebpf::{Global, macros::map, maps::Array};
use detector_common::gate::Writer;

/// Writer → number of the generation that writes.
#[map]
static ACTIVE: Array<u64> = Array::with_max_entries(Writer::SLOTS, 0);

/// Number of the generation that these programs are of, set by user space; 0 where nothing outlives it, which is what the
/// slots hold from the start.
#[unsafe(no_mangle)]
pub(crate) static GENERATION: Global<u64> = Global::new(0);

/// Whether these programs are the ones that write.
#[inline(always)]
pub(crate) fn is_open(writer: Writer) -> bool {
    match ACTIVE.get_ptr(writer as u32) {
        // SAFETY: the slot is a number, valid at any time; user space replaces it whole.
        Some(active) => unsafe { active.read_volatile() == GENERATION.load() },
        None => false,
    }
}
