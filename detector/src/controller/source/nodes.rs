//! All Nodes of the cluster: one watch, and what is known by it.

use std::collections::{BTreeMap, BTreeSet};

use kube::{Client, core::Request};
use tokio::sync::mpsc;

use super::node_facts::{NodeFacts, WatchedNode};
use crate::cluster::{
    Outcome, answer,
    watch::{Lists, Update, watch},
};

/// Room for updates before the flow takes them; the watch is read no faster.
pub const UPDATES: usize = 64;

/// Nodes of one page, where the server cannot stream its list. A Node has some 20 kB.
const PAGE: u32 = 50;

/// Nodes that are kept. Kubernetes itself supports 5,000 (`docs.kubernetes.io`, large clusters); one keeps less than 1 kB.
pub const MAX_NODES: usize = 50_000;

/// Bytes of one Node that are read. It lists up to 50 images, each by several names (`--node-status-max-images`); one with
/// many has some 200 kB.
pub const NODE_BYTES: usize = 4 << 20;

/// What the watch tells.
pub type NodeUpdate = Update<NodeFacts>;

/// Watches all Nodes until nobody takes updates any more. Needs the rights to list and watch Nodes.
pub async fn watch_nodes(client: Client, updates: mpsc::Sender<NodeUpdate>) {
    watch::<WatchedNode, NodeUpdate>(client, "", Lists::Pages(PAGE), updates).await;
}

impl From<Update<WatchedNode>> for NodeUpdate {
    fn from(update: Update<WatchedNode>) -> Self {
        match update {
            Update::ListBegins => Self::ListBegins,
            Update::Seen(node) => Self::Seen(node.facts),
            Update::Gone(node) => Self::Gone(node.facts),
            Update::ListEnds => Self::ListEnds,
            Update::Refused { reason } => Self::Refused { reason },
            Update::Failed { reason } => Self::Failed { reason },
        }
    }
}

/// Reads one Node past all caches, as it has to be before a step that destroys something. `None`: there is none.
///
/// Needs the right to get Nodes.
pub async fn read_node(client: &Client, name: &str) -> Result<Option<NodeFacts>, Outcome> {
    let impossible = |error| Outcome::Final(format!("a request about the Node {name:?} cannot be made: {error}"));
    let request = Request::new("/api/v1/nodes").get(name, &kube::api::GetParams::default()).map_err(impossible)?;
    let (answer, body) = answer::ask(client, request, NODE_BYTES).await;
    let missing = answer::is_missing(&answer, &body, name);
    match answer.outcome {
        _ if missing => Ok(None),
        Outcome::Done => match serde_json::from_slice::<WatchedNode>(&body) {
            Ok(node) if node.facts.name == name => Ok(Some(node.facts)),
            _ => Err(Outcome::Retry { after: None, reason: format!("the answer about the Node {name} is no Node") }),
        },
        outcome => Err(outcome),
    }
}

/// What has changed by an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeChange {
    /// A Node is there that was not known, or not by this uid; the one before it of the same name, if there was one.
    Came {
        /// Its name.
        name: String,
        /// The one that it replaces.
        before: Option<NodeFacts>,
    },
    /// Something of it is different now.
    Changed {
        /// Its name.
        name: String,
        /// As it was before.
        before: NodeFacts,
    },
    /// It is gone.
    Went {
        /// As it was.
        before: NodeFacts,
    },
}

/// All Nodes by name.
#[derive(Debug, Default)]
pub struct Nodes {
    known: BTreeMap<String, NodeFacts>,
    /// Names seen since a list began, while it has not ended.
    listed: Option<BTreeSet<String>>,
    complete: bool,
    passed_over: u64,
}

impl Nodes {
    /// Takes an update; what has changed by it, in the order of names.
    pub fn take(&mut self, update: NodeUpdate) -> Vec<NodeChange> {
        match update {
            Update::ListBegins => self.listed = Some(BTreeSet::new()),
            Update::Seen(node) => return self.seen(node).into_iter().collect(),
            Update::Gone(node) => {
                return self.known.remove(&node.name).map(|before| NodeChange::Went { before }).into_iter().collect();
            }
            Update::ListEnds => return self.list_ends(),
            Update::Refused { .. } | Update::Failed { .. } => {}
        }
        Vec::new()
    }

    fn seen(&mut self, node: NodeFacts) -> Option<NodeChange> {
        let name = node.name.clone();
        if !self.known.contains_key(&name) && self.known.len() >= MAX_NODES {
            self.passed_over += 1;
            return None;
        }
        if let Some(listed) = &mut self.listed {
            listed.insert(name.clone());
        }
        let before = self.known.insert(name.clone(), node);
        let now = self.known.get(&name)?;
        match before {
            Some(before) if before == *now => None,
            Some(before) if before.uid == now.uid => Some(NodeChange::Changed { name, before }),
            before => Some(NodeChange::Came { name, before }),
        }
    }

    /// Whoever is not in a whole list is gone.
    fn list_ends(&mut self) -> Vec<NodeChange> {
        let listed = self.listed.take().unwrap_or_default();
        self.complete = true;
        let gone: Vec<String> = self.known.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        gone.iter().filter_map(|name| self.known.remove(name)).map(|before| NodeChange::Went { before }).collect()
    }

    /// The Node of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&NodeFacts> {
        self.known.get(name)
    }

    /// All Nodes, by name.
    pub fn iter(&self) -> impl Iterator<Item = &NodeFacts> + Clone {
        self.known.values()
    }

    /// Whether a list has come to its end: before, a Node that is not known may be there.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Sightings of Nodes beyond [`MAX_NODES`], which are not kept.
    #[must_use]
    pub const fn passed_over(&self) -> u64 {
        self.passed_over
    }
}

#[cfg(test)]
mod tests;
