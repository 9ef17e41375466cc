//! The flow on one node: source → decode → locate → problem → sink.
//!
//! ```text
//! kernel ─▶ source ─▶ decode ─▶ locate ─▶ problem ─▶ sink
//!           bytes     events    places    kills      table, JSON
//! ```
//!
//! A stage imports only what stands before it. [`pipeline`] joins the stages behind the source; [`watch`](mod@watch) is the
//! loop that feeds it.

pub mod decode;
pub mod examination;
pub mod failure;
pub mod locate;
pub mod options;
pub mod pipeline;
pub mod problem;
pub mod service;
pub mod sink;
pub mod source;
pub mod state;
pub mod watch;

pub use examination::examine;
pub use failure::Failure;
pub use options::{Choice, Chosen, Detector, Method, WatchOptions};
pub use sink::Sink;
pub use watch::{AgentError, watch};
