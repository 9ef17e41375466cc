//! Every name that another program can see.

#[cfg(feature = "agent")]
pub mod chart;
pub mod doctor;
pub mod event;
pub mod metric;
pub mod problem;
pub mod problem_page;
mod shape;
pub mod watch;
