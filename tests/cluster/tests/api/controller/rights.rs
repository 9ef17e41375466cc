//! RBAC: what the code asks for is allowed, what it does not ask for is refused, and a policy that wants less gives less.

use std::time::Duration;

use anyhow::{Context as _, Result};
use detector_cluster_tests::Verdict;
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Node, Pod, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::json;

use super::{DRY_RUN, IN_FORCE, Stage, by_uid, reason};

/// The definition, which other tests use as well: it is made, and stays.
const DEFINITION: &str = include_str!("../../../../../deploy/crd/kernelincidents.yaml");

#[tokio::test]
async fn reading_and_writing_down_needs_no_more_than_is_given() -> Result<()> {
    let stage = Stage::set_with("evidence", DRY_RUN).await?;
    let own = &stage.namespace.name;
    let mut verdict = Verdict::default();
    stage.in_force().await?;
    verdict.expect("list nodes", &stage.nodes.list(&ListParams::default().limit(1)).await, None);
    verdict.expect("get a node", &stage.nodes.get(&stage.node).await, None);
    let pods: Api<Pod> = Api::all(stage.client.clone());
    let on_node = ListParams::default().fields(&format!("spec.nodeName={}", stage.node));
    verdict.expect("list the pods of a node", &pods.list(&on_node).await, None);
    let spaces: Api<Namespace> = Api::all(stage.client.clone());
    verdict.expect("get a namespace", &spaces.get(own).await, None);
    verdict.expect("list namespaces", &spaces.list(&ListParams::default()).await, Some(403));

    let heartbeats: Api<Lease> = Api::namespaced(stage.client.clone(), "kube-node-lease");
    verdict.expect("get a node's lease", &heartbeats.get(&stage.node).await, Some(404));
    verdict.expect("list leases", &heartbeats.list(&ListParams::default()).await, Some(403));
    let touched = Patch::Merge(json!({ "spec": { "holderIdentity": "x" } }));
    let renewed = heartbeats.patch(&stage.node, &PatchParams::default(), &touched).await;
    verdict.expect("renew a node's lease", &renewed, Some(403));

    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), own);
    let lease = |name: &str| serde_json::from_value(json!({ "metadata": { "name": name } }));
    verdict.expect(
        "make the leader's lease",
        &leases.create(&PostParams::default(), &lease("detector-controller")?).await,
        None,
    );
    verdict.expect("get it", &leases.get("detector-controller").await, None);
    let held = leases.patch("detector-controller", &PatchParams::default(), &touched).await;
    verdict.expect("hold it", &held, None);
    verdict.expect("get another lease", &leases.get("other").await, Some(403));
    let maps: Api<ConfigMap> = Api::namespaced(stage.client.clone(), own);
    let brake =
        serde_json::from_value(json!({ "metadata": { "name": "detector-brake" }, "data": { "state": "pulled" } }))?;
    verdict.expect("make the brake", &maps.create(&PostParams::default(), &brake).await, None);
    verdict.expect("read the brake", &maps.get("detector-brake").await, None);
    verdict.expect("read another map", &maps.get(&format!("{own}-controller")).await, Some(403));
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), own);
    verdict.expect("list secrets", &secrets.list(&ListParams::default()).await, Some(403));
    let programs: Api<Deployment> = Api::namespaced(stage.client.clone(), own);
    verdict.expect("list deployments", &programs.list(&ListParams::default()).await, Some(403));
    verdict.holds()?;
    stage.clear().await
}

#[tokio::test]
async fn incidents_are_opened_written_and_given_up_but_not_changed_otherwise() -> Result<()> {
    let stage = Stage::set_with("incident-rights", DRY_RUN).await?;
    stage.rig.apply(DEFINITION).await?;
    let words = ["wait", "--for", "condition=Established", "--timeout", "60s", "crd/kernelincidents.detector.dev"];
    stage.rig.kubectl(&words).await?;
    stage.in_force().await?;
    let kind = GroupVersionKind::gvk("detector.dev", "v1alpha1", "KernelIncident");
    let kind = ApiResource::from_gvk_with_plural(&kind, "kernelincidents");
    let incidents: Api<DynamicObject> = Api::all_with(stage.client.clone(), &kind);
    let name = format!("{}-1", stage.node);
    let mut incident = DynamicObject::new(&name, &kind);
    incident.data = json!({ "spec": { "node": stage.node, "time": "2026-11-22T12:00:00.000000Z" } });
    // An established definition may not be served by every part of the server at once.
    let asking = async {
        let mut again = tokio::time::interval(Duration::from_millis(50));
        loop {
            again.tick().await;
            let made = incidents.create(&PostParams::default(), &incident).await;
            if detector_cluster_tests::wait::refusal(&made) != Some(404) {
                return made;
            }
        }
    };
    let mut verdict = Verdict::default();
    let made = tokio::time::timeout(IN_FORCE, asking).await.context("wait until incidents are served")?;
    verdict.expect("open", &made, None);
    let uid = made.ok().and_then(|made| made.uid()).unwrap_or_default();
    let status = json!({ "apiVersion": "detector.dev/v1alpha1", "kind": "KernelIncident", "metadata": { "name": name },
        "status": { "phase": "Suspected" } });
    let params = PatchParams::apply("detector-controller").force();
    verdict.expect("apply its status", &incidents.patch_status(&name, &params, &Patch::Apply(status)).await, None);
    let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    verdict.expect("change the rest", &incidents.patch(&name, &PatchParams::default(), &label).await, Some(403));
    verdict.expect("list", &incidents.list(&ListParams::default().limit(1)).await, None);
    verdict.expect("get", &incidents.get(&name).await, None);
    verdict.expect("delete", &incidents.delete(&name, &by_uid(&uid)).await, None);
    verdict.holds()?;
    stage.clear().await
}

#[tokio::test]
async fn in_dry_run_there_is_no_right_to_do_anything() -> Result<()> {
    let stage = Stage::set_with("dry-run", DRY_RUN).await?;
    stage.in_force().await?;
    let pod = stage.pod("kept").await?;
    let params = by_uid(&pod.uid().unwrap_or_default());
    let marked = Patch::Merge(json!({ "metadata": { "annotations": reason() } }));
    let plain = PatchParams::default();
    let mut verdict = Verdict::default();
    verdict.expect("annotate a node", &stage.nodes.patch(&stage.node, &plain, &marked).await, Some(403));
    let uncordoned = Patch::Merge(json!({ "spec": { "unschedulable": true } }));
    verdict.expect("cordon", &stage.nodes.patch(&stage.node, &plain, &uncordoned).await, Some(403));
    verdict.expect("annotate a pod", &stage.pods.patch_status("kept", &plain, &marked).await, Some(403));
    verdict.expect("delete a pod", &stage.pods.delete("kept", &params).await, Some(403));
    verdict.expect("delete a node", &stage.nodes.delete(&stage.node, &DeleteParams::default()).await, Some(403));
    verdict.holds()?;
    stage.clear().await
}

impl Stage {
    /// Waits until the rights are in force.
    async fn in_force(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let pods: Api<Pod> = Api::all(self.client.clone());
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace.name);
        let heartbeats: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let one = ListParams::default().limit(1);
        let asking = async {
            let mut again = tokio::time::interval(Duration::from_millis(50));
            loop {
                again.tick().await;
                let refused = |code: Option<u16>| code == Some(403);
                use detector_cluster_tests::wait::refusal;
                if !refused(refusal(&nodes.list(&one).await))
                    && !refused(refusal(&pods.list(&one).await))
                    && !refused(refusal(&maps.get("detector-brake").await))
                    && !refused(refusal(&heartbeats.get(&self.node).await))
                {
                    return;
                }
            }
        };
        tokio::time::timeout(IN_FORCE, asking).await.context("wait until the rights are in force")
    }
}
