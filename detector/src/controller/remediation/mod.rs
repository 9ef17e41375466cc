//! An incident → the next step, or why it waits; then the step itself. Only the leader is here.
//!
//! ```text
//! incident + node as they are now ─▶ plan (policy, budget, brake: pure) ─▶ written down ─▶ taken ─▶ written down
//! ```
//!
//! `plan` and `budget` see values and a time and give values; the executors (`cordon`, `annotate`, `pods`, `taint`, `node`)
//! ask the API server, each so that doing it again does no harm. Right before a step the node is read again, past all caches.

mod annotate;
pub mod brake;
pub mod budget;
mod cordon;
pub mod journal;
mod node;
pub mod plan;
pub mod pods;
pub mod reason;
mod taint;
pub mod take;

use std::time::Duration;

use jiff::Timestamp;

use super::incident::NodeFacts;
pub use super::source::lease::LeaseView;
use crate::contract::incident::{HoldReason, KernelIncident, StepKind};

/// What may be done, and how much of it: checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Really do it; else only tell what would have been done.
    pub act: bool,
    /// [`StepKind::Cordon`] (and later `Uncordon`).
    pub cordon: bool,
    /// [`StepKind::Annotate`] (and `Retract`).
    pub annotate: bool,
    /// [`StepKind::DeletePods`].
    pub delete_pods: bool,
    /// [`StepKind::FailPods`].
    pub fail_pods: bool,
    /// What frees volumes and StatefulSets after proof of death.
    pub release: Release,
    /// [`StepKind::DeleteNode`].
    pub delete_node: bool,
    /// Keys of further annotations with the reason, on pods.
    pub pod_reason_keys: Vec<String>,
    /// Keys of further annotations with the reason, on the Node.
    pub node_reason_keys: Vec<String>,
    /// A panic whose sender is known by its address alone is a witness of death, too.
    pub trust_address: bool,
    /// Control-plane nodes that may be remediated all the same, by name.
    pub control_plane_nodes: Vec<String>,
    /// A node that comes back within this time after its death is held, not finished off.
    pub reboot_window: Duration,
    /// An incident of a node that is back is closed after this time.
    pub close_after: Duration,
    /// How much at once.
    pub budget: Budget,
}

/// What frees volumes and StatefulSets after proof of death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Nothing.
    Disabled,
    /// [`StepKind::TaintOutOfService`].
    OutOfService,
    /// [`StepKind::ForceDeletePods`].
    ForceDelete,
}

/// How much may be done: what goes beyond is held, not forgotten. Counted from the steps that stand in all incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Nodes on which a step is being taken, or was within [`budget::UNDER_WAY`].
    pub nodes_at_once: u32,
    /// The same in one zone (nodes without a zone are one zone).
    pub nodes_per_zone: u32,
    /// Nodes on which a first step was taken within the last hour. The one that goes beyond pulls the brake.
    pub nodes_per_hour: u32,
    /// Hold everything while more than this share of all nodes is not ready, in percent.
    pub not_ready_percent: u32,
}

/// All that a plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The incident as it stands in the API.
    pub incident: &'a KernelIncident,
    /// Its node; `None`: there is no such Node any more, or it is another one of the same name (by uid).
    pub node: Option<&'a NodeFacts>,
    /// The node's Lease, as read for this plan.
    pub lease: LeaseView,
    /// What all incidents use up.
    pub usage: &'a Usage,
    /// The brake is pulled.
    pub braked: bool,
    /// What is allowed.
    pub policy: &'a Policy,
    /// By the clock of this replica.
    pub now: Timestamp,
}

/// What is used of the budget, by all incidents but the one that is planned for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nodes under remediation.
    pub nodes: u32,
    /// Those in the zone of the node that is planned for.
    pub nodes_in_zone: u32,
    /// Nodes on which a first step was taken within the last hour.
    pub nodes_in_hour: u32,
    /// All Nodes.
    pub cluster: u32,
    /// Nodes whose Ready is not True.
    pub not_ready: u32,
}

/// What comes next for one incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Take this step (in dry run: tell it).
    Take(StepKind),
    /// A step would be next, and waits.
    Hold {
        /// The step.
        step: StepKind,
        /// Why.
        reason: HoldReason,
        /// For people.
        message: String,
        /// Look again then at the latest; `None`: only something new changes it.
        until: Option<Timestamp>,
        /// The brake is to be pulled with it.
        brake: bool,
    },
    /// Nothing is left to do by now.
    Nothing {
        /// Look again then at the latest.
        until: Option<Timestamp>,
    },
}
