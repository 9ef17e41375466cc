//! What the definition of incidents makes the API server do: keep the identity, keep what is closed closed, refuse steps
//! without their witness, join what several managers apply, select and print by fields.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{Rig, wait};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

/// The file that users apply.
const DEFINITION: &str = "deploy/crd/kernelincidents.yaml";

/// Field managers of two replicas and of the leader.
const ONE: &str = "detector-evidence-one";
const OTHER: &str = "detector-evidence-other";
const LEADER: &str = "detector-controller";

/// Incidents of a node of the test's own.
struct Stage {
    rig: Rig,
    incidents: Api<DynamicObject>,
    kind: ApiResource,
    /// Name of the node, and the beginning of all names of incidents.
    node: String,
}

impl Stage {
    async fn set(purpose: &str) -> Result<Self> {
        let rig = Rig::connect().await?;
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("find the root of the source tree")?;
        let definition = fs::read_to_string(root.join(DEFINITION)).with_context(|| format!("read {DEFINITION}"))?;
        rig.apply(&definition).await?;
        rig.kubectl(&[
            "wait",
            "--for",
            "condition=Established",
            "--timeout",
            "60s",
            "crd/kernelincidents.detector.dev",
        ])
        .await?;
        let kind = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("detector.dev", "v1alpha1", "KernelIncident"),
            "kernelincidents",
        );
        let incidents = Api::all_with(rig.client.clone(), &kind);
        let node = format!("incidents-{purpose}-{}", std::process::id());
        Ok(Self { rig, incidents, kind, node })
    }

    /// Opens an incident; its name.
    async fn open(&self, suffix: &str) -> Result<String> {
        let name = format!("{}-{suffix}", self.node);
        let mut incident = DynamicObject::new(&name, &self.kind);
        incident.data = json!({ "spec": { "node": self.node, "time": "2026-11-22T12:00:00.000000Z" } });
        // An established definition may not be served by every part of the server at once.
        let opening = async {
            let mut again = tokio::time::interval(Duration::from_millis(50));
            loop {
                again.tick().await;
                let opened = self.incidents.create(&PostParams::default(), &incident).await;
                if wait::refusal(&opened) != Some(404) {
                    return opened;
                }
            }
        };
        tokio::time::timeout(wait::PATIENCE, opening).await.context("wait until incidents are served")??;
        Ok(name)
    }

    async fn apply(&self, name: &str, manager: &str, status: Value) -> Result<DynamicObject, kube::Error> {
        self.apply_over(name, manager, None, status).await
    }

    async fn apply_over(
        &self,
        name: &str,
        manager: &str,
        version: Option<&str>,
        status: Value,
    ) -> Result<DynamicObject, kube::Error> {
        let mut metadata = json!({ "name": name });
        if let Some(version) = version {
            metadata["resourceVersion"] = json!(version);
        }
        let patch = json!({
            "apiVersion": "detector.dev/v1alpha1", "kind": "KernelIncident", "metadata": metadata, "status": status });
        self.incidents.patch_status(name, &PatchParams::apply(manager).force(), &Patch::Apply(patch)).await
    }

    async fn clear(self) -> Result<()> {
        let own = ListParams::default().fields(&format!("spec.node={}", self.node));
        for incident in self.incidents.list(&own).await? {
            self.incidents.delete(&incident.name_any(), &DeleteParams::default()).await?;
        }
        Ok(())
    }
}

fn evidence(id: &str, kind: &str) -> Value {
    json!({ "id": id, "kind": kind, "origin": "Netconsole", "confidence": "Medium", "time": "2026-11-22T12:00:00.000000Z" })
}

fn step(kind: &str, state: &str) -> Value {
    json!({ "kind": kind, "state": state, "time": "2026-11-22T12:00:01.000000Z" })
}

fn log(id: &str) -> Value {
    json!({ "id": id, "origin": "Netconsole", "text": "Kernel panic - not syncing: x\n", "linesMissing": 0 })
}

/// Ids of a list of the status, sorted.
fn ids(incident: &DynamicObject, list: &str) -> Vec<String> {
    let entries = incident.data["status"][list].as_array().into_iter().flatten();
    let mut ids: Vec<_> = entries.filter_map(|entry| Some(entry["id"].as_str()?.to_owned())).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn the_identity_of_an_incident_never_changes_and_its_name_opens_it_once() -> Result<()> {
    let stage = Stage::set("identity").await?;
    let name = stage.open("a").await?;
    for spec in [json!({ "node": "another" }), json!({ "bootId": "0f3c7a52-11aa-4b5c-9c7e-000000000000" })] {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let changed = stage.incidents.patch(&name, &PatchParams::default(), &patch).await;
        ensure!(wait::refusal(&changed) == Some(422), "{spec}: {changed:?}");
    }
    let again = stage.open("a").await;
    let refused = again.as_ref().err().and_then(|error| error.downcast_ref::<kube::Error>());
    ensure!(matches!(refused, Some(kube::Error::Api(status)) if status.code == 409), "{again:?}");
    stage.clear().await
}

#[tokio::test]
async fn a_closed_incident_stays_closed_and_takes_late_evidence() -> Result<()> {
    let stage = Stage::set("closed").await?;
    let name = stage.open("a").await?;
    stage.apply(&name, LEADER, json!({ "phase": "Returned" })).await?;
    stage.apply(&name, LEADER, json!({ "phase": "Dead" })).await.context("a node that is back may be lost again")?;
    stage.apply(&name, LEADER, json!({ "phase": "Closed" })).await?;
    for status in [json!({ "phase": "Dead" }), json!({ "cause": "Oops" }), json!({})] {
        let opened = stage.apply(&name, LEADER, status.clone()).await;
        ensure!(wait::refusal(&opened) == Some(422), "{status}: {opened:?}");
    }
    let without = Patch::Merge(json!({ "status": null }));
    let emptied = stage.incidents.patch_status(&name, &PatchParams::default(), &without).await;
    ensure!(wait::refusal(&emptied) == Some(422), "without a status: {emptied:?}");
    stage.apply(&name, ONE, json!({ "evidence": [evidence("one/Panic", "Panic")] })).await?;
    stage.clear().await
}

#[tokio::test]
async fn nothing_is_deleted_without_the_witness_of_a_stale_lease() -> Result<()> {
    let stage = Stage::set("steps").await?;
    let name = stage.open("a").await?;
    let harmless = json!({ "steps": [step("Cordon", "Done"), step("Annotate", "Intended")] });
    stage.apply(&name, LEADER, harmless).await?;
    for kind in ["DeletePods", "FailPods", "TaintOutOfService", "ForceDeletePods", "DeleteNode"] {
        for state in ["Intended", "Done", "Failed"] {
            let written = stage.apply(&name, LEADER, json!({ "steps": [step(kind, state)] })).await;
            ensure!(wait::refusal(&written) == Some(422), "{kind} {state}: {written:?}");
        }
        stage.apply(&name, LEADER, json!({ "steps": [step(kind, "Told")] })).await.context("a dry run tells it")?;
        let witnessed =
            json!({ "steps": [step(kind, "Intended")], "evidence": [evidence("leader/LeaseStale", "LeaseStale")] });
        stage.apply(&name, LEADER, witnessed).await.with_context(|| format!("{kind} with its witness"))?;
    }
    // The witness cannot be withdrawn while the step stands.
    let withdrawn = stage.apply(&name, LEADER, json!({ "steps": [step("DeletePods", "Done")] })).await;
    ensure!(wait::refusal(&withdrawn) == Some(422), "{withdrawn:?}");
    stage.clear().await
}

#[tokio::test]
async fn what_several_managers_apply_is_joined_and_what_one_does_not_repeat_goes() -> Result<()> {
    let stage = Stage::set("managers").await?;
    let name = stage.open("a").await?;
    let told = |who: &str| json!({ "evidence": [evidence(&format!("{who}/Panic"), "Panic")], "logs": [log(who)] });
    stage.apply(&name, ONE, told("one")).await?;
    stage.apply(&name, OTHER, told("other")).await?;
    let leader = json!({ "phase": "Dead", "cause": "Oops", "evidence": [evidence("leader/LeaseStale", "LeaseStale")] });
    let joined = stage.apply(&name, LEADER, leader).await?;
    assert_eq!(ids(&joined, "evidence"), ["leader/LeaseStale", "one/Panic", "other/Panic"]);
    assert_eq!(ids(&joined, "logs"), ["one", "other"]);
    let less = stage.apply(&name, ONE, json!({ "evidence": [evidence("one/Panic", "Panic")] })).await?;
    assert_eq!((ids(&less, "evidence").len(), ids(&less, "logs")), (3, vec!["other".to_owned()]));
    let without = stage.apply(&name, LEADER, json!({ "phase": "Dead" })).await?;
    assert_eq!(ids(&without, "evidence"), ["one/Panic", "other/Panic"]);
    assert_eq!(without.data["status"].get("cause"), None);
    stage.clear().await
}

#[tokio::test]
async fn of_two_leaders_only_one_writes_a_step_down() -> Result<()> {
    let stage = Stage::set("leaders").await?;
    let name = stage.open("a").await?;
    let seen = stage.apply(&name, LEADER, json!({ "phase": "Suspected" })).await?;
    let journal = |state: &str| json!({ "phase": "Suspected", "steps": [step("Cordon", state)] });
    let version = seen.resource_version();
    stage.apply_over(&name, LEADER, version.as_deref(), journal("Intended")).await?;
    let second = stage.apply_over(&name, LEADER, version.as_deref(), journal("Failed")).await;
    ensure!(wait::refusal(&second) == Some(409), "{second:?}");
    let missing = stage.apply(&format!("{name}-none"), LEADER, json!({ "phase": "Suspected" })).await;
    ensure!(wait::refusal(&missing) == Some(404), "nothing is made by a part of a status: {missing:?}");
    stage.clear().await
}

#[tokio::test]
async fn incidents_are_selected_by_node_cause_and_phase_and_printed() -> Result<()> {
    let stage = Stage::set("fields").await?;
    let (dead, closed) = (stage.open("dead").await?, stage.open("closed").await?);
    let suspect = json!({ "name": "shop/cart-0/php", "confidence": "High" });
    let status = json!({ "phase": "Dead", "cause": "Oops", "podCount": 7, "suspect": suspect });
    stage.apply(&dead, LEADER, status).await?;
    stage.apply(&closed, LEADER, json!({ "phase": "Closed", "cause": "SysRq" })).await?;
    let node = format!("spec.node={}", stage.node);
    for (selector, wanted) in [
        (node.clone(), vec![&closed, &dead]),
        (format!("{node},status.phase=Dead"), vec![&dead]),
        (format!("{node},status.phase!=Dead"), vec![&closed]),
        (format!("{node},status.cause=SysRq"), vec![&closed]),
    ] {
        let list = stage.incidents.list(&ListParams::default().fields(&selector)).await?;
        let mut names: Vec<_> = list.items.iter().map(ResourceExt::name_any).collect();
        names.sort();
        assert_eq!(names.iter().collect::<Vec<_>>(), wanted, "{selector}");
    }
    let strange = stage.incidents.list(&ListParams::default().fields("status.message=x")).await;
    ensure!(wait::refusal(&strange) == Some(400), "{strange:?}");
    let printed = stage.rig.kubectl(&["get", "ki", &dead]).await?;
    let mut lines = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let head = lines.next().unwrap_or_default();
    assert_eq!(head, ["NAME", "NODE", "CAUSE", "SUSPECT", "PODS", "PHASE", "AGE"], "{printed}");
    let row = lines.next().unwrap_or_default();
    assert_eq!(row.get(1..6), Some(&[stage.node.as_str(), "Oops", "shop/cart-0/php", "7", "Dead"][..]), "{printed}");
    stage.clear().await
}

#[tokio::test]
async fn an_incident_of_the_largest_size_is_taken() -> Result<()> {
    let stage = Stage::set("size").await?;
    let name = stage.open("a").await?;
    let text = "x \" \n".repeat(4_000);
    for who in ["one", "two", "three", "four"] {
        let log = json!({ "id": who, "origin": "Netconsole", "text": text, "linesMissing": 0 });
        stage.apply(&name, &format!("detector-evidence-{who}"), json!({ "logs": [log] })).await?;
    }
    let pods: Vec<_> = (0..256)
        .map(|number| json!({ "namespace": "shop", "name": format!("cart-{number}"), "uid": format!("{number:036}") }))
        .collect();
    let whole = stage.apply(&name, LEADER, json!({ "podCount": 256, "pods": pods })).await?;
    let bytes = serde_json::to_vec(&whole)?.len();
    ensure!((150_000..=300_000).contains(&bytes), "{bytes} bytes");
    println!("{bytes} bytes with the server's notes");
    let log = json!({ "id": "five", "origin": "Netconsole", "text": "x", "linesMissing": 0 });
    let fifth = stage.apply(&name, "detector-evidence-five", json!({ "logs": [log] })).await;
    ensure!(wait::refusal(&fifth) == Some(422), "{fifth:?}");
    stage.clear().await
}
