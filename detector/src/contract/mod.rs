//! Every name that another program can see.

#[cfg(all(feature = "agent", feature = "controller"))]
pub mod chart;
pub mod doctor;
pub mod event;
#[cfg(feature = "controller")]
pub mod incident;
pub mod last_words;
pub mod metric;
pub mod netconsole;
pub mod problem;
pub mod remediation;
mod shape;
pub mod watch;
