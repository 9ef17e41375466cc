//! Tests of detector on a real cluster, and what they share: [`Rig`] connects to the cluster that `cargo xtask test cluster`
//! or `cargo xtask cluster up` started, [`Node`] to one of its virtual machines.
//!
//! - `tests/api/` needs the control plane only: manifests, policies, rights. A test that wants a node makes a Node object.
//! - `tests/agent/` needs the control plane, and root: the agent runs as a process of this machine ([`local`]).
//! - `tests/controller/` needs a control plane of its own: controllers run as processes of this machine ([`controller`]).
//! - `tests/node/` needs nodes: a real kubelet with real containers, real kills and hangs.
//! - `tests/last_words/` needs nodes and ends them: panics, freezes, power and network cuts ([`Machine`]), with controllers
//!   as processes of this machine. It runs alone and last.
//!
//! One file per topic. Tests of the API and of nodes run side by side on one cluster: each takes a [`Rig::namespace`] of
//! its own, and whatever it changes on a node or in the cluster must not disturb others. No test waits for a time: [`wait`]
//! watches the API until a condition holds, [`Node::wait_for`] asks a guest at intervals until it does; all have a deadline,
//! and on failure say what was seen last.

pub mod agent;
pub mod controller;
pub mod eater;
pub mod facts;
mod kubectl;
pub mod local;
pub mod metrics;
pub mod namespace;
pub mod node;
mod rig;
pub mod token;
pub mod told;
pub mod wait;

pub use facts::Facts;
pub use metrics::Metrics;
pub use namespace::Namespace;
pub use node::{Machine, Node, NodeObject};
pub use rig::Rig;
pub use token::verdict::{Verdict, is_refused};
pub use told::Told;

/// Who writes the agent's events: `reportingController` (`contract::event`).
pub const CONTROLLER: &str = "detector.dev/agent";

/// Manager of the fields of the Node's status that the agent applies (`sink::condition::write`).
pub const FIELD_MANAGER: &str = "detector-agent";

/// Types of the agent's Node conditions (`contract::problem`).
pub const CONDITIONS: [&str; 3] = ["KernelDeadlock", "TaskHung", "PreviousBootCrash"];
