//! `detector` watches the kernel of a machine with eBPF and says what broke, to whom, and what was done about it.

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "agent")]
pub mod cause;
pub mod cli;
pub mod clock;
#[cfg(feature = "agent")]
pub mod cluster;
pub mod config;
pub mod contract;
#[cfg(feature = "agent")]
pub mod digest;
pub mod ops;
pub mod text;
