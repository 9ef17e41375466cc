//! Reads of kernel memory through offsets that user space injects.
//!
//! Values go straight to where they belong, and a success is a `bool`: an `Option` would be smoother to use, but the
//! compiler spills its undefined half to the stack, and Linux 5.10 refuses a program that reads it back.

use aya_ebpf::{
    Global,
    helpers::{bpf_probe_read_kernel_str_bytes, generated::bpf_probe_read_kernel},
};
use detector_common::{offset::ABSENT, oom::COMM_LENGTH};

macro_rules! declare {
    ($($name:ident),* $(,)?) => {
        $(
            #[unsafe(no_mangle)]
            pub(crate) static $name: Global<u32> = Global::new(ABSENT);
        )*
    };
}
detector_common::for_each_offset!(declare);
detector_common::for_each_event_field!(declare);

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

/// Copies the string that a `_LOC` field of the tracepoint record at `base` tells of, and returns whether that went well.
/// One that does not fit is cut.
#[inline(always)]
pub(crate) fn read_located(target: &mut [u8; COMM_LENGTH], base: u64, location: &Global<u32>) -> bool {
    let address = located(base, location);
    // SAFETY: the helper takes any address, checks it and fails instead of faulting.
    address != 0 && unsafe { bpf_probe_read_kernel_str_bytes(address as *const u8, target) }.is_ok()
}

/// Address of the string that a `_LOC` field of the tracepoint record at `base` tells of; 0 if it cannot be told.
#[inline(always)]
pub(crate) fn located(base: u64, location: &Global<u32>) -> u64 {
    let mut place = 0u32;
    if read(&mut place, base, location) { base + u64::from(place & 0xffff) } else { 0 }
}
