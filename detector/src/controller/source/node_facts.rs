//! A Node as the API server tells it → what is kept of it.
//!
//! Of an answer only what [`NodeFacts`] needs is ever taken: images and managed fields, most of a Node, are skipped while it
//! is read.

use std::{borrow::Cow, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::ClusterResourceScope;
use kube::{Resource, api::ObjectMeta};
use serde::Deserialize;

use crate::{
    contract::{
        problem::{PREVIOUS_BOOT_CRASH, previous_boot::PreviousBoot},
        remediation::OPT_OUT_VALUE,
    },
    text,
};

/// Taints of nodes of the control plane: today's, and the one before Kubernetes 1.20.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// Addresses of one Node that are kept: a kubelet reports one or two of each type.
pub const MAX_ADDRESSES: usize = 16;

/// Bytes of a foreign text that are kept: the longest name of an object, and more than any hash or boot id.
const MAX_TEXT: usize = 253;

/// Bytes of the agent's message that are kept: as many as it writes.
const MAX_MESSAGE: usize = 1024;

/// What is known of a node from its object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `status.nodeInfo.bootID`.
    pub boot_id: Option<String>,
    /// `status.addresses` of the types `InternalIP` and `ExternalIP`.
    pub addresses: Vec<IpAddr>,
    /// SHA-256 of its netconsole secret ([`crate::contract::netconsole::NODE_ANNOTATION`]).
    pub secret_sha256: Option<String>,
    /// Condition `Ready`.
    pub ready: Ready,
    /// `lastTransitionTime` of `Ready`.
    pub ready_since: Option<Timestamp>,
    /// `spec.unschedulable`.
    pub cordoned: bool,
    /// Whether it has a control-plane label or taint.
    pub control_plane: bool,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Label [`crate::contract::remediation::OPT_OUT`] with the value `disabled`.
    pub opted_out: bool,
    /// What the agent found after the last reboot.
    pub found: Option<Found>,
}

/// Status of a node's `Ready` condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// The kubelet says it is well.
    True,
    /// The kubelet says it is not.
    False,
    /// The kubelet says nothing: the control plane gave the node up.
    Unknown,
    /// No such condition: the node has not come up yet.
    #[default]
    Missing,
}

/// The condition of the agent about the boot before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its message.
    pub message: String,
    /// Its `lastTransitionTime`.
    pub since: Option<Timestamp>,
}

/// A Node of an answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub(super) struct WatchedNode {
    /// Name and version, for the library.
    metadata: ObjectMeta,
    pub(super) facts: NodeFacts,
}

/// What is read of a Node.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    uid: String,
    resource_version: Option<String>,
    annotations: Option<Annotations>,
    labels: Option<Labels>,
}

#[derive(Default, Deserialize)]
struct Annotations {
    /// [`crate::contract::netconsole::NODE_ANNOTATION`].
    #[serde(rename = "detector.dev/netconsole-secret-sha256")]
    secret: Option<String>,
}

#[derive(Default, Deserialize)]
struct Labels {
    #[serde(rename = "node-role.kubernetes.io/control-plane")]
    control_plane: Option<String>,
    #[serde(rename = "node-role.kubernetes.io/master")]
    master: Option<String>,
    #[serde(rename = "topology.kubernetes.io/zone")]
    zone: Option<String>,
    /// [`crate::contract::remediation::OPT_OUT`].
    #[serde(rename = "detector.dev/remediation")]
    opt_out: Option<String>,
}

#[derive(Default, Deserialize)]
struct Spec {
    unschedulable: Option<bool>,
    taints: Option<Vec<Taint>>,
}

#[derive(Deserialize)]
struct Taint {
    key: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
    node_info: Option<NodeInfo>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    last_transition_time: Option<String>,
}

#[derive(Deserialize)]
struct NodeInfo {
    #[serde(rename = "bootID", default)]
    boot_id: String,
}

impl From<Wire> for WatchedNode {
    fn from(wire: Wire) -> Self {
        let Wire { metadata, spec, status } = wire;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let labels = metadata.labels.unwrap_or_default();
        let tainted = spec.taints.iter().flatten().any(|taint| CONTROL_PLANE.contains(&taint.key.as_str()));
        let conditions = status.conditions.unwrap_or_default();
        let (ready, ready_since) = readiness(&conditions);
        let boot_id = status.node_info.map(|info| info.boot_id).filter(|id| !id.is_empty());
        let facts = NodeFacts {
            name: metadata.name.clone(),
            uid: metadata.uid,
            boot_id: boot_id.map(|id| short(&id, MAX_TEXT)),
            addresses: addresses(status.addresses.as_deref().unwrap_or_default()),
            secret_sha256: metadata.annotations.and_then(|all| all.secret).map(|hash| short(&hash, MAX_TEXT)),
            ready,
            ready_since,
            cordoned: spec.unschedulable.unwrap_or_default(),
            control_plane: labels.control_plane.is_some() || labels.master.is_some() || tainted,
            zone: labels.zone.filter(|zone| !zone.is_empty()).map(|zone| short(&zone, MAX_TEXT)),
            opted_out: labels.opt_out.as_deref() == Some(OPT_OUT_VALUE),
            found: found(conditions),
        };
        let resource_version = metadata.resource_version;
        Self { metadata: ObjectMeta { name: Some(metadata.name), resource_version, ..ObjectMeta::default() }, facts }
    }
}

/// The addresses that a datagram of the node may come from.
fn addresses(all: &[Address]) -> Vec<IpAddr> {
    let of_host = all.iter().filter(|one| matches!(one.kind.as_str(), "InternalIP" | "ExternalIP"));
    let mut kept = Vec::new();
    for address in of_host.filter_map(|one| one.address.parse::<IpAddr>().ok()) {
        // As datagrams tell theirs: an IPv4 address is never written as an IPv6 one.
        let address = address.to_canonical();
        if kept.len() < MAX_ADDRESSES && !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept.shrink_to_fit();
    kept
}

fn readiness(conditions: &[Condition]) -> (Ready, Option<Timestamp>) {
    let Some(condition) = conditions.iter().find(|condition| condition.kind == "Ready") else {
        return (Ready::Missing, None);
    };
    let ready = match condition.status.as_str() {
        "True" => Ready::True,
        "False" => Ready::False,
        _ => Ready::Unknown,
    };
    (ready, since(condition))
}

fn since(condition: &Condition) -> Option<Timestamp> {
    condition.last_transition_time.as_deref()?.parse().ok()
}

/// What the agent tells of the boot before, whether it was a crash or not. Others may write a condition of that name, too.
fn found(conditions: Vec<Condition>) -> Option<Found> {
    let known = |condition: &Condition| condition.kind == PREVIOUS_BOOT_CRASH.kind && condition.status != "Unknown";
    let condition = conditions.into_iter().find(known)?;
    let since = since(&condition);
    let message = short(&condition.message?, MAX_MESSAGE);
    PreviousBoot::read(&message)?;
    Some(Found { message, since })
}

/// The start, and no more room than it needs.
fn short(text: &str, bytes: usize) -> String {
    text::start(text, bytes).to_owned()
}

impl Resource for WatchedNode {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests;
