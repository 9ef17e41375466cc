//! Events about steps and holds: what is told, on which objects, under names that are the same whoever tells it.

pub mod deliver;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    contract::{
        event::{
            INSTANCE_BYTES, NOTE_BYTES,
            controller::{ControllerReason, pods_are_told},
        },
        incident::{HoldEntry, KernelIncident, StepEntry, StepKind},
        remediation::REPORTING_CONTROLLER,
    },
    controller::remediation::pods::{self, Target},
    digest::Digest,
    text,
};

/// Pods that are told of one step or hold.
pub const MAX_POD_EVENTS: usize = 256;

/// Namespace of events about what has none: the API server takes no other but `kube-system`, and `kubectl describe` of a
/// cluster-scoped object looks here.
const CLUSTER_NAMESPACE: &str = "default";

/// Longest name of an object in bytes (a DNS subdomain, RFC 1123), less the digest and what is between.
const SUBJECT_BYTES: usize = 253 - 17;

/// An event to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `metadata.namespace`.
    pub namespace: String,
    /// The object.
    pub body: Value,
    /// It is about a pod: those about incident and Node are written first.
    pub about_pod: bool,
}

/// What events are made of, besides the step or hold itself.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The incident.
    pub incident: &'a KernelIncident,
    /// `metadata.uid` of the Node as it is now; `None`: there is none, and events on it are found by its name.
    pub node_uid: Option<&'a str>,
    /// The node's pods.
    pub pods: &'a [Target],
    /// Name of this replica.
    pub instance: &'a str,
}

/// Events about a step; none before it ended.
#[must_use]
pub fn of_step(subject: &Subject<'_>, entry: &StepEntry) -> Vec<Event> {
    let Some(reason) = ControllerReason::of_step(entry.kind, entry.state) else { return Vec::new() };
    let at = entry.ended.as_ref().unwrap_or(&entry.time).0;
    let word = format!("{:?}", entry.state);
    subject.tell(&Telling { reason, step: entry.kind, word: &word, note: &entry.message, at }, true)
}

/// Events about a hold, one for each reason to wait.
#[must_use]
pub fn of_hold(subject: &Subject<'_>, entry: &HoldEntry) -> Vec<Event> {
    let word = format!("{:?}", entry.reason);
    let note = format!("{word}: {}", entry.message);
    let (reason, at) = (ControllerReason::StepHeld, entry.since.0);
    subject.tell(&Telling { reason, step: entry.step, word: &word, note: &note, at }, pods_are_told(entry.reason))
}

/// What is told.
struct Telling<'a> {
    reason: ControllerReason,
    step: StepKind,
    /// What tells it from other happenings of this step.
    word: &'a str,
    note: &'a str,
    at: Timestamp,
}

impl Subject<'_> {
    fn tell(&self, telling: &Telling<'_>, pods: bool) -> Vec<Event> {
        let node = &self.incident.spec.node;
        // `kubectl describe node` asks for the uid and for the name in place of it.
        let node_uid = self.node_uid.unwrap_or(node);
        let node = json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid});
        let mut events = vec![
            self.event(telling, CLUSTER_NAMESPACE, &self.reference(), false),
            self.event(telling, CLUSTER_NAMESPACE, &node, false),
        ];
        let touched = if pods { pods::touched(self.pods, self.incident, telling.step) } else { Vec::new() };
        events.extend(touched.into_iter().take(MAX_POD_EVENTS).map(|pod| {
            let Target { namespace, name, uid, .. } = pod;
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid});
            self.event(telling, namespace, &pod, true)
        }));
        events
    }

    fn reference(&self) -> Value {
        let metadata = &self.incident.metadata;
        json!({
            "apiVersion": "detector.dev/v1alpha1",
            "kind": "KernelIncident",
            "name": metadata.name.as_deref().unwrap_or_default(),
            "uid": metadata.uid.as_deref().unwrap_or_default(),
        })
    }

    fn event(&self, telling: &Telling<'_>, namespace: &str, regarding: &Value, about_pod: bool) -> Event {
        let step = format!("{:?}", telling.step);
        let mut note = text::cut(&text::harmless(telling.note), NOTE_BYTES);
        if note.is_empty() {
            note.clone_from(&step);
        }
        let mut body = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": self.name(telling, regarding), "namespace": namespace},
            "eventTime": format!("{:.6}", telling.at),
            "type": telling.reason.event_type(),
            "reason": telling.reason.name(),
            "action": step,
            "note": note,
            "reportingController": REPORTING_CONTROLLER,
            "reportingInstance": text::start(self.instance, INSTANCE_BYTES),
            "regarding": regarding,
        });
        if body["regarding"]["kind"] != "KernelIncident" {
            body["related"] = self.reference();
        }
        Event { namespace: namespace.to_owned(), body, about_pod }
    }

    /// Not made of the replica or of the time at which it tells: another leader tells the same.
    fn name(&self, telling: &Telling<'_>, regarding: &Value) -> String {
        let metadata = &self.incident.metadata;
        let incident = metadata.uid.as_deref().or(metadata.name.as_deref()).unwrap_or_default();
        let subject = ["kind", "namespace", "name", "uid"].map(|key| regarding[key].as_str().unwrap_or_default());
        let step = format!("{:?}", telling.step);
        let parts = [incident, &step, telling.word].into_iter().chain(subject);
        // A separator that no part ends with keeps "ab" + "c" from being "a" + "bc".
        let digest = parts.fold(Digest::EMPTY, |digest, part| digest.with(part.as_bytes()).with(&[0xff]));
        let name = regarding["name"].as_str().unwrap_or_default();
        let name = text::start(name, SUBJECT_BYTES).trim_end_matches(['-', '.']);
        format!("{name}.{:016x}", digest.value())
    }
}

#[cfg(test)]
mod tests;
