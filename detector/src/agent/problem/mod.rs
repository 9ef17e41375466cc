//! Stage 4: located events become problems with a lifecycle. Pure: values and a time in, transitions out.

pub mod domain;
pub mod hung_task;
pub mod lifecycle;
pub mod limit;
pub mod oom;
pub mod oom_log;
pub mod reconcile;
pub mod transition;
pub mod witness;

pub use transition::{Domain, Frame, Hang, HangState, Incident, Limit, OomKill, Process, Transition};
