//! The flow on one node: source → decode → locate → problem → sink.

pub mod decode;
pub mod locate;
pub mod problem;
