//! `detector` watches the kernel of a machine with eBPF and says what broke, to whom, and what was done about it.

pub mod agent;
pub mod contract;
