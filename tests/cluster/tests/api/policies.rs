//! What a stolen token of one agent can do: write our conditions of its own node, and events in its node's name. The
//! manifests are those of `deploy/detector.yaml`, the requests are real, the tokens are what a kubelet would get.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{
    CONDITIONS, CONTROLLER, FIELD_MANAGER, Namespace, NodeObject, Rig, Verdict, is_refused, wait,
};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingAdmissionPolicy,
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Node, Pod, Secret},
    events::v1::Event,
};
use kube::{
    Api, Client, Error, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// The file that users apply.
const MANIFESTS: &str = "deploy/detector.yaml";

/// How long a policy may take from being written to being in force.
const IN_FORCE: Duration = Duration::from_secs(60);

/// The agent's manifests in a namespace and under names of the test's own, two nodes, and the tokens of pods there.
struct Stage {
    rig: Rig,
    namespace: Namespace,
    manifests: String,
    /// Name of the service account, and of most objects.
    agent: String,
    own: String,
    other: String,
    _nodes: [NodeObject; 2],
}

impl Stage {
    async fn set(purpose: &str) -> Result<Self> {
        Self::set_with(purpose, Ok).await
    }

    /// The same with manifests that `change` changes.
    async fn set_with(purpose: &str, change: impl FnOnce(String) -> Result<String>) -> Result<Self> {
        let rig = Rig::connect().await?;
        let namespace = rig.namespace(purpose).await?;
        let agent = format!("{}-agent", namespace.name);
        let manifests = change(renamed(&namespace.name)?)?;
        rig.apply(&manifests).await?;
        let (own, other) = (format!("{}-own", namespace.name), format!("{}-other", namespace.name));
        let metadata = json!({ "labels": { "before": "yes" } });
        let nodes = [rig.node_object(&own, metadata.clone()).await?, rig.node_object(&other, metadata).await?];
        let stage = Self { rig, namespace, manifests, agent, own, other, _nodes: nodes };
        stage.policies_in_force().await?;
        Ok(stage)
    }

    /// A client with the token of a pod on `node`, or with a token that is bound to nothing.
    async fn client(&self, node: Option<&str>) -> Result<Client> {
        let pod = match node {
            Some(node) => Some(self.pod(node).await?),
            None => None,
        };
        self.rig.client_with_token(&self.rig.token(&self.namespace.name, &self.agent, pod.as_ref()).await?).await
    }

    async fn pod(&self, node: &str) -> Result<Pod> {
        let name = format!("on-{node}");
        if let Some(pod) = self.namespace.api::<Pod>().get_opt(&name).await? {
            return Ok(pod);
        }
        let spec = json!({
            "nodeName": node, "serviceAccountName": self.agent, "containers": [{ "name": "c", "image": "none" }] });
        self.namespace.pod(&name, spec).await
    }

    /// Waits until both policies refuse: a binding is in force a moment after it is written.
    async fn policies_in_force(&self) -> Result<()> {
        let client = self.client(Some(&self.own)).await?;
        let nodes: Api<Node> = Api::all(client.clone());
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        let mut again = tokio::time::interval(Duration::from_millis(50));
        let asking = async {
            loop {
                again.tick().await;
                let node = nodes.patch_status(&self.other, &dry, &Patch::Strategic(json!({}))).await;
                let event = post(&client, "default", &event_of("probe", &self.other, &self.other), true).await;
                if is_refused(&node, "its own node only") && is_refused(&event, "in the name of its own node only") {
                    return;
                }
            }
        };
        tokio::time::timeout(IN_FORCE, asking).await.context("wait until the policies refuse")
    }

    async fn clear(self) -> Result<()> {
        self.rig.delete(&self.manifests).await.map(drop)
    }
}

/// The manifests with names of `namespace`, for nodes that do not exist: what the test applies must not disturb an agent
/// that runs on the same cluster.
fn renamed(namespace: &str) -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("find the root of the source tree")?;
    let text = fs::read_to_string(root.join(MANIFESTS)).with_context(|| format!("read {MANIFESTS}"))?;
    let text = text
        .replace("detector-agent", &format!("{namespace}-agent"))
        .replace("namespace: detector\n", &format!("namespace: {namespace}\n"))
        .replace("  name: detector\n", &format!("  name: {namespace}\n"))
        .replace("system:serviceaccount:detector:", &format!("system:serviceaccount:{namespace}:"))
        .replace("kubernetes.io/os: linux", "kubernetes.io/os: none");
    ensure!(
        text.contains(&format!("system:serviceaccount:{namespace}:{namespace}-agent")),
        "{MANIFESTS} names no agent"
    );
    Ok(text)
}

fn condition(kind: &str) -> Value {
    json!({ "status": { "conditions": [{
        "type": kind, "status": "False", "reason": "Test", "message": "a test of the policies" }] } })
}

/// What the agent applies to its node: all its conditions.
fn applied(kinds: &[&str]) -> Value {
    let conditions: Vec<_> = kinds.iter().map(|kind| condition(kind)["status"]["conditions"][0].clone()).collect();
    json!({ "apiVersion": "v1", "kind": "Node", "status": { "conditions": conditions } })
}

fn event_of(name: &str, author: &str, node: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "default" },
        "eventTime": "2026-01-02T03:04:05.000006Z", "reportingController": CONTROLLER,
        "reportingInstance": author, "type": "Warning", "reason": "TaskHung", "action": "Observed", "note": "a test",
        "regarding": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": node } })
}

/// Whether a condition of this type stands, in whatever form.
fn has(node: &Node, kind: &str) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == kind)
}

async fn post(client: &Client, namespace: &str, event: &Value, dry_run: bool) -> Result<Event, Error> {
    let event: Event = serde_json::from_value(event.clone()).map_err(Error::SerdeError)?;
    Api::namespaced(client.clone(), namespace).create(&PostParams { dry_run, field_manager: None }, &event).await
}

#[tokio::test]
async fn the_manifests_apply_again_without_a_change_and_the_policies_without_a_warning() -> Result<()> {
    let stage = Stage::set("apply").await?;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(stage.rig.client.clone());
    let daemons: Api<DaemonSet> = stage.namespace.api();
    let version = daemons.get(&stage.agent).await?.metadata.generation;
    stage.rig.apply(&stage.manifests).await?;
    assert_eq!(daemons.get(&stage.agent).await?.metadata.generation, version);
    for name in ["node-status", "events"] {
        let name = format!("{}-{name}", stage.agent);
        let checked = wait::until(&policies, &name, "its types are checked", IN_FORCE, |policy| {
            policy.and_then(|policy| policy.status.as_ref()).is_some_and(|status| status.type_checking.is_some())
        })
        .await?;
        let checking = checked.and_then(|policy| policy.status).and_then(|status| status.type_checking);
        let warnings = checking.and_then(|checking| checking.expression_warnings).unwrap_or_default();
        ensure!(warnings.is_empty(), "{name}: {warnings:?}");
    }
    stage.clear().await
}

#[tokio::test]
async fn a_token_writes_our_conditions_on_its_own_node_and_nothing_else() -> Result<()> {
    let stage = Stage::set("conditions").await?;
    // What is there already must stay as it is, too.
    let before = json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }], "capacity": { "cpu": "2" },
        "conditions": [{ "type": "Ready", "status": "True", "reason": "Test" }] } });
    let admin: Api<Node> = Api::all(stage.rig.client.clone());
    admin.patch_status(&stage.own, &PatchParams::default(), &Patch::Strategic(before)).await?;

    let nodes: Api<Node> = Api::all(stage.client(Some(&stage.own)).await?);
    let (plain, dry) = (PatchParams::default(), PatchParams { dry_run: true, ..PatchParams::default() });
    let mut verdict = Verdict::default();
    let mut applied = condition("TaskHung");
    applied["apiVersion"] = json!("v1");
    applied["kind"] = json!("Node");
    let ssa = PatchParams::apply(FIELD_MANAGER).force();
    let outcome = nodes.patch_status(&stage.own, &ssa, &Patch::Apply(applied.clone())).await;
    verdict.expect("apply", &outcome, None);
    assert_eq!(outcome.iter().filter(|node| has(node, "TaskHung")).count(), 1, "{outcome:?}");
    applied["status"] = json!({});
    let outcome = nodes.patch_status(&stage.own, &ssa, &Patch::Apply(applied)).await;
    verdict.expect("apply nothing", &outcome, None);
    assert_eq!(outcome.iter().filter(|node| has(node, "TaskHung")).count(), 0, "{outcome:?}");
    for kind in CONDITIONS {
        let outcome = nodes.patch_status(&stage.own, &plain, &Patch::Strategic(condition(kind))).await;
        verdict.expect(kind, &outcome, None);
    }
    let read = nodes.patch_status(&stage.own, &dry, &Patch::Strategic(json!({}))).await;
    verdict.expect("empty dry run, to read the node", &read, None);

    let outcome = nodes.patch_status(&stage.other, &plain, &Patch::Strategic(condition("TaskHung"))).await;
    verdict.expect("condition of another node", &outcome, Some(403));
    for (what, patch) in foreign_changes() {
        let outcome = nodes.patch_status(&stage.own, &plain, &Patch::Merge(patch)).await;
        verdict.expect(what, &outcome, Some(403));
    }
    verdict.holds()?;
    let node = admin.get(&stage.own).await?;
    assert_eq!(node.labels().get("before").map(String::as_str), Some("yes"));
    stage.clear().await
}

#[tokio::test]
async fn a_condition_that_a_version_has_dropped_goes_with_its_first_write() -> Result<()> {
    // As the chart renders it once `Retired` stands in `RETIRED` of `contract/problem.rs`.
    let now = "['KernelDeadlock', 'TaskHung', 'PreviousBootCrash']";
    let then = &now.replace(']', ", 'Retired']");
    let stage = Stage::set_with("retired", |manifests| {
        ensure!(manifests.contains(now), "{MANIFESTS} has no list {now}");
        Ok(manifests.replace(now, then))
    })
    .await?;
    let nodes: Api<Node> = Api::all(stage.client(Some(&stage.own)).await?);
    let ssa = PatchParams::apply(FIELD_MANAGER).force();
    let before = ["KernelDeadlock", "TaskHung", "Retired"];
    for kinds in [&before[..], &before[..2]] {
        let node = nodes.patch_status(&stage.own, &ssa, &Patch::Apply(applied(kinds))).await?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        assert_eq!(conditions.iter().map(|condition| condition.type_.as_str()).collect::<Vec<_>>(), kinds);
    }
    stage.clear().await
}

#[tokio::test]
async fn a_condition_that_the_policy_does_not_know_blocks_the_write_of_a_version_that_drops_it() -> Result<()> {
    let stage = Stage::set("unknown").await?;
    let ssa = PatchParams::apply(FIELD_MANAGER).force();
    // Written under the policies of a newer version.
    let admin: Api<Node> = Api::all(stage.rig.client.clone());
    admin.patch_status(&stage.own, &ssa, &Patch::Apply(applied(&["TaskHung", "Newer"]))).await?;
    let nodes: Api<Node> = Api::all(stage.client(Some(&stage.own)).await?);
    let outcome = nodes.patch_status(&stage.own, &ssa, &Patch::Apply(applied(&["TaskHung"]))).await;
    let mut verdict = Verdict::default();
    verdict.expect("newer type dropped", &outcome, Some(403));
    verdict.holds()?;
    stage.clear().await
}

/// Changes of a node that are no business of an agent, as JSON merge patches.
fn foreign_changes() -> Vec<(&'static str, Value)> {
    let of_conditions = |kind: &str| condition(kind);
    vec![
        // A merge patch replaces the list: `Ready` would go.
        ("all conditions but ours dropped", of_conditions("TaskHung")),
        ("Ready set", of_conditions("Ready")),
        ("foreign condition", of_conditions("ReadonlyFilesystem")),
        ("conditions removed", json!({ "status": { "conditions": null } })),
        ("addresses", json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.66" }] } })),
        ("addresses removed", json!({ "status": { "addresses": null } })),
        ("capacity", json!({ "status": { "capacity": { "cpu": "64" } } })),
        ("allocatable", json!({ "status": { "allocatable": { "cpu": "64" } } })),
        ("phase", json!({ "status": { "phase": "Running" } })),
        ("daemon endpoints", json!({ "status": { "daemonEndpoints": { "kubeletEndpoint": { "Port": 1234 } } } })),
        ("node info", json!({ "status": { "nodeInfo": { "kernelVersion": "1.0" } } })),
        ("images", json!({ "status": { "images": [{ "names": ["a"], "sizeBytes": 1 }] } })),
        ("volumes in use", json!({ "status": { "volumesInUse": ["a"] } })),
        ("volumes attached", json!({ "status": { "volumesAttached": [{ "name": "a", "devicePath": "b" }] } })),
        ("runtime handlers", json!({ "status": { "runtimeHandlers": [{ "name": "a" }] } })),
        ("features", json!({ "status": { "features": { "supplementalGroupsPolicy": true } } })),
        ("label", json!({ "metadata": { "labels": { "a": "b" } } })),
        ("label removed", json!({ "metadata": { "labels": null } })),
        ("annotation", json!({ "metadata": { "annotations": { "a": "b" } } })),
        ("finalizer", json!({ "metadata": { "finalizers": ["example.org/stay"] } })),
        (
            "owner",
            json!({ "metadata": { "ownerReferences": [
                { "apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "b" }] } }),
        ),
    ]
}

#[tokio::test]
async fn a_token_writes_events_in_the_name_of_its_node_only() -> Result<()> {
    let stage = Stage::set("events").await?;
    let (own, other) = (stage.own.clone(), stage.other.clone());
    let client = stage.client(Some(&own)).await?;
    let theirs = format!("{other}-theirs");
    post(&stage.client(Some(&other)).await?, "default", &event_of(&theirs, &other, &other), false).await?;

    let mut verdict = Verdict::default();
    let name = format!("{own}-mine");
    verdict.expect("own node", &post(&client, "default", &event_of(&name, &own, &own), false).await, None);
    let mut of_pod = event_of(&format!("{own}-pod"), &own, &own);
    of_pod["metadata"]["namespace"] = json!(stage.namespace.name);
    of_pod["regarding"] = json!({ "apiVersion": "v1", "kind": "Pod", "namespace": stage.namespace.name, "name": "p" });
    verdict.expect("pod", &post(&client, &stage.namespace.name, &of_pod, false).await, None);
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    let series = json!({ "series": { "count": 2, "lastObservedTime": "2026-01-02T03:04:06.000006Z" } });
    let params = PatchParams::default();
    verdict.expect("own series", &events.patch(&name, &params, &Patch::Merge(&series)).await, None);

    let refused = [("other node", event_of("a", &own, &other)), ("wrong reporter", event_of("b", &other, &own))];
    for (what, event) in refused {
        verdict.expect(what, &post(&client, "default", &event, false).await, Some(403));
    }
    // What breaks the rules of events is refused before any policy is asked.
    verdict.expect("no reporter", &post(&client, "default", &event_of("c", "", &own), false).await, Some(422));
    for (what, key, value) in [
        ("finalizer", "finalizers", json!(["example.org/stay"])),
        ("owner", "ownerReferences", json!([{ "apiVersion": "v1", "kind": "Node", "name": own, "uid": "a" }])),
    ] {
        let mut event = event_of("g", &own, &own);
        event["metadata"][key] = value;
        verdict.expect(what, &post(&client, "default", &event, false).await, Some(403));
    }
    let mut of_account = event_of("d", &own, &own);
    of_account["regarding"] = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "name": "default" });
    verdict.expect("neither pod nor node", &post(&client, "default", &of_account, false).await, Some(403));
    let mut of_nothing = event_of("e", &own, &own);
    of_nothing["regarding"] = Value::Null;
    verdict.expect("about nothing", &post(&client, "default", &of_nothing, false).await, Some(403));
    for (what, key, value) in [
        ("in another controller's name", "reportingController", json!("kubelet")),
        ("for a reason that is not ours", "reason", json!("Rebooted")),
        // One of another namespace is no valid event; one of no namespace is, in this one.
        ("about a pod elsewhere", "regarding", json!({ "apiVersion": "v1", "kind": "Pod", "name": "p" })),
    ] {
        let mut event = event_of(&key.to_lowercase(), &own, &own);
        event[key] = value;
        verdict.expect(what, &post(&client, "default", &event, false).await, Some(403));
    }
    verdict.expect("their series", &events.patch(&theirs, &params, &Patch::Merge(&series)).await, Some(403));
    let steal = json!({ "reportingInstance": own });
    verdict.expect("their event taken over", &events.patch(&theirs, &params, &Patch::Merge(steal)).await, Some(422));
    verdict.expect("deleted", &events.delete(&name, &DeleteParams::default()).await, Some(403));
    verdict.expect("listed", &events.list(&ListParams::default()).await, Some(403));
    let core: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(client, "default");
    let old = serde_json::from_value(json!({
        "metadata": { "name": "f", "namespace": "default" }, "reason": "Test", "message": "a test", "type": "Normal",
        "involvedObject": { "kind": "Node", "name": own } }))?;
    verdict.expect("by the older API", &core.create(&PostParams::default(), &old).await, Some(403));
    verdict.holds()?;
    stage.clear().await
}

#[tokio::test]
async fn a_token_that_names_no_node_writes_nothing() -> Result<()> {
    let stage = Stage::set("unbound").await?;
    let client = stage.client(None).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let mut verdict = Verdict::default();
    let patch = Patch::Strategic(condition("TaskHung"));
    let params = PatchParams::default();
    verdict.expect("condition", &nodes.patch_status(&stage.own, &params, &patch).await, Some(403));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let read = nodes.patch_status(&stage.own, &dry, &Patch::Strategic(json!({}))).await;
    verdict.expect("reading by a dry run", &read, Some(403));
    verdict.expect("event", &post(&client, "default", &event_of("u", &stage.own, &stage.own), false).await, Some(403));
    verdict.holds()?;
    stage.clear().await
}

#[tokio::test]
async fn a_token_has_no_other_right() -> Result<()> {
    let stage = Stage::set("rights").await?;
    let pod = stage.pod(&stage.own).await?.name_any();
    let client = stage.client(Some(&stage.own)).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let pods: Api<Pod> = Api::namespaced(client.clone(), &stage.namespace.name);
    let (patch, params) = (Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } })), PatchParams::default());
    let mut verdict = Verdict::default();
    verdict.expect("get node", &nodes.get(&stage.own).await, Some(403));
    verdict.expect("patch node", &nodes.patch(&stage.own, &params, &patch).await, Some(403));
    verdict.expect("delete node", &nodes.delete(&stage.own, &DeleteParams::default()).await, Some(403));
    verdict.expect("list pods", &pods.list(&ListParams::default()).await, Some(403));
    verdict.expect("patch pod", &pods.patch(&pod, &params, &patch).await, Some(403));
    verdict.expect("patch pod status", &pods.patch_status(&pod, &params, &patch).await, Some(403));
    verdict.expect("delete pod", &pods.delete(&pod, &DeleteParams::default()).await, Some(403));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &stage.namespace.name);
    verdict.expect("list secrets", &secrets.list(&ListParams::default()).await, Some(403));
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &stage.namespace.name);
    verdict.expect("list config maps", &maps.list(&ListParams::default()).await, Some(403));
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client);
    let name = format!("{}-events", stage.agent);
    verdict.expect("delete the policy", &policies.delete(&name, &DeleteParams::default()).await, Some(403));
    verdict.holds()?;
    stage.clear().await
}
