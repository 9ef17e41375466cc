//! [`NodeApi`] by a Kubernetes client. Needs one right: to patch `nodes/status`.

use k8s_openapi::api::core::v1::Node;
use kube::{
    Resource as _,
    api::{Patch, PatchParams},
    core::Request,
};
use serde::Serialize;
use serde_json::json;

use super::{
    deliver::NodeApi,
    write::{self, FIELD_MANAGER, NodeCondition, Standing},
};
use crate::cluster::{Outcome, answer};

/// Bytes of a Node that are read. One with many images has some 200 kB.
const NODE: usize = 2 << 20;

/// One Node, seen through a client.
#[derive(Clone)]
pub struct KubeNode {
    client: kube::Client,
    node: String,
}

impl KubeNode {
    /// The Node of this name.
    #[must_use]
    pub fn new(client: kube::Client, node: String) -> Self {
        Self { client, node }
    }

    /// Patches `nodes/NAME/status`; the Node as it is then, in JSON.
    async fn patch<P: Serialize>(&self, params: &PatchParams, patch: &Patch<P>) -> Result<Vec<u8>, Outcome> {
        let request =
            Request::new(Node::url_path(&(), None)).patch_subresource("status", &self.node, params, patch).map_err(
                |error| Outcome::Final(format!("a request about the Node {} cannot be made: {error}", self.node)),
            )?;
        let (answer, body) = answer::ask(&self.client, request, NODE).await;
        if answer.outcome == Outcome::Done { Ok(body) } else { Err(answer.outcome) }
    }
}

impl NodeApi for KubeNode {
    async fn read(&self) -> Result<Vec<Standing>, Outcome> {
        let params =
            PatchParams { dry_run: true, field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let answer = self.patch(&params, &Patch::Merge(json!({}))).await?;
        write::standing(&answer)
            .map_err(|error| format!("the API server's answer cannot be read: {}", error.cause))
            .map_err(|reason| Outcome::Retry { after: None, reason })
    }

    async fn apply(&self, conditions: &[NodeCondition]) -> Outcome {
        let body = write::apply_body(&self.node, conditions);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.patch(&params, &Patch::Apply(body)).await.map_or_else(|outcome| outcome, |_| Outcome::Done)
    }

    async fn delete(&self, kinds: &[&str]) -> Outcome {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Strategic(write::delete_body(kinds));
        self.patch(&params, &patch).await.map_or_else(|outcome| outcome, |_| Outcome::Done)
    }
}
