//! Tests of detector on a real cluster, and what they share: [`Rig`] connects to the cluster that `cargo xtask test cluster`
//! or `cargo xtask cluster up` started, [`Node`] to one of its virtual machines.
//!
//! - `tests/api/` needs the control plane only: manifests, policies, rights. A test that wants a node makes a Node object.
//! - `tests/agent/` needs the control plane, and root: the agent runs as a process of this machine ([`local`]).
//! - `tests/node/` needs nodes: a real kubelet with real containers, real kills and hangs.
//!
//! One file per topic. Tests of the API and of nodes run side by side on one cluster: each takes a [`Rig::namespace`] of
//! its own, and whatever it changes on a node or in the cluster must not disturb others. No test waits for a time: [`wait`]
//! watches the API until a condition holds, [`Node::wait_for`] asks a guest at intervals until it does; all have a deadline,
//! and on failure say what was seen last.

pub mod agent;
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
pub use node::Node;
pub use rig::Rig;
pub use told::Told;

/// Who writes the agent's events: `reportingController` (`contract::event`).
pub const CONTROLLER: &str = "detector.dev/agent";

/// Manager of the fields of the Node's status that the agent applies (`sink::condition::write`).
pub const FIELD_MANAGER: &str = "detector-agent";

/// Types of the agent's Node conditions (`contract::problem`).
pub const CONDITIONS: [&str; 2] = ["KernelDeadlock", "TaskHung"];
