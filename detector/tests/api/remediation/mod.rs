//! The steps of the controller: exact requests, and what stands afterwards, wherever it was cut off.

mod brake;
mod cut;
mod events;
mod steps;

use detector::{
    config::controller::ControllerConfig,
    contract::incident::{
        Cause, Confidence, EvidenceEntry, EvidenceKind, KernelIncident, KernelIncidentSpec, KernelIncidentStatus,
        Origin, StepKind, Suspect,
    },
    controller::{
        incident::NodeFacts,
        remediation::{
            Policy, Release,
            pods::{Target, Wish},
            take::{Report, Scene, take},
        },
    },
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};

use super::fake_api::FakeApi;

const INCIDENT: &str = "node-a-0f3c7a5211aa";
const NODE: &str = "/api/v1/nodes/node-a";
const REASON: &str = "kernel panic on node-a at 2026-11-22T12:00:00Z: Fatal exception; suspect shop/cart-0/php (high); \
                      incident node-a-0f3c7a5211aa";
const NOW: &str = "2026-11-22T12:01:00Z";

fn pod_path(pod: &Target) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name)
}

/// A node that died, its pods, and the server that knows them.
struct Rig {
    api: FakeApi,
    incident: KernelIncident,
    node: NodeFacts,
    pods: Vec<Target>,
    policy: Policy,
    late: bool,
}

impl Rig {
    /// A Deployment's, a StatefulSet's and a Job's pod; and one each that is left alone.
    fn new() -> Self {
        let kinds = [
            ("web-1", "ReplicaSet"),
            ("cart-0", "StatefulSet"),
            ("import-x", "Job"),
            ("agent-x", "DaemonSet"),
            ("static-node-a", "Node"),
            ("quiet-1", "ReplicaSet"),
            ("done-x", "Job"),
        ];
        let pods: Vec<_> = kinds.iter().map(|(name, kind)| target(name, kind)).collect();
        let api = FakeApi::new();
        for pod in &pods {
            let phase = if pod.ended { "Succeeded" } else { "Running" };
            let metadata =
                json!({"name": pod.name, "namespace": pod.namespace, "uid": pod.uid, "annotations": {"a": "b"}});
            let ready = json!({"type": "Ready", "status": "True"});
            api.put(&pod_path(pod), json!({"metadata": metadata, "status": {"phase": phase, "conditions": [ready]}}));
        }
        let node = NodeFacts { name: "node-a".to_owned(), uid: "uid-of-node".to_owned(), ..NodeFacts::default() };
        let rig = Self { api, incident: incident(), node, pods, policy: policy(), late: false };
        rig.put_node(|_| {});
        rig
    }

    /// Puts the Node there, as `change` has it.
    fn put_node(&self, change: impl FnOnce(&mut Value)) {
        let mut node = json!({
            "metadata": {"name": "node-a", "uid": "uid-of-node", "resourceVersion": "7", "annotations": {"a": "b"}},
            "spec": {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
        });
        change(&mut node);
        self.api.put(NODE, node);
    }

    fn node(&self) -> Value {
        self.api.objects(NODE)[0].clone()
    }

    /// Pods as a list read now tells them.
    fn list(&mut self) {
        let api = &self.api;
        self.pods.retain_mut(|pod| {
            let Some(object) = api.objects(&pod_path(pod)).first().cloned() else { return false };
            pod.incident = object["metadata"]["annotations"]["detector.dev/incident"].as_str().map(str::to_owned);
            pod.ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            pod.deletion = object["metadata"]["deletionTimestamp"].as_str().and_then(|time| time.parse().ok());
            true
        });
    }

    async fn take(&self, kind: StepKind) -> Report {
        self.take_with(&self.api.client(), kind).await
    }

    async fn take_with(&self, client: &kube::Client, kind: StepKind) -> Report {
        let (incident, pods, policy) = (&self.incident, self.pods.as_slice(), &self.policy);
        let now = NOW.parse().expect("a time");
        let late = || self.late;
        take(kind, &Scene { client, incident, node: Some(&self.node), pods, policy, now, late: &late }).await
    }

    async fn done(&self, kind: StepKind) -> String {
        match self.take(kind).await {
            Report::Done(message) => message,
            other => panic!("{kind:?}: {other:?}"),
        }
    }

    /// Method, path and body of each request so far, reads left out.
    fn written(&self) -> Vec<(String, String, Value)> {
        let asked = self.api.asked().into_iter().filter(|asked| asked.method != http::Method::GET);
        asked.map(|asked| (asked.method.to_string(), asked.path, asked.body)).collect()
    }

    fn told(&mut self, evidence: &[EvidenceKind]) {
        let status = self.incident.status.get_or_insert_default();
        status.evidence.extend(evidence.iter().map(|kind| entry(*kind, "2026-11-22T12:05:00Z")));
    }
}

fn target(name: &str, kind: &str) -> Target {
    Target {
        namespace: if kind == "DaemonSet" { "system" } else { "shop" }.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        controller: Some(kind.to_owned()),
        mirror: kind == "Node",
        ended: name == "done-x",
        wish: if name == "quiet-1" { Wish::OptedOut } else { Wish::Nothing },
        ..Target::default()
    }
}

fn policy() -> Policy {
    Policy {
        act: true,
        delete_pods: true,
        fail_pods: true,
        release: Release::OutOfService,
        pod_reason_keys: vec!["pod.house.example/reason".to_owned()],
        node_reason_keys: vec!["node.house.example/reason".to_owned()],
        ..ControllerConfig::default().policy
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn entry(kind: EvidenceKind, at: &str) -> EvidenceEntry {
    EvidenceEntry {
        id: format!("r/{kind:?}"),
        kind,
        origin: Origin::Netconsole,
        confidence: Confidence::Medium,
        time: MicroTime(time(at)),
        message: if kind == EvidenceKind::Panic { "Fatal exception" } else { "" }.to_owned(),
        cause: None,
        boot_id: None,
        suspect: None,
    }
}

fn incident() -> KernelIncident {
    let spec = KernelIncidentSpec {
        node: "node-a".to_owned(),
        node_uid: Some("uid-of-node".to_owned()),
        boot_id: None,
        time: MicroTime(time("2026-11-22T12:00:00Z")),
    };
    let suspect = Suspect {
        name: "shop/cart-0/php".to_owned(),
        confidence: Confidence::High,
        pod_uid: Some("uid-of-cart-0".to_owned()),
        ..Suspect::default()
    };
    let status = KernelIncidentStatus {
        cause: Some(Cause::Oops),
        suspect: Some(suspect),
        evidence: vec![entry(EvidenceKind::Panic, "2026-11-22T12:00:00Z")],
        ..KernelIncidentStatus::default()
    };
    let mut incident = KernelIncident { status: Some(status), ..KernelIncident::new(INCIDENT, spec) };
    incident.metadata.uid = Some("uid-of-incident".to_owned());
    incident
}
