//! `KernelIncident` (`kernelincidents.detector.dev/v1alpha1`, short `ki`): what ended the kernel of a node, who is suspected,
//! which pods died with it, and what was done.
//!
//! The object outlives node and pods: it has no owner. Its name is made of node and boot ([`name`]), so that
//! two replicas that hear the same panic write into one object. Who writes what:
//!
//! | field | writer | field manager |
//! |---|---|---|
//! | `spec` | whoever is first; never changed | (create) |
//! | what a replica heard over netconsole: its entries of `status.evidence` and `status.logs`, all of them each time | each replica | `detector-evidence-REPLICA` |
//! | all else in `status`, evidence from Node and Lease included | the leader | `detector-controller` |
//!
//! Lists are keyed, so that server-side applies of several managers merge (`listType=map`).

#![allow(unreachable_pub, reason = "kube's derive repeats each struct inside of a function")]

pub mod definition;
mod evidence;
mod steps;

pub use evidence::{EvidenceEntry, EvidenceKind, LogExcerpt, Origin, Suspect};
pub use steps::{HoldEntry, HoldReason, StepEntry, StepKind, StepState};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Entries of `status.evidence` at most, of all writers together: what comes later is left out.
pub const MAX_EVIDENCE: usize = 64;

/// Excerpts of the kernel's log at most: one for each replica that heard it.
pub const MAX_LOGS: usize = 4;

/// Bytes of one excerpt at most. The newest lines before the end of the panic's head are kept.
pub const MAX_LOG_BYTES: usize = 32 * 1024;

/// Pods that are named; `status.podCount` counts all.
pub const MAX_PODS: usize = 256;

/// Bytes of a message at most.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// Steps and holds that are remembered, each.
pub const MAX_STEPS: usize = 32;

/// What a kernel died of, or seems to have died of. Its identity never changes.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "detector.dev",
    version = "v1alpha1",
    kind = "KernelIncident",
    plural = "kernelincidents",
    singular = "kernelincident",
    shortname = "ki",
    status = "KernelIncidentStatus",
    derive = "PartialEq",
    selectable = ".spec.node",
    selectable = ".status.cause",
    selectable = ".status.phase",
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.node"}"#,
    printcolumn = r#"{"name":"Cause","type":"string","jsonPath":".status.cause"}"#,
    printcolumn = r#"{"name":"Suspect","type":"string","jsonPath":".status.suspect.name"}"#,
    printcolumn = r#"{"name":"Pods","type":"integer","jsonPath":".status.podCount"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".spec.time"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self == oldSelf", "the identity of an incident never changes"))]
pub struct KernelIncidentSpec {
    /// Name of the Node.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// `metadata.uid` of the Node when the incident was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_uid: Option<String>,
    /// Boot that ended (`/proc/sys/kernel/random/boot_id`), if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Time of the first evidence.
    pub time: MicroTime,
}

/// What is known by now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!has(oldSelf.phase) || oldSelf.phase != 'Closed' || (has(self.phase) && self.phase == 'Closed')",
        "a closed incident stays closed"),
    validation = ("!has(self.steps) || !self.steps.exists(s, s.kind in ['DeletePods', 'FailPods', 'TaintOutOfService', \
        'ForceDeletePods', 'DeleteNode'] && s.state != 'Told') || (has(self.evidence) && self.evidence.exists(e, \
        e.kind == 'LeaseStale'))", "nothing is deleted without evidence that the node's Lease was stale")
)]
pub struct KernelIncidentStatus {
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What ended the kernel, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// How sure the cause is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// Kinds of death that remain possible, while the cause is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Set)]
    pub possible: Vec<Possible>,
    /// In one sentence for people: what happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Whom the evidence points at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect: Option<Suspect>,
    /// All evidence, each entry with its own key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["id".to_owned()]))]
    pub evidence: Vec<EvidenceEntry>,
    /// Last words: excerpts of the kernel's log, one for each that heard them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["id".to_owned()]))]
    pub logs: Vec<LogExcerpt>,
    /// Pods on the node at the time, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_count: Option<i64>,
    /// Pods on the node at the time, the first 256 by namespace and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["uid".to_owned()]))]
    pub pods: Vec<AffectedPod>,
    /// What was done or would have been done, in order. Each is written down before it is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["kind".to_owned()]))]
    pub steps: Vec<StepEntry>,
    /// Why a step waits, the last reason of each step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["step".to_owned()]))]
    pub holds: Vec<HoldEntry>,
    /// Standard conditions: `Dead`, `Returned`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// When it was closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<MicroTime>,
}

/// How far an incident is. Moves down this list, but that of a node that is lost again `Returned` becomes `Suspected` or
/// `Dead` again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// There is evidence; the node may still live.
    Suspected,
    /// The kernel of that boot is dead, by two independent witnesses.
    Dead,
    /// The node is back (a fresh Lease) and is watched for a while.
    Returned,
    /// Over. Never changes again but for evidence that came late.
    Closed,
}

/// What ended the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Cause {
    /// A panic of a kind that is not among the others.
    KernelPanic,
    /// A fault in the kernel (`BUG`, NULL pointer, general protection), with `panic_on_oops` or in interrupt context.
    Oops,
    /// `panic_on_oom`, or nothing left to kill.
    OutOfMemory,
    /// `hung_task_panic`.
    HungTask,
    /// `softlockup_panic`.
    SoftLockup,
    /// Hard lockup (NMI watchdog).
    HardLockup,
    /// `rcu_sched` stall with `panic_on_rcu_stall`.
    RcuStall,
    /// Machine check.
    MachineCheck,
    /// A non-maskable interrupt of unknown origin.
    UnknownNmi,
    /// `panic_on_warn`, or too many warnings.
    Warning,
    /// The kernel's stack was overwritten.
    StackCorruption,
    /// Process 1 of the machine ended.
    InitKilled,
    /// Somebody asked for it (`sysrq-c`).
    SysRq,
    /// No last words: the node went silent, and more than one kind of death remains possible (`status.possible`).
    Silent,
    /// The same boot is back: a stall of the machine or of its network.
    Stall,
    /// Another boot is back, without a trace of a panic: power, reset, or a hypervisor that ended it.
    Reset,
    /// Another boot is back, and the node found that the one before was shut down in order.
    Shutdown,
    /// The evidence was wrong: the node lived on.
    FalseAlarm,
}

/// Kinds of death that remain possible for a node that went silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Possible {
    /// Power was cut, or the machine was reset.
    Power,
    /// The kernel or its machine stands still.
    Hang,
    /// The node lives and cannot be reached.
    Network,
    /// The hypervisor paused or ended the machine.
    Hypervisor,
    /// A panic whose last words were lost (or netconsole was not set up).
    Panic,
    /// The kubelet alone is dead.
    Kubelet,
}

/// How much a statement can be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Confidence {
    /// Nothing speaks for it but that nothing else does.
    #[default]
    Unknown,
    /// One word that anybody could have said.
    Low,
    /// A statement with an author, or two weak ones that agree.
    Medium,
    /// Two independent witnesses.
    High,
}

/// A pod that was on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AffectedPod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Kind of its controller (`ReplicaSet`, `StatefulSet`, `Job`, `DaemonSet`), if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// Why its pod is left alone by the steps that delete or fail pods, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
}

/// Bytes of an object's name at most (RFC 1123 subdomain).
const NAME_BYTES: usize = 253;

/// Name of the incident of `node`: made of node and boot, so that whoever opens it first, all mean the same object.
///
/// `boot_id` is the boot that ended; without one the second of the first evidence (`time`, seconds since 1970) stands for
/// it. `ordinal` is 1 for the first incident of that boot, and counts on when one was closed and the same boot gets another.
#[must_use]
pub fn name(node: &str, boot_id: Option<&str>, time: i64, ordinal: u32) -> String {
    let boot: String = match boot_id {
        Some(id) => id.chars().filter(char::is_ascii_hexdigit).take(12).collect::<String>().to_ascii_lowercase(),
        None => format!("{time}"),
    };
    let mut tail = format!("-{boot}");
    if ordinal > 1 {
        tail.push_str(&format!("-{ordinal}"));
    }
    let kept = node.floor_char_boundary(NAME_BYTES - tail.len());
    let node = node.get(..kept).unwrap_or_default().trim_end_matches(['.', '-']);
    format!("{node}{tail}")
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;

    use super::*;

    #[test]
    fn all_who_open_the_incident_of_a_boot_mean_one_object() {
        let boot = "0F3C7A52-11aa-4b5c-9c7e-aaaaaaaaaaaa";
        assert_eq!(name("node-a", Some(boot), 1, 1), "node-a-0f3c7a5211aa");
        assert_eq!(name("node-a", Some(boot), 2, 1), "node-a-0f3c7a5211aa");
        assert_eq!(name("node-a", Some(boot), 2, 3), "node-a-0f3c7a5211aa-3");
        assert_eq!(name("node-a", None, 1_800_000_000, 1), "node-a-1800000000");
    }

    #[test]
    fn a_name_is_never_longer_than_an_object_may_be_called() {
        let name = name(&"n".repeat(253), Some("0f3c7a52-11aa"), 0, 12);
        assert_eq!(name.len(), NAME_BYTES);
        assert!(name.ends_with("-0f3c7a5211aa-12"), "{name}");
    }

    #[test]
    fn the_definition_keeps_lists_of_several_writers_apart() {
        let crd = serde_json::to_value(KernelIncident::crd()).expect("a definition");
        let status = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
        assert_eq!(status["evidence"]["x-kubernetes-list-type"], "map");
        assert_eq!(status["evidence"]["x-kubernetes-list-map-keys"][0], "id");
        assert_eq!(status["steps"]["x-kubernetes-list-map-keys"][0], "kind");
        assert_eq!(crd["spec"]["names"]["shortNames"][0], "ki");
    }
}
