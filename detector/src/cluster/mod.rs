//! The Kubernetes API: the only place that builds a client, and what its answers mean.

pub mod answer;
pub mod client;
#[cfg(test)]
pub(crate) mod fake_server;
pub mod identity;
pub mod outcome;
pub mod request;
pub mod watch;

pub use answer::{Answer, send};
pub use client::{Access, ClientError, connect};
pub use identity::{Identity, own_namespace};
pub use outcome::Outcome;
