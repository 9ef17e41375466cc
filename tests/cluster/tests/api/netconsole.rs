//! What a stolen token of one node's `detector netconsole` can do: write the annotation of that node, and read where the
//! receivers are. The manifests are those of `deploy/netconsole.yaml`.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{Rig, Verdict, controller::SECRET_ANNOTATION as ANNOTATION, is_refused, wait};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

/// The file that users apply.
const MANIFESTS: &str = "deploy/netconsole.yaml";

/// How long rights and policies may take from being written to being in force.
const IN_FORCE: Duration = Duration::from_secs(60);

/// Rights and policies alone, under names of `namespace`.
fn manifests(namespace: &str) -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("find the root of the source tree")?;
    let text = fs::read_to_string(root.join(MANIFESTS)).with_context(|| format!("read {MANIFESTS}"))?;
    let runs = |document: &&str| document.contains("kind: DaemonSet\n") || document.contains("kind: Namespace\n");
    let kept = text.split("---\n").filter(|document| document.contains("kind: ") && !runs(document));
    let text: String = kept.map(|document| format!("---\n{document}\n")).collect();
    let text = text
        .replace("detector-netconsole", &format!("{namespace}-netconsole"))
        .replace("namespace: detector\n", &format!("namespace: {namespace}\n"))
        .replace("system:serviceaccount:detector:", &format!("system:serviceaccount:{namespace}:"));
    ensure!(text.contains(&format!("{namespace}:{namespace}-netconsole")), "{MANIFESTS} names no account");
    Ok(text)
}

#[tokio::test]
async fn a_token_writes_one_annotation_of_its_own_node() -> Result<()> {
    let rig = Rig::connect().await?;
    let namespace = rig.namespace("netconsole").await?;
    let manifests = manifests(&namespace.name)?;
    rig.apply(&manifests).await?;
    let (own, other) = (format!("{}-own", namespace.name), format!("{}-other", namespace.name));
    let metadata = json!({ "annotations": { "a": "b" } });
    let _own = rig.node_object(&own, metadata.clone()).await?;
    let _other = rig.node_object(&other, metadata).await?;
    let account = format!("{}-netconsole", namespace.name);
    let spec =
        json!({ "nodeName": own, "containers": [{ "name": "c", "image": "none" }], "serviceAccountName": account });
    let pod: Pod = namespace.pod("speaker", spec).await?;
    let client = rig.client_with_token(&rig.token(&namespace.name, &account, Some(&pod)).await?).await?;
    let unbound = rig.client_with_token(&rig.token(&namespace.name, &account, None).await?).await?;
    let nodes: Api<Node> = Api::all(client.clone());

    let params = PatchParams::default();
    let note = |value: Option<&str>| Patch::Merge(json!({ "metadata": { "annotations": { ANNOTATION: value } } }));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let asking = async {
        let mut again = tokio::time::interval(Duration::from_millis(50));
        while !is_refused(&nodes.patch(&other, &dry, &note(Some("x"))).await, "its own node only") {
            again.tick().await;
        }
    };
    tokio::time::timeout(IN_FORCE, asking).await.context("wait until the policy refuses")?;

    let mut verdict = Verdict::default();
    verdict.expect("its annotation", &nodes.patch(&own, &params, &note(Some("0f3c"))).await, None);
    verdict.forbids("that of another node", &nodes.patch(&other, &params, &note(Some("x"))).await, "its own node only");
    let of_unbound = Api::<Node>::all(unbound).patch(&own, &params, &note(Some("x"))).await;
    verdict.forbids("by a token of no node", &of_unbound, "its own node only");
    for (what, patch, words) in [
        ("another annotation", json!({ "metadata": { "annotations": { "c": "d" } } }), "no annotation but"),
        ("one removed", json!({ "metadata": { "annotations": { "a": null } } }), "no annotation but"),
        ("label", json!({ "metadata": { "labels": { "a": "b" } } }), "nothing else"),
        ("cordon", json!({ "spec": { "unschedulable": true } }), "nothing else"),
        ("taint", json!({ "spec": { "taints": [{ "key": "a", "effect": "NoExecute" }] } }), "nothing else"),
    ] {
        verdict.forbids(what, &nodes.patch(&own, &params, &Patch::Merge(patch)).await, words);
    }
    verdict.expect("removed", &nodes.patch(&own, &params, &note(None)).await, None);
    verdict.expect("get the node", &nodes.get(&own).await, Some(403));
    verdict.expect("delete the node", &nodes.delete(&own, &DeleteParams::default()).await, Some(403));
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &namespace.name);
    verdict.expect("list slices", &slices.list(&ListParams::default()).await, None);
    let elsewhere: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    verdict.expect("list slices elsewhere", &elsewhere.list(&ListParams::default()).await, Some(403));
    let pods: Api<Pod> = Api::namespaced(client, &namespace.name);
    verdict.expect("list pods", &pods.list(&ListParams::default()).await, Some(403));
    assert_eq!(wait::refusal(&pods.get("speaker").await), Some(403));
    verdict.holds()?;
    rig.delete(&manifests).await.map(drop)
}
