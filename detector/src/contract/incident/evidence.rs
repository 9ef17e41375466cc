//! What witnesses told, and whom it points at.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cause, Confidence};

/// Whom the evidence points at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Suspect {
    /// `NAMESPACE/POD/CONTAINER`, else the process, else the cgroup: what `kubectl get ki` shows.
    #[schemars(length(max = 512))]
    pub name: String,
    /// How sure that is.
    pub confidence: Confidence,
    /// Why it is suspected: a word of the table in `docs/last-words.md`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Process id on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i64>,
    /// Name of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Namespace of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// `metadata.uid` of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// One fact about a node, told by one witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceEntry {
    /// Key: `REPLICA/KIND` for what a replica heard, `leader/KIND` for what Node and Lease tell. A fact told again keeps its
    /// key.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// What kind of fact.
    pub kind: EvidenceKind,
    /// Who told it.
    pub origin: Origin,
    /// How sure it is that the node itself said so.
    pub confidence: Confidence,
    /// When it happened, by the witness's clock.
    pub time: MicroTime,
    /// The fact, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Cause that it speaks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Boot that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Whom it points at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect: Option<Suspect>,
}

/// Kinds of fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum EvidenceKind {
    /// The kernel's own "Kernel panic - not syncing".
    Panic,
    /// A line of the kernel that goes before a panic: an oops, a lockup, a machine check.
    Signature,
    /// The line of our own probe that names the suspect.
    LastWords,
    /// At least two renewals of the node's Lease were missed.
    LeaseStale,
    /// The Lease is renewed again.
    LeaseFresh,
    /// The control plane gave the node up: Ready is Unknown.
    ReadyUnknown,
    /// The node reports another boot.
    OtherBoot,
    /// The node reports the same boot as before.
    SameBoot,
    /// The node is back, and its clock lags by about the time of its silence: the machine stood still.
    ClockStood,
    /// The node is back, and its clock went on: it lived and was not heard.
    ClockWentOn,
    /// Lines of the kernel that are no panic arrived after the Lease was stale: the kernel lived then.
    KernelSpoke,
    /// What the node found after its reboot: a record of a panic (pstore, kdump).
    FoundPanic,
    /// What the node found after its reboot: the boot before did not end in a shutdown.
    FoundUnclean,
    /// What the node found after its reboot: the boot before was shut down in order.
    FoundClean,
    /// The Node object was deleted.
    NodeDeleted,
}

/// Who told a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Origin {
    /// A datagram of the node's kernel.
    Netconsole,
    /// The Node object.
    Node,
    /// The node's Lease in `kube-node-lease`.
    Lease,
    /// The agent on the node, after the reboot.
    Agent,
}

/// A piece of the kernel's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogExcerpt {
    /// Key: the replica that heard it.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// How it came.
    pub origin: Origin,
    /// Lines, oldest first, control characters replaced.
    #[schemars(length(max = 32768))]
    pub text: String,
    /// Lines that are known to be missing: lost on the way, or cut here.
    #[serde(default)]
    pub lines_missing: i64,
}
