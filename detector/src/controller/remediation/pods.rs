//! A node's pods: whom a step touches and in which order; deleted, or failed.
//!
//! | pod | reason and condition | deleted, failed |
//! |---|---|---|
//! | any other | yes | yes |
//! | of a DaemonSet | yes | no: it would be made anew on the dead node |
//! | in a namespace that opted out, or that cannot be read | yes | no |
//! | mirror of a static pod | no | no: it is the kubelet's |
//! | ended before the node did | no | no |

use std::{cell::Cell, collections::VecDeque};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use serde_json::json;

use super::{
    annotate, reason,
    take::{Fate, Report, Scene, Tally, plural, send},
};
use crate::{
    cluster::request::{self, Deletion, NameError, Patch, RequestError},
    contract::{
        incident::{KernelIncident, KernelIncidentStatus, StepKind},
        remediation::{DISRUPTION_TARGET, FIELD_MANAGER},
    },
};

/// Requests about pods of one node that are under way at once. Enough for a hundred pods within a second of answers of 50 ms,
/// few enough that several nodes may be served at once.
const AT_ONCE: usize = 8;

/// What the namespace of a pod wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    #[default]
    Nothing,
    /// To be left alone ([`crate::contract::remediation::OPT_OUT`]).
    OptedOut,
    /// Nobody knows: it cannot be read.
    Unread,
}

/// A pod as steps see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Kind of its controller (`ReplicaSet`, `StatefulSet`, `Job`, `DaemonSet`), if it has one.
    pub controller: Option<String>,
    /// It mirrors a static pod of the kubelet (annotation `kubernetes.io/config.mirror`).
    pub mirror: bool,
    /// Its phase is `Succeeded` or `Failed`.
    pub ended: bool,
    /// `metadata.deletionTimestamp`.
    pub deletion: Option<Timestamp>,
    /// What its namespace wants.
    pub wish: Wish,
    /// Incident whose reason it carries ([`crate::contract::remediation::INCIDENT_ANNOTATION`]).
    pub incident: Option<String>,
}

/// Why a pod is left alone by deletions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Of a DaemonSet.
    DaemonSet,
    /// A mirror of a static pod.
    Mirror,
    /// In a namespace that opted out.
    OptedOut,
    /// In a namespace that cannot be read.
    Unread,
    /// Ended before the node did.
    Ended,
}

impl Left {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::DaemonSet, Self::Mirror, Self::OptedOut, Self::Unread, Self::Ended];

    /// Of any number of pods, as messages say it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::DaemonSet => "of a DaemonSet",
            Self::Mirror => "mirror of a static pod",
            Self::OptedOut => "in a namespace that opted out",
            Self::Unread => "in a namespace that cannot be read",
            Self::Ended => "ended before",
        }
    }

    /// Of one pod, as the incident says it.
    #[must_use]
    pub const fn of_one(self) -> &'static str {
        match self {
            Self::DaemonSet => "it belongs to a DaemonSet",
            Self::Mirror => "it is a static pod",
            Self::OptedOut => "its namespace has the label that opts it out",
            Self::Unread => "its namespace cannot be read",
            Self::Ended => "it ended before the node did",
        }
    }

    /// Why deletions of `incident` leave `pod` alone, if they do.
    #[must_use]
    pub fn of(pod: &Target, incident: &str) -> Option<Self> {
        // What ended by our own hand carries our reason.
        let ended_before = pod.ended && pod.incident.as_deref() != Some(incident);
        match pod {
            _ if pod.mirror => Some(Self::Mirror),
            _ if ended_before => Some(Self::Ended),
            _ if pod.controller.as_deref() == Some("DaemonSet") => Some(Self::DaemonSet),
            _ => match pod.wish {
                Wish::Nothing => None,
                Wish::OptedOut => Some(Self::OptedOut),
                Wish::Unread => Some(Self::Unread),
            },
        }
    }

    /// Whether it is told the reason all the same.
    const fn is_told(self) -> bool {
        matches!(self, Self::DaemonSet | Self::OptedOut | Self::Unread)
    }
}

/// What a step does to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    /// Write on them.
    Annotate,
    /// End them.
    Delete,
}

/// The pods that a step touches, in the order that serves all, and how many it leaves.
pub(super) struct Sorted<'a> {
    pub(super) pods: Vec<&'a Target>,
    left: [usize; Left::ALL.len()],
}

impl Sorted<'_> {
    /// `12 pods, left: 3 of a DaemonSet`.
    pub(super) fn count(&self, one: &str) -> String {
        format!("{}{}", plural(self.pods.len(), one), self.rest())
    }

    /// What is told of those that are left; empty if there are none.
    pub(super) fn rest(&self) -> String {
        let told = Left::ALL.iter().zip(self.left).filter(|(_, number)| *number > 0);
        let told: Vec<_> = told.map(|(left, number)| format!("{number} {}", left.words())).collect();
        if told.is_empty() { String::new() } else { format!("; left: {}", told.join(", ")) }
    }
}

/// The pods that `kind` touches, in its order; none if it is about the Node alone.
#[must_use]
pub fn touched<'a>(pods: &'a [Target], incident: &KernelIncident, kind: StepKind) -> Vec<&'a Target> {
    let touch = match kind {
        StepKind::Annotate | StepKind::Retract => Touch::Annotate,
        StepKind::DeletePods | StepKind::FailPods | StepKind::ForceDeletePods => Touch::Delete,
        _ => return Vec::new(),
    };
    sort(pods, incident, touch).pods
}

/// Sorts the pods of `scene` by what a step does to them.
pub(super) fn sorted<'a>(scene: &Scene<'a>, touch: Touch) -> Sorted<'a> {
    sort(scene.pods, scene.incident, touch)
}

fn sort<'a>(pods: &'a [Target], incident: &KernelIncident, touch: Touch) -> Sorted<'a> {
    let mut left = [0; Left::ALL.len()];
    let mut kept = Vec::new();
    let name = incident.metadata.name.as_deref().unwrap_or_default();
    for pod in pods {
        match Left::of(pod, name) {
            None => kept.push(pod),
            Some(why) if touch == Touch::Annotate && why.is_told() => kept.push(pod),
            Some(why) => left[why as usize] += 1,
        }
    }
    let suspect = incident.status.as_ref().and_then(|status| status.suspect.as_ref()?.pod_uid.as_deref());
    Sorted { pods: in_turn(kept, suspect), left }
}

/// The suspect's pod first; then one pod of each controller in turn, so that a controller of many pods makes no other wait;
/// pods of DaemonSets, whom nobody waits for, last.
fn in_turn<'a>(pods: Vec<&'a Target>, suspect: Option<&str>) -> Vec<&'a Target> {
    let (first, rest): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| suspect == Some(pod.uid.as_str()));
    let (last, rest): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|pod| pod.controller.as_deref() == Some("DaemonSet"));
    let mut groups: Vec<((&str, &str), VecDeque<&Target>)> = Vec::new();
    for pod in rest {
        // All controllers of Kubernetes name their pods so.
        let controller = pod.name.rsplit_once('-').map_or(pod.name.as_str(), |(controller, _)| controller);
        let key = (pod.namespace.as_str(), controller);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push_back(pod),
            None => groups.push((key, VecDeque::from([pod]))),
        }
    }
    let mut order = first;
    while groups.iter().any(|(_, group)| !group.is_empty()) {
        order.extend(groups.iter_mut().filter_map(|(_, group)| group.pop_front()));
    }
    order.extend(last);
    order
}

/// Asks for each pod, some at once and in their order. Once the server as a whole does not answer, no more are asked for.
pub(super) async fn each<'a, F>(pods: &[&'a Target], ask: impl Fn(&'a Target) -> F) -> Tally
where
    F: Future<Output = Fate>,
{
    let down = Cell::new(None);
    let (ask, down) = (&ask, &down);
    let fates = stream::iter(pods.iter().copied()).map(|pod| async move {
        if let Some(fate) = down.take() {
            down.set(Some(Fate::clone(&fate)));
            return fate;
        }
        let fate = ask(pod).await;
        if matches!(fate, Fate::Later { server: true, .. }) {
            down.set(Some(fate.clone()));
        }
        fate
    });
    let mut fates = std::pin::pin!(fates.buffer_unordered(AT_ONCE));
    let mut tally = Tally::default();
    while let Some(fate) = fates.next().await {
        tally.add(fate);
    }
    tally
}

/// Path of the pod, or of its subresource.
pub(super) fn path(pod: &Target, subresource: &str) -> Result<String, NameError> {
    let namespace = request::path("/api/v1/namespaces", &pod.namespace)?;
    Ok(format!("{}{subresource}", request::path(&format!("{namespace}/pods"), &pod.name)?))
}

/// One request about a pod; a name that cannot be asked for is refused for good.
pub(super) async fn ask(
    scene: &Scene<'_>,
    path: Result<String, NameError>,
    make: impl FnOnce(&str) -> Result<request::Raw, RequestError>,
) -> Fate {
    match path {
        Ok(path) => Fate::of(send(scene, make(&path)).await),
        Err(error) => Fate::Refused(error.to_string()),
    }
}

/// Deletes pods, with their own grace or with `grace_seconds`. Each carries the reason before.
pub(super) async fn delete(scene: &Scene<'_>, grace_seconds: Option<u32>) -> Report {
    let sorted = sorted(scene, Touch::Delete);
    // A pod that is being deleted already needs no plain deletion.
    let plain = grace_seconds.is_none();
    let pods: Vec<_> = sorted.pods.iter().copied().filter(|pod| !(plain && pod.deletion.is_some())).collect();
    let reason = annotate::Reason::of(scene);
    let mut tally = each(&pods, |pod| async {
        match ready(scene, &reason, pod).await {
            Fate::Done => {}
            fate => return fate,
        }
        let deletion = Deletion { grace_seconds, ..Deletion::of(&pod.uid) };
        ask(scene, path(pod, ""), |path| request::delete(path, &deletion)).await
    })
    .await;
    tally.already = sorted.pods.len() - pods.len() + went(scene);
    tally.report(if plain { "deleted" } else { "deleted without grace" }, &sorted.rest())
}

/// Sets the phase of pods to Failed, so that Jobs and Deployments replace them and Jobs are not charged. Only of pods that are
/// being deleted or will be by the next step: the control plane takes the condition `DisruptionTarget` back otherwise.
pub(super) async fn fail(scene: &Scene<'_>) -> Report {
    let sorted = sorted(scene, Touch::Delete);
    let released = scene.policy.release != super::Release::Disabled;
    let follows = |pod: &Target| released || scene.policy.delete_pods || pod.deletion.is_some();
    let pods: Vec<_> = sorted.pods.iter().copied().filter(|pod| !pod.ended && follows(pod)).collect();
    let status = scene.incident.status.clone().unwrap_or_default();
    let reason = annotate::Reason::of(scene);
    let mut tally = each(&pods, |pod| async {
        match ready(scene, &reason, pod).await {
            Fate::Done => {}
            fate => return fate,
        }
        let body = failed(pod, &status, reason.text(), scene.now);
        ask(scene, path(pod, "/status"), |path| request::patch(path, FIELD_MANAGER, Patch::Strategic, &body)).await
    })
    .await;
    tally.already = sorted.pods.iter().filter(|pod| pod.ended).count() + went(scene);
    tally.report("failed", &sorted.rest())
}

/// The pod carries the reason, and the node is known to be dead still.
async fn ready(scene: &Scene<'_>, reason: &annotate::Reason, pod: &Target) -> Fate {
    if (scene.late)() {
        return Fate::Late;
    }
    match annotate::assure(scene, reason, pod).await {
        // The answer may have taken its time.
        Fate::Done if (scene.late)() => Fate::Late,
        fate => fate,
    }
}

/// Pods that lived when the node died, and are gone since.
fn went(scene: &Scene<'_>) -> usize {
    gone_since(scene.incident, scene.pods)
}

fn gone_since(incident: &KernelIncident, pods: &[Target]) -> usize {
    let before = incident.status.as_ref().and_then(|status| status.pod_count).unwrap_or_default();
    let name = incident.metadata.name.as_deref().unwrap_or_default();
    // Those that had ended before were not counted then.
    let still = pods.iter().filter(|pod| Left::of(pod, name) != Some(Left::Ended)).count();
    usize::try_from(before).unwrap_or_default().saturating_sub(still)
}

/// The condition's time is now and not the kernel's: it is taken back two minutes after it.
fn failed(pod: &Target, status: &KernelIncidentStatus, text: &str, now: Timestamp) -> serde_json::Value {
    let word = reason::word(status);
    json!({
        "metadata": {"uid": pod.uid},
        "status": {
            "phase": "Failed",
            "reason": word,
            "message": text,
            "conditions": [{
                "type": DISRUPTION_TARGET,
                "status": "True",
                "reason": word,
                "message": text,
                "lastTransitionTime": format!("{now:.0}"),
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::contract::incident::KernelIncidentSpec;

    fn pod(namespace: &str, owner: &str, name: &str) -> Target {
        Target {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            controller: Some(if owner == "agent" { "DaemonSet" } else { "ReplicaSet" }.to_owned()),
            ..Target::default()
        }
    }

    #[test]
    fn no_controller_waits_for_another_with_many_pods() {
        let mut pods: Vec<_> = (0..20).map(|number| pod("big", "web", &format!("web-{number}"))).collect();
        pods.insert(0, pod("system", "agent", "agent-x"));
        pods.extend([pod("big", "cart", "cart-0"), pod("small", "web", "web-a"), pod("big", "web", "web-suspect")]);
        let order: Vec<_> =
            in_turn(pods.iter().collect(), Some("uid-of-web-suspect")).iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(order[..5], ["web-suspect", "web-0", "cart-0", "web-a", "web-1"]);
        assert_eq!((order.len(), order[23]), (24, "agent-x"));
    }

    #[test]
    fn who_is_left_is_known_before_anything_is_asked() {
        let plain = pod("shop", "cart", "cart-0");
        assert_eq!(Left::of(&plain, "i"), None);
        let ended = Target { ended: true, ..plain.clone() };
        assert_eq!(Left::of(&ended, "i"), Some(Left::Ended));
        assert_eq!(Left::of(&Target { incident: Some("i".to_owned()), ..ended }, "i"), None, "we failed it");
        let of = |wish| Target { wish, ..plain.clone() };
        assert_eq!(Left::of(&of(Wish::OptedOut), "i"), Some(Left::OptedOut));
        assert_eq!(Left::of(&of(Wish::Unread), "i"), Some(Left::Unread));
        assert_eq!(Left::of(&Target { mirror: true, ..of(Wish::OptedOut) }, "i"), Some(Left::Mirror));
        assert_eq!(Left::of(&pod("system", "agent", "agent-x"), "i"), Some(Left::DaemonSet));
        let numbers = Left::ALL.map(|left| left as usize);
        assert_eq!(numbers, [0, 1, 2, 3, 4], "they count by their place");
    }

    #[test]
    fn pods_that_ended_before_the_node_did_hide_none_that_went_since() {
        let spec = KernelIncidentSpec {
            node: "a".to_owned(),
            node_uid: None,
            boot_id: None,
            time: MicroTime(Timestamp::UNIX_EPOCH),
        };
        let status = KernelIncidentStatus { pod_count: Some(3), ..KernelIncidentStatus::default() };
        let incident = KernelIncident { status: Some(status), ..KernelIncident::new("i", spec) };
        let living = pod("shop", "cart", "cart-0");
        let ended = Target { ended: true, ..pod("shop", "job", "job-0") };
        let failed = Target { incident: Some("i".to_owned()), ..ended.clone() };
        assert_eq!(gone_since(&incident, &[living, ended, failed]), 1);
    }

    #[test]
    fn a_pod_with_a_name_that_leads_elsewhere_is_never_asked_for() {
        assert!(path(&pod("shop", "cart", "../nodes/a"), "").is_err());
        assert_eq!(
            path(&pod("shop", "cart", "cart-0"), "/status").expect("a path"),
            "/api/v1/namespaces/shop/pods/cart-0/status"
        );
    }
}
