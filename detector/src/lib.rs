//! `detector` watches the kernel of a machine with eBPF and says what broke, to whom, and what was done about it.

#[cfg(feature = "agent")]
pub mod agent;
pub mod cli;
pub mod clock;
pub mod contract;
pub mod ops;
