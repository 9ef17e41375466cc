//! Stage 4: located events become problems with a lifecycle. Pure: values and a time in, transitions out.

pub mod transition;

pub use transition::{Incident, Limit, OomKill, Process, Transition};
