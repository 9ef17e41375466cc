//! What operating the program takes: rights, the program's own log, last words.

pub mod capability;
#[cfg(feature = "agent")]
pub mod http;
#[cfg(feature = "agent")]
pub mod lines;
#[cfg(feature = "agent")]
pub mod log;
pub mod privilege;
#[cfg(feature = "agent")]
pub mod standard_output;
pub mod termination;
