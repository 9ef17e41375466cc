//! `detector` watches the kernel of a machine with eBPF and says what broke, to whom, and what was done about it.

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(any(feature = "agent", feature = "controller"))]
pub mod cause;
pub mod cli;
pub mod clock;
#[cfg(any(feature = "agent", feature = "controller"))]
pub mod cluster;
pub mod config;
pub mod contract;
#[cfg(feature = "controller")]
pub mod controller;
#[cfg(any(feature = "agent", feature = "controller"))]
pub mod digest;
#[cfg(any(feature = "agent", feature = "controller"))]
pub mod kernel_line;
#[cfg(feature = "agent")]
pub mod netconsole;
pub mod ops;
pub mod text;
