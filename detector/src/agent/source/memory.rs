//! Memory of this process.

/// Gives memory that was needed for the start alone back to the machine: the kernel's types are read once, and the
/// allocator would keep what they took.
pub fn release_unused() {
    // SAFETY: `malloc_trim` has no preconditions and touches only memory that is not in use (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
