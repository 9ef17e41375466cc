//! The kernel side: loaded, attached, read.
//!
//! ```text
//! vmlinux BTF ── offsets ───────┐
//! tracefs ── event_fields ──────┤
//! embedded object ── object ────┴─ attach ── ring ── records
//!                          rung ──┘ │  └─── health ── counters of what did not fit
//!                                  link
//! ```
//!
//! `rung` is the table of what each method consists of, `attach` does as it says, `link` knows whether a program is still
//! attached.

pub mod attach;
mod attach_error;
pub mod cost;
pub mod event_fields;
pub mod health;
mod link;
pub mod object;
pub mod offsets;
pub mod probe;
pub mod ring;
pub mod rung;
