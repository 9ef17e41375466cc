//! Takes memory page by page until the kernel has had enough.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// Exit code of a process that took all its memory and was not killed.
pub(crate) const UNHARMED: i32 = 99;

/// Exit code of a process that could not even ask for the memory.
pub(crate) const REFUSED: i32 = 98;

/// Smallest page size of the supported machines: touching one byte in each such step touches every page.
const STEP: usize = 4096;

/// Takes `bytes` bytes of anonymous memory and keeps them.
pub(crate) fn take(bytes: usize) -> Result<(), rustix::io::Errno> {
    let start = map(bytes)?;
    // SAFETY: `map` just returned `bytes` writable bytes at `start`, which nothing else refers to.
    unsafe { touch(start, bytes) };
    Ok(())
}

/// Takes `bytes` bytes; returns an exit code if the kernel lets it live.
pub(crate) fn eat(bytes: usize) -> i32 {
    if take(bytes).is_ok() { UNHARMED } else { REFUSED }
}

/// Maps `bytes` bytes that are never unmapped.
pub(crate) fn map(bytes: usize) -> Result<*mut u8, rustix::io::Errno> {
    // SAFETY: a new private mapping at an address of the kernel's choice touches no existing memory.
    let start = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    }?;
    // Huge pages would overrun a small limit in one step. A kernel without them refuses, which is as good.
    // SAFETY: the advice is on the mapping made above and does not change its content.
    unsafe { madvise(start, bytes, Advice::LinuxNoHugepage) }.ok();
    Ok(start.cast())
}

/// Writes to every page.
///
/// # Safety
/// `start` must point to `bytes` writable bytes that nobody refers to.
pub(crate) unsafe fn touch(start: *mut u8, bytes: usize) {
    for offset in (0..bytes).step_by(STEP) {
        // SAFETY: `offset` is below `bytes`, the caller vouches for the rest.
        unsafe { start.add(offset).write_volatile(1) };
    }
}
