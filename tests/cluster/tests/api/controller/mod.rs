//! What the controller's own token can do, with the rights and policies that the chart makes: that which its steps need, and
//! nothing else. The manifests are the chart's with a policy that wants all steps; the requests are real.

mod deletions;
mod rights;
mod writes;

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{
    Namespace, NodeObject, Rig,
    controller::{INCIDENT_ANNOTATION as INCIDENT, REASON_ANNOTATION as REASON},
    is_refused,
};
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod},
        events::v1::Event,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

/// The rendering with all steps has this in its name.
const ALL_STEPS: &str = "policy.deleteNode=true";

/// The one with the default policy: dry run.
const DRY_RUN: &str = "controller.enabled=true.yaml";

/// How long rights and policies may take from being written to being in force.
const IN_FORCE: Duration = Duration::from_secs(60);

/// The controller's rights and policies under names of the test's own, a node that is Ready, a pod on it, and a client with
/// the controller's token.
struct Stage {
    rig: Rig,
    namespace: Namespace,
    manifests: String,
    node: String,
    pods: Api<Pod>,
    nodes: Api<Node>,
    events: Api<Event>,
    client: Client,
    _object: NodeObject,
}

impl Stage {
    async fn set(purpose: &str) -> Result<Self> {
        Self::set_with(purpose, ALL_STEPS).await
    }

    /// With the rendering that has `name` in its name.
    async fn set_with(purpose: &str, name: &str) -> Result<Self> {
        let rig = Rig::connect().await?;
        let namespace = rig.namespace(purpose).await?;
        let manifests = manifests(&rig, name, &namespace.name)?;
        rig.apply(&manifests).await?;
        let node = format!("{}-node", namespace.name);
        let metadata = json!({ "labels": { "before": "yes" }, "annotations": { "a": "b" } });
        let object = rig.node_object(&node, metadata).await?;
        let token = rig.token(&namespace.name, &format!("{}-controller", namespace.name), None).await?;
        let client = rig.client_with_token(&token).await?;
        let (pods, nodes) = (Api::namespaced(client.clone(), &namespace.name), Api::all(client.clone()));
        let events = Api::namespaced(client.clone(), "default");
        let stage = Self { rig, namespace, manifests, node, pods, nodes, events, client, _object: object };
        stage.ready("True").await?;
        Ok(stage)
    }

    /// Waits until the policies are in force.
    async fn guarded(self) -> Result<Self> {
        let pod = self.pod("probe").await?;
        let of_node = DeleteParams { dry_run: true, ..by_uid(&self.node_uid().await?) };
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        let label = Patch::Merge(json!({ "metadata": { "labels": { "probe": "yes" } } }));
        let foreign = self.event("probe", &json!({ "reportingController": "detector.dev/agent" }))?;
        let mut again = tokio::time::interval(Duration::from_millis(50));
        let asking = async {
            loop {
                again.tick().await;
                let by_uid = DeleteParams { dry_run: true, ..by_uid(&pod.uid().unwrap_or_default()) };
                let deleted = self.pods.delete("probe", &by_uid).await;
                let removed = self.nodes.delete(&self.node, &of_node).await;
                let changed = self.nodes.patch(&self.node, &dry, &label).await;
                let written = self.pods.patch_status("probe", &dry, &label).await;
                let params = PostParams { dry_run: true, ..PostParams::default() };
                let told = self.events.create(&params, &foreign).await;
                if is_refused(&deleted, "may delete no pod")
                    && is_refused(&removed, "may delete no Node")
                    && is_refused(&changed, "may not change metadata")
                    && is_refused(&written, "may not change metadata")
                    && is_refused(&told, "as detector.dev/controller only")
                {
                    return;
                }
            }
        };
        tokio::time::timeout(IN_FORCE, asking).await.context("wait until the policies refuse")?;
        // No kubelet renews it: the control plane would give the node up meanwhile.
        self.ready("True").await?;
        Ok(self)
    }

    /// An event about the node as the controller tells it, but for this.
    fn event(&self, name: &str, change: &Value) -> Result<Event> {
        let mut event = json!({
            "metadata": { "name": format!("{}-{name}", self.node), "namespace": "default" },
            "eventTime": "2026-01-02T03:04:05.000006Z", "reportingController": "detector.dev/controller",
            "reportingInstance": "replica", "type": "Warning", "reason": "NodeCordoned", "action": "Cordon", "note": "a test",
            "regarding": { "apiVersion": "v1", "kind": "Node", "name": self.node, "uid": self.node } });
        for (key, value) in change.as_object().into_iter().flatten() {
            event[key] = value.clone();
        }
        serde_json::from_value(event).context("make an event")
    }

    /// A pod on the node, as an administrator makes it.
    async fn pod(&self, name: &str) -> Result<Pod> {
        let spec = json!({ "nodeName": self.node, "containers": [{ "name": "c", "image": "none" }] });
        self.namespace.pod(name, spec).await
    }

    /// Sets Ready of the node, as its kubelet or the control plane would. If it is not set again, the control plane sets
    /// Unknown after its grace period.
    async fn ready(&self, status: &str) -> Result<()> {
        let admin: Api<Node> = Api::all(self.rig.client.clone());
        let conditions = json!([
            { "type": "Ready", "status": status, "reason": "Test", "lastHeartbeatTime": Timestamp::now() },
            { "type": "TaskHung", "status": "True", "reason": "Test" }]);
        let patch = Patch::Strategic(json!({ "status": { "conditions": conditions } }));
        admin.patch_status(&self.node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn node_uid(&self) -> Result<String> {
        self.nodes.get(&self.node).await?.uid().context("the node has no uid")
    }

    async fn clear(self) -> Result<()> {
        self.rig.delete(&self.manifests).await.map(drop)
    }
}

/// The controller's part of a rendering, without what runs and without the definition, which others use at the same time.
fn manifests(rig: &Rig, name: &str, namespace: &str) -> Result<String> {
    let mut entries = fs::read_dir(&rig.facts.renderings).context("list the renderings")?.flatten();
    let path = entries.find(|entry| entry.file_name().to_string_lossy().contains(name));
    let path = path.with_context(|| format!("find the rendering with {name}"))?.path();
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let wanted = |document: &&str| {
        document.contains("name: detector-controller")
            && !["Deployment", "CustomResourceDefinition"]
                .iter()
                .any(|kind| document.contains(&format!("kind: {kind}\n")))
    };
    let own: String = text.split("---\n").filter(wanted).map(|document| format!("---\n{document}\n")).collect();
    // The leader's Lease has its name in all clusters.
    let own = own
        .replace("resourceNames: [detector-controller]", "resourceNames: [LEASE]")
        .replace("detector-controller", &format!("{namespace}-controller"))
        .replace("resourceNames: [LEASE]", "resourceNames: [detector-controller]")
        .replace("namespace: detector\n", &format!("namespace: {namespace}\n"))
        .replace("system:serviceaccount:detector:", &format!("system:serviceaccount:{namespace}:"));
    ensure!(own.contains(&format!("system:serviceaccount:{namespace}:{namespace}-controller")), "{own}");
    Ok(own)
}

/// A deletion as the controller words it.
fn by_uid(uid: &str) -> DeleteParams {
    let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    DeleteParams { preconditions, ..DeleteParams::default() }
}

/// Reason and incident, as they stand on whatever may be ended.
fn reason() -> Value {
    json!({ REASON: "kernel panic on a; incident i", INCIDENT: "i" })
}
