//! Tokens of service accounts, as the kubelet gets them for a pod.

pub mod verdict;

use anyhow::{Context as _, Result};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, ResourceExt as _, api::PostParams};
use serde_json::json;

use crate::Rig;

/// Life of a token in seconds; the API server's least is 600.
const SECONDS: i64 = 3600;

impl Rig {
    /// A token of the service account, bound to a pod, with the claim of that pod's node if it has one (`spec.nodeName`;
    /// the pod need not run). `None` gives a token that is bound to nothing.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn token(&self, namespace: &str, account: &str, pod: Option<&Pod>) -> Result<String> {
        let bound =
            pod.map(|pod| json!({ "apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.uid() }));
        let request = json!({ "spec": { "audiences": [], "expirationSeconds": SECONDS, "boundObjectRef": bound } });
        let request: TokenRequest = serde_json::from_value(request).context("word a request for a token")?;
        let accounts: Api<ServiceAccount> = self.api(namespace);
        let answer: TokenRequest = accounts
            .create_subresource("token", account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("get a token of {namespace}/{account}"))?;
        Ok(answer.status.context("the API server gave no token")?.token)
    }
}
