//! The pods of a node as steps see them, with the wishes of their namespaces.

use std::{collections::BTreeMap, time::Duration};

use super::super::core::Core;
use crate::{
    cluster::Outcome,
    contract::incident::AffectedPod,
    controller::{
        remediation::pods::{Left, Target, Wish},
        source::pods::{NodePod, NodePods, list_pods, read_opt_outs},
    },
};

/// How long the wish of a namespace is believed: many nodes die at once, with pods of the same namespaces. Right before
/// something is destroyed it is not believed at all.
const BELIEVED: Duration = Duration::from_secs(30);
/// Namespaces whose wish is kept.
const MAX_KEPT: usize = 10_000;

/// Pods of a node.
pub(super) struct Listed {
    pub(super) targets: Vec<Target>,
    /// As the incident names them, and how many.
    pub(super) affected: (Vec<AffectedPod>, i64),
    /// Why the wish of a namespace is not known: nothing is to be deleted.
    pub(super) unsure: Option<String>,
}

/// Lists the pods of `node`. `anew`: with the wishes of their namespaces as they are now.
pub(super) async fn list(core: &Core, node: &str, anew: bool) -> Result<Listed, Outcome> {
    let listed = list_pods(&core.client, node).await?;
    let believed = if anew { Duration::ZERO } else { BELIEVED };
    let (wishes, unsure) = wishes(core, &listed, believed).await;
    let target = |pod: &NodePod| target(pod, wishes.get(&pod.namespace).copied().unwrap_or_default());
    // What has ended is not among the affected, whoever ended it.
    let affected = listed.affected(|pod| Left::of(&target(pod), "").map(Left::of_one));
    Ok(Listed { targets: listed.pods.iter().map(target).collect(), affected, unsure })
}

/// The wishes of the namespaces that have one, or may have.
async fn wishes(core: &Core, listed: &NodePods, believed: Duration) -> (BTreeMap<String, Wish>, Option<String>) {
    let (now, mut wishes, mut unknown) = (core.monotonic(), BTreeMap::new(), Vec::new());
    for namespace in listed.namespaces() {
        match core.opt_outs.borrow().get(&namespace) {
            Some((wish, read)) if now.saturating_sub(*read) < believed => {
                if *wish {
                    wishes.insert(namespace, Wish::OptedOut);
                }
            }
            _ => unknown.push(namespace),
        }
    }
    let mut unsure = None;
    for (namespace, read) in read_opt_outs(&core.client, unknown).await {
        match read {
            Ok(wish) => {
                let mut known = core.opt_outs.borrow_mut();
                if known.len() >= MAX_KEPT {
                    known.clear();
                }
                known.insert(namespace.clone(), (wish, now));
                if wish {
                    wishes.insert(namespace, Wish::OptedOut);
                }
            }
            Err(outcome) => {
                unsure = Some(format!("the Namespace {namespace} cannot be read: {}", why(&outcome)));
                wishes.insert(namespace, Wish::Unread);
            }
        }
    }
    (wishes, unsure)
}

fn target(pod: &NodePod, wish: Wish) -> Target {
    Target {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        controller: pod.controller.clone(),
        mirror: pod.mirror,
        ended: pod.has_ended(),
        deletion: pod.deletion,
        wish,
        incident: pod.incident.clone(),
    }
}

/// The pods that the incident names, for whoever tells of steps of another leader.
pub(super) fn named(pods: &[AffectedPod]) -> Vec<Target> {
    let target = |pod: &AffectedPod| Target {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        controller: pod.controller.clone(),
        wish: if pod.left.is_some() { Wish::OptedOut } else { Wish::Nothing },
        ..Target::default()
    };
    pods.iter().map(target).collect()
}

/// Why something was not answered.
pub(super) fn why(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Gone(reason) | Outcome::Final(reason) | Outcome::Retry { reason, .. } => reason.clone(),
        Outcome::Done | Outcome::AlreadyThere => "the API server answered something else".to_owned(),
    }
}
