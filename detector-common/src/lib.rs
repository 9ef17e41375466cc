//! The contract between the kernel side and the user side: what crosses the ring buffers, in bytes.
//!
//! Every record begins with a [`Header`]. All structs are `repr(C)`, made of integers in the machine's byte order, with
//! explicit padding, so that each bit pattern is a valid value and nothing uninitialised leaves the kernel. What a
//! record does not know is said by [`oom::known`] bits, never by a zero.
//!
//! A change of any layout here is a change of [`ABI`].

#![no_std]

pub mod cgroup;
pub mod counter;
pub mod gate;
pub mod header;
pub mod hung_task;
pub mod kill_count;
pub mod last_words;
pub mod offset;
pub mod oom;

pub use header::{ABI, Header, Kind};
