//! The kernel side: loaded, attached, read.
//!
//! ```text
//! vmlinux BTF ── btf ── offsets ─┐
//! embedded object ── object ─────┴─ attach ── ring ── records
//!                                        └─── health ── counters of what did not fit
//! ```

pub mod attach;
pub mod btf;
#[cfg(test)]
mod btf_build;
pub mod btf_lookup;
pub mod btf_minimal;
mod btf_record;
pub mod health;
pub mod object;
pub mod offsets;
pub mod probe;
pub mod ring;
