//! What operating the program takes: rights, the program's own log, last words.

pub mod capability;
#[cfg(any(feature = "agent", feature = "controller"))]
pub mod exposition;
#[cfg(any(feature = "agent", feature = "controller"))]
pub mod http;
#[cfg(any(feature = "agent", feature = "controller"))]
pub mod lines;
#[cfg(any(feature = "agent", feature = "controller"))]
pub mod log;
pub mod privilege;
#[cfg(any(feature = "agent", feature = "controller"))]
pub mod screen;
#[cfg(feature = "agent")]
pub mod standard_output;
pub mod termination;
