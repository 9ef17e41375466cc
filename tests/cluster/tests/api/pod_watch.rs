//! The right that the chart gives with `podWatch: true`, and that it is what a watch of one node's pods needs.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use detector_cluster_tests::{Namespace, Rig, wait};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, WatchParams},
    core::WatchEvent,
};
use serde_json::json;

/// The chart's template of rights, and what encloses those of `podWatch` there.
const TEMPLATE: &str = "deploy/chart/templates/rbac.yaml";
const BEGIN: &str = "{{- if .Values.podWatch }}\n";
const END: &str = "{{- end }}";

/// The rules of the chart's template for `podWatch: true`, as items of a list.
fn rules() -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("find the root of the source tree")?;
    let text = fs::read_to_string(root.join(TEMPLATE)).with_context(|| format!("read {TEMPLATE}"))?;
    let (_, rest) = text.split_once(BEGIN).with_context(|| format!("{TEMPLATE} has no {BEGIN:?}"))?;
    let (rules, _) = rest.split_once(END).with_context(|| format!("{TEMPLATE} does not end {BEGIN:?}"))?;
    Ok(rules.trim_end().to_owned())
}

/// A client with the token of the account `default`, and what gives that account the chart's right.
async fn watcher(rig: &Rig, namespace: &Namespace, pod: &Pod) -> Result<(Client, String)> {
    let name = &namespace.name;
    let manifests = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{ name: {name} }}\nrules:\n{}\n---\n\
        apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{ name: {name} }}\n\
        roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name} }}\n\
        subjects: [{{ kind: ServiceAccount, name: default, namespace: {name} }}]\n",
        rules()?
    );
    let client = rig.client_with_token(&rig.token(name, "default", Some(pod)).await?).await?;
    Ok((client, manifests))
}

/// A pod that nothing runs, on a node that nobody needs to have.
async fn bound(namespace: &Namespace, name: &str, node: &str) -> Result<Pod> {
    namespace.pod(name, json!({ "nodeName": node, "containers": [{ "name": "c", "image": "none" }] })).await
}

#[tokio::test]
async fn a_token_with_the_charts_right_lists_and_watches_the_pods_of_a_node_and_does_nothing_else() -> Result<()> {
    let rig = Rig::connect().await?;
    let namespace = rig.namespace("pod-watch").await?;
    let (own, other) = (format!("{}-own", namespace.name), format!("{}-other", namespace.name));
    let first = bound(&namespace, "first", &own).await?;
    bound(&namespace, "elsewhere", &other).await?;
    let (client, manifests) = watcher(&rig, &namespace, &first).await?;
    let pods: Api<Pod> = Api::all(client.clone());
    let of_node = format!("spec.nodeName={own}");
    let listed = pods.list(&ListParams::default().fields(&of_node)).await;
    assert_eq!(wait::refusal(&listed), Some(403), "without the right: {listed:?}");

    rig.apply(&manifests).await?;
    // A binding is in force a moment after it is written.
    let asking = async {
        let mut again = tokio::time::interval(Duration::from_millis(50));
        loop {
            again.tick().await;
            let listed = pods.list(&ListParams::default().fields(&of_node)).await;
            if wait::refusal(&listed) != Some(403) {
                return listed;
            }
        }
    };
    let list = tokio::time::timeout(wait::PATIENCE, asking).await.context("wait until the right is in force")??;
    let names: Vec<_> = list.items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["first"]);

    let version = list.metadata.resource_version.context("a list without a version")?;
    let watched = WatchParams::default().fields(&of_node).timeout(60);
    let mut watch = pods.watch(&watched, &version).await?.boxed();
    bound(&namespace, "elsewhere-too", &other).await?;
    bound(&namespace, "second", &own).await?;
    let next = tokio::time::timeout(wait::PATIENCE, watch.next()).await.context("wait for a pod")?;
    match next.context("the watch has ended")?? {
        WatchEvent::Added(pod) => assert_eq!(pod.name_any(), "second"),
        other => anyhow::bail!("watched {other:?}"),
    }
    let of_namespace: Api<Pod> = Api::namespaced(client, &namespace.name);
    assert_eq!(wait::refusal(&of_namespace.get("first").await), Some(403));
    assert_eq!(wait::refusal(&of_namespace.delete("first", &DeleteParams::default()).await), Some(403));
    rig.delete(&manifests).await.map(drop)
}
