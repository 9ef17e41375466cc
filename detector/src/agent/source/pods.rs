//! The pods of this node by the API server, for clusters that allow it (list and watch pods): their names and the ids of
//! their containers.
//!
//! Only what [`PodFacts`] needs is ever taken out of an answer. The list is streamed where the server can
//! (`sendInitialEvents`, Kubernetes 1.32), else read in one from its cache; a watch that has become too old (410) is begun
//! anew.

mod watched;

use kube::Client;
use tokio::sync::mpsc;

use crate::cluster::watch::{Lists, Update, watch};
use watched::WatchedPod;

/// Room for updates before the flow takes them; the watch is read no faster.
pub const UPDATES: usize = 64;

/// What is kept of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// `metadata.uid`.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// For a static pod the uid that its cgroup's path has, which is the one that events about it carry.
    pub config_hash: Option<String>,
    /// Id and name of its containers, init and ephemeral ones too, with their last ended instance.
    pub containers: Vec<(String, String)>,
}

/// What the watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodUpdate {
    /// A list begins: pods that are not seen until it ends are gone.
    ListBegins,
    /// A pod is there.
    Seen(PodFacts),
    /// The pod with this uid is gone.
    Gone {
        /// Its uid.
        uid: String,
    },
    /// The list is complete.
    ListEnds,
    /// There is no right to watch pods: told once until it works. Names come from the runtime's files alone.
    Refused {
        /// What the server said.
        reason: String,
    },
    /// The server did not answer as it should: told once until it works; it is tried again.
    Failed {
        /// What was wrong.
        reason: String,
    },
}

/// Watches the pods of `node` until nobody takes updates any more.
pub async fn watch_pods(client: Client, node: String, updates: mpsc::Sender<PodUpdate>) {
    watch::<WatchedPod, PodUpdate>(client, &format!("spec.nodeName={node}"), Lists::Cached, updates).await;
}

impl From<Update<WatchedPod>> for PodUpdate {
    fn from(update: Update<WatchedPod>) -> Self {
        match update {
            Update::ListBegins => Self::ListBegins,
            Update::Seen(pod) => Self::Seen(pod.into_facts()),
            Update::Gone(pod) => Self::Gone { uid: pod.metadata.uid.unwrap_or_default() },
            Update::ListEnds => Self::ListEnds,
            Update::Refused { reason } => Self::Refused { reason },
            Update::Failed { reason } => Self::Failed { reason },
        }
    }
}

#[cfg(test)]
mod tests;
