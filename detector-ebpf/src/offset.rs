//! Reads of kernel memory through offsets that user space injects.
//!
//! Values go straight to where they belong, and a success is a `bool`: an `Option` would be smoother to use, but the
//! compiler spills its undefined half to the stack, and Linux 5.10 refuses a program that reads it back.

use aya_ebpf::{Global, helpers::generated::bpf_probe_read_kernel};
use detector_common::offset::ABSENT;

macro_rules! declare {
    ($($name:ident),* $(,)?) => {
        $(
            #[unsafe(no_mangle)]
            pub(crate) static $name: Global<u32> = Global::new(ABSENT);
        )*
    };
}
detector_common::for_each_offset!(declare);

/// Address of a field; 0 if the base is null or the running kernel lacks the field.
#[inline(always)]
pub(crate) fn field(base: u64, offset: &Global<u32>) -> u64 {
    let offset = offset.load();
    if base == 0 || offset == ABSENT { 0 } else { base + u64::from(offset) }
}

/// Copies a field to `target` and returns whether that went well; if not, `target` is all zero.
#[inline(always)]
pub(crate) fn read<T: Copy>(target: &mut T, base: u64, offset: &Global<u32>) -> bool {
    read_at(target, field(base, offset))
}

/// Copies the value at `address` to `target` and returns whether that went well; if not, `target` is all zero or as it
/// was.
#[inline(always)]
pub(crate) fn read_at<T: Copy>(target: &mut T, address: u64) -> bool {
    if address == 0 {
        return false;
    }
    let target = core::ptr::from_mut(target).cast();
    // SAFETY: `target` is valid for `size_of::<T>()` bytes, and all types read here are valid for any bytes. The helper
    // takes any source address, checks it and fails instead of faulting (bpf-helpers(7)).
    unsafe { bpf_probe_read_kernel(target, size_of::<T>() as u32, address as *const _) == 0 }
}

/// Value of a pointer field; 0 if it is null or cannot be read.
#[inline(always)]
pub(crate) fn pointer(base: u64, offset: &Global<u32>) -> u64 {
    let mut value = 0;
    if read(&mut value, base, offset) { value } else { 0 }
}
