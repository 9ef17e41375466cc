//! The rig's control plane is what a cluster has: it is healthy, knows nodes by their certificates and tokens by their
//! pods, and refuses what a real one refuses.

use anyhow::Result;
use detector_cluster_tests::{Rig, wait};
use k8s_openapi::api::{
    authentication::v1::SelfSubjectReview,
    core::v1::{Node, Pod},
};
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

/// A pod that nothing runs, on a node that nobody needs to have.
async fn bound_pod(namespace: &detector_cluster_tests::Namespace, node: &str) -> Result<Pod> {
    namespace.pod("bound", json!({ "nodeName": node, "containers": [{ "name": "c", "image": "none" }] })).await
}

#[tokio::test]
async fn the_api_server_says_that_it_is_ready() -> Result<()> {
    let rig = Rig::connect().await?;
    assert_eq!(rig.kubectl(&["get", "--raw", "/readyz"]).await?, "ok");
    assert!(rig.client.apiserver_version().await?.git_version.starts_with("v1."));
    Ok(())
}

#[tokio::test]
async fn a_token_bound_to_a_pod_names_its_node_and_an_unbound_one_does_not() -> Result<()> {
    let rig = Rig::connect().await?;
    let namespace = rig.namespace("token").await?;
    let pod = bound_pod(&namespace, "some-node").await?;
    for (pod, wanted) in [(Some(&pod), Some("some-node")), (None, None)] {
        let token = rig.token(&namespace.name, "default", pod).await?;
        let api: Api<SelfSubjectReview> = Api::all(rig.client_with_token(&token).await?);
        let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
        let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
        assert_eq!(user.username, Some(format!("system:serviceaccount:{}:default", namespace.name)));
        let extra = user.extra.unwrap_or_default();
        let node = extra.get("authentication.kubernetes.io/node-name").and_then(|values| values.first());
        assert_eq!(node.map(String::as_str), wanted);
    }
    Ok(())
}

#[tokio::test]
async fn a_token_without_rights_may_not_touch_a_node() -> Result<()> {
    let rig = Rig::connect().await?;
    let namespace = rig.namespace("rights").await?;
    let pod = bound_pod(&namespace, "some-node").await?;
    let client = rig.client_with_token(&rig.token(&namespace.name, "default", Some(&pod)).await?).await?;
    assert_eq!(wait::refusal(&patch_condition(client, "some-node").await), Some(403));
    Ok(())
}

#[tokio::test]
async fn a_kubelet_may_change_its_own_node_and_no_other() -> Result<()> {
    let rig = Rig::connect().await?;
    let _own = rig.node_object("kubelet-test", json!({})).await?;
    let _other = rig.node_object("kubelet-other", json!({})).await?;
    let kubelet = kubelet_client(&rig).await?;
    let (own, other) =
        (patch_condition(kubelet.clone(), "kubelet-test").await, patch_condition(kubelet, "kubelet-other").await);
    assert_eq!((wait::refusal(&own), wait::refusal(&other)), (None, Some(403)));
    own?;
    Ok(())
}

/// The rig makes a kubelet's certificate for a node that no machine has: `kubelet-test`.
async fn kubelet_client(rig: &Rig) -> Result<Client> {
    let path = rig.facts.kubeconfig.with_file_name("kubelet-test.kubeconfig");
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn patch_condition(client: Client, node: &str) -> Result<Node, kube::Error> {
    let condition = json!({ "type": "RigTest", "status": "False", "reason": "Test", "message": "a test of the rig" });
    let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
    Api::<Node>::all(client).patch_status(node, &PatchParams::default(), &patch).await
}
