//! Stage 4: located events become problems with a lifecycle. Pure: values and a time in, transitions out.

pub mod domain;
pub mod limit;
pub mod oom;
pub mod reconcile;
pub mod transition;

pub use transition::{Domain, Incident, Limit, OomKill, Process, Transition};
