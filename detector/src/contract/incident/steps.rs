//! What was done about it, and what waits.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A step of the remediation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepEntry {
    /// What. Each step is taken once for an incident.
    pub kind: StepKind,
    /// How far it is.
    pub state: StepState,
    /// When it was written down.
    pub time: MicroTime,
    /// When it was done, told or given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<MicroTime>,
    /// What it did, for people: numbers, refusals.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Steps: those of a node that is lost in the order in which they are taken, then those that take something back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum StepKind {
    /// `spec.unschedulable`: nothing new comes to the node.
    Cordon,
    /// The reason as annotation on Node and pods, and the pods' condition `detector.dev/KernelCrash`.
    Annotate,
    /// Plain delete of pods: Deployments replace them at once.
    DeletePods,
    /// Pods' `phase: Failed`, reason `KernelPanic`, condition `DisruptionTarget`: Jobs go on, uncharged.
    FailPods,
    /// Taint `node.kubernetes.io/out-of-service`: volumes are detached, StatefulSets move.
    TaintOutOfService,
    /// Delete of pods with grace 0: the same without the taint, pod by pod.
    ForceDeletePods,
    /// Delete of the Node.
    DeleteNode,
    /// The taint is taken off: the node is back.
    Untaint,
    /// The cordon is taken back: the node is back or the alarm was false. Only a cordon of ours.
    Uncordon,
    /// Conditions are taken back, and after a false alarm reasons, too: the node is back.
    Retract,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StepState {
    /// Written down; perhaps already done in part. Doing it again does no harm.
    Intended,
    /// Done.
    Done,
    /// The API server refused for good; the message says why.
    Failed,
    /// Dry run: it would have been taken.
    Told,
}

/// Why a step waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HoldEntry {
    /// The step.
    pub step: StepKind,
    /// Why.
    pub reason: HoldReason,
    /// Since when for this reason.
    pub since: MicroTime,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Why a step waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum HoldReason {
    /// The evidence does not suffice yet.
    NoCorroboration,
    /// The node is back, or another boot of it is up.
    NodeReturned,
    /// Too many nodes are being remediated, or too many were in the last hour, or in this zone.
    Budget,
    /// Too many nodes are not ready: the fault may be ours or the network's.
    ClusterUnwell,
    /// The brake is pulled; a person has to release it.
    Brake,
    /// The node is excluded: control plane, or by label.
    Excluded,
    /// The state of the node, or the namespace of a pod, could not be read right before the step.
    Unverified,
}
