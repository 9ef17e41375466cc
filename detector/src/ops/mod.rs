//! What operating the program takes: rights, later health, logs and shutdown.

pub mod capability;
pub mod privilege;
#[cfg(feature = "agent")]
pub mod standard_output;
