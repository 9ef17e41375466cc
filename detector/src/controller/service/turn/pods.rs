//! The pods of a node as steps see them, with the wishes of their namespaces.

use std::{collections::BTreeSet, time::Duration};

use super::super::core::Core;
use crate::{
    cluster::Outcome,
    contract::incident::AffectedPod,
    controller::{
        remediation::pods::Target,
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
    /// Why the wish of a namespace is not known: its pods count as opted out, and nothing is to be deleted.
    pub(super) unsure: Option<String>,
}

/// Lists the pods of `node`. `anew`: with the wishes of their namespaces as they are now.
pub(super) async fn list(core: &Core, node: &str, anew: bool) -> Result<Listed, Outcome> {
    let listed = list_pods(&core.client, node).await?;
    let believed = if anew { Duration::ZERO } else { BELIEVED };
    let (opted_out, unsure) = opt_outs(core, &listed, believed).await;
    let targets = listed.pods.iter().map(|pod| target(pod, opted_out.contains(&pod.namespace))).collect();
    Ok(Listed { targets, affected: listed.affected(&opted_out), unsure })
}

async fn opt_outs(core: &Core, listed: &NodePods, believed: Duration) -> (BTreeSet<String>, Option<String>) {
    let (now, mut opted_out, mut unknown) = (core.monotonic(), BTreeSet::new(), Vec::new());
    for namespace in listed.namespaces() {
        match core.opt_outs.borrow().get(&namespace) {
            Some((wish, read)) if now.saturating_sub(*read) < believed => {
                if *wish {
                    opted_out.insert(namespace);
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
                    opted_out.insert(namespace);
                }
            }
            Err(outcome) => {
                unsure = Some(format!("the Namespace {namespace} cannot be read: {}", why(&outcome)));
                opted_out.insert(namespace);
            }
        }
    }
    (opted_out, unsure)
}

fn target(pod: &NodePod, opted_out: bool) -> Target {
    Target {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        controller: pod.controller.clone(),
        mirror: pod.mirror,
        ended: pod.has_ended(),
        deletion: pod.deletion,
        opted_out,
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
        opted_out: pod.left.is_some(),
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
