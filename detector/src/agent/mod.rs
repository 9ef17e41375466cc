//! The flow on one node: source → decode → locate → problem → sink.
//!
//! ```text
//! kernel ─▶ source ─▶ decode ─▶ locate ─▶ problem ─▶ sink
//!           bytes     events    places    kills      table, JSON
//! ```
//!
//! A stage imports only what stands before it; [`watch`](mod@watch) alone sees them all.

pub mod decode;
pub mod failure;
mod input;
pub mod locate;
mod losses;
mod notices;
pub mod options;
pub mod pipeline;
pub mod problem;
mod reckoning;
pub mod sink;
pub mod source;
pub mod watch;

pub use failure::Failure;
pub use options::{OomMethod, WatchOptions};
pub use sink::Sink;
pub use watch::{AgentError, watch};
