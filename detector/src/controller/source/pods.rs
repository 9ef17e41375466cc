//! The pods of one node, listed at the first evidence of its death, and whether their namespaces want to be left alone.
//!
//! Of an answer only what [`NodePod`] needs is ever taken.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use kube::{
    Client,
    api::{GetParams, ListParams},
    core::Request,
};
use serde::Deserialize;

use crate::{
    cluster::{Outcome, answer},
    contract::{
        incident::{AffectedPod, MAX_PODS},
        remediation::OPT_OUT_VALUE,
    },
    text,
};

/// Pods of one node that are looked at. Kubernetes supports 110 (`docs.kubernetes.io`, large clusters), some run 500.
pub const MAX_LISTED: usize = 2_000;

/// Bytes of one answer that are read. A pod has some 10 to 20 kB.
const LIST_BYTES: usize = 48 << 20;

/// Pods of a page, if the server gives pages.
const PAGE: u32 = 250;

/// Pages at most: the server decides how many there are.
const MAX_PAGES: usize = 64;

/// Bytes of a Namespace that are read.
const NAMESPACE_BYTES: usize = 1 << 20;

/// Namespaces that are read at once.
const AT_ONCE: usize = 8;

/// Bytes of a foreign text that are kept.
const MAX_TEXT: usize = 253;

/// What is kept of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePod {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Kind of its controller (`ReplicaSet`, `StatefulSet`, `Job`, `DaemonSet`), if it has one.
    pub controller: Option<String>,
    /// The pod stands for one that the kubelet runs from a file or URL.
    pub mirror: bool,
    /// Where it is in its life.
    pub phase: PodPhase,
    /// `metadata.deletionTimestamp`: it is being deleted, and gone by then.
    pub deletion: Option<Timestamp>,
    /// `metadata.annotations["detector.dev/incident"]`.
    pub incident: Option<String>,
}

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all of its containers have been started.
    Pending,
    /// It runs.
    Running,
    /// All of its containers have ended well, for good.
    Succeeded,
    /// All of its containers have ended, for good.
    Failed,
    /// None of these.
    #[default]
    Unknown,
}

/// The pods of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePods {
    /// By namespace and name.
    pub pods: Vec<NodePod>,
    /// Pods beyond [`MAX_LISTED`].
    pub passed_over: usize,
}

impl NodePod {
    /// It has ended by itself: the death of the node does not concern it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }
}

impl NodePods {
    /// Those that die with the node, as the incident names them, and how many they are. `left`: why one is left alone by the
    /// steps that delete or fail pods, if so.
    #[must_use]
    pub fn affected(&self, left: impl Fn(&NodePod) -> Option<&'static str>) -> (Vec<AffectedPod>, i64) {
        let living = || self.pods.iter().filter(|pod| !pod.has_ended());
        let named = living().take(MAX_PODS).map(|pod| AffectedPod {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            controller: pod.controller.clone(),
            left: left(pod).map(str::to_owned),
        });
        (named.collect(), i64::try_from(living().count() + self.passed_over).unwrap_or(i64::MAX))
    }

    /// Namespaces of its pods.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<String> {
        self.pods.iter().map(|pod| pod.namespace.clone()).collect()
    }
}

/// Lists the pods of `node`. Needs the right to list pods.
///
/// The list is asked for by version 0, from the server's cache, which has an index by node: servers before 1.31 would else
/// read the pods of all nodes from etcd. It may be some milliseconds old; whoever changes a pod names its uid.
pub async fn list_pods(client: &Client, node: &str) -> Result<NodePods, Outcome> {
    let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let mut listed = NodePods::default();
    let mut page = params.clone().match_any();
    for _ in 0..MAX_PAGES {
        let request = Request::new("/api/v1/pods")
            .list(&page)
            .map_err(|error| Outcome::Final(format!("a request about the pods of {node:?} cannot be made: {error}")))?;
        let (answer, body) = answer::ask(client, request, LIST_BYTES).await;
        if answer.outcome != Outcome::Done {
            return Err(answer.outcome);
        }
        let list: PodList = serde_json::from_slice(&body).map_err(|error| Outcome::Retry {
            after: None,
            reason: format!("the answer about the pods of {node} is no list: {error}"),
        })?;
        listed.add(list.items);
        match list.metadata.continues.filter(|token| !token.is_empty()) {
            // A page belongs to the version of the first one.
            Some(token) => page = params.clone().limit(PAGE).continue_token(&token),
            None => {
                listed.pods.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
                return Ok(listed);
            }
        }
    }
    Err(Outcome::Final(format!("the list of the pods of {node} has more than {MAX_PAGES} pages")))
}

impl NodePods {
    fn add(&mut self, items: Vec<Wire>) {
        for item in items {
            if self.pods.len() < MAX_LISTED {
                self.pods.push(item.into());
            } else {
                self.passed_over += 1;
            }
        }
    }
}

/// Whether each of `namespaces` opts its pods out, each read once. Needs the right to get Namespaces.
pub async fn read_opt_outs(
    client: &Client,
    namespaces: impl IntoIterator<Item = String>,
) -> BTreeMap<String, Result<bool, Outcome>> {
    let reads = namespaces.into_iter().map(|name| async move {
        let opted_out = read_opt_out(client, &name).await;
        (name, opted_out)
    });
    stream::iter(reads).buffer_unordered(AT_ONCE).collect().await
}

async fn read_opt_out(client: &Client, namespace: &str) -> Result<bool, Outcome> {
    let request = Request::new("/api/v1/namespaces").get(namespace, &GetParams::default()).map_err(|error| {
        Outcome::Final(format!("a request about the Namespace {namespace:?} cannot be made: {error}"))
    })?;
    let (answer, body) = answer::ask(client, request, NAMESPACE_BYTES).await;
    let missing = answer::is_missing(&answer, &body, namespace);
    match answer.outcome {
        // Nobody is there who could want anything.
        _ if missing => Ok(false),
        Outcome::Done => match serde_json::from_slice::<Labelled>(&body) {
            Ok(read) => Ok(read.metadata.labels.and_then(|labels| labels.opt_out).as_deref() == Some(OPT_OUT_VALUE)),
            Err(error) => Err(Outcome::Retry {
                after: None,
                reason: format!("the answer about the Namespace {namespace} cannot be read: {error}"),
            }),
        },
        outcome => Err(outcome),
    }
}

#[derive(Deserialize)]
struct Labelled {
    metadata: LabelledMetadata,
}

#[derive(Deserialize)]
struct LabelledMetadata {
    labels: Option<Labels>,
}

#[derive(Deserialize)]
struct Labels {
    /// [`crate::contract::remediation::OPT_OUT`].
    #[serde(rename = "detector.dev/remediation")]
    opt_out: Option<String>,
}

#[derive(Deserialize)]
struct PodList {
    #[serde(default)]
    metadata: ListMetadata,
    items: Vec<Wire>,
}

#[derive(Default, Deserialize)]
struct ListMetadata {
    #[serde(rename = "continue")]
    continues: Option<String>,
}

/// What is read of a pod.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    metadata: Metadata,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    uid: String,
    owner_references: Option<Vec<Owner>>,
    annotations: Option<Annotations>,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    #[serde(default)]
    controller: Option<bool>,
}

#[derive(Deserialize)]
struct Annotations {
    /// The kubelet marks pods so that only stand for one it has from elsewhere (`pkg/kubelet/types/pod_update.go`).
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<String>,
    /// [`crate::contract::remediation::INCIDENT_ANNOTATION`].
    #[serde(rename = "detector.dev/incident")]
    incident: Option<String>,
}

#[derive(Default, Deserialize)]
struct Status {
    phase: Option<String>,
}

impl From<Wire> for NodePod {
    fn from(wire: Wire) -> Self {
        let Wire { metadata, status } = wire;
        let status = status.unwrap_or_default();
        let (mirror, incident) =
            metadata.annotations.map(|all| (all.mirror.is_some(), all.incident)).unwrap_or_default();
        let mut owners = metadata.owner_references.into_iter().flatten();
        Self {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            controller: owners.find(|owner| owner.controller == Some(true)).map(|owner| short(&owner.kind)),
            mirror,
            phase: match status.phase.as_deref() {
                Some("Pending") => PodPhase::Pending,
                Some("Running") => PodPhase::Running,
                Some("Succeeded") => PodPhase::Succeeded,
                Some("Failed") => PodPhase::Failed,
                _ => PodPhase::Unknown,
            },
            deletion: metadata.deletion_timestamp.and_then(|time| time.parse().ok()),
            incident: incident.as_deref().map(short),
        }
    }
}

fn short(text: &str) -> String {
    text::start(text, MAX_TEXT).to_owned()
}

#[cfg(test)]
mod tests;
