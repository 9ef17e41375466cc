//! The one annotation of the Node that lets the controller know the secret when it hears it: its SHA-256.
//!
//! Needs one right: to patch `nodes`. A merge patch and not a server-side apply, because an apply to a Node that is not
//! there would make one where somebody grants `create`.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{
    Client, Resource as _,
    api::{Patch, PatchParams},
    core::Request,
};
use serde_json::{Value, json};

use crate::{
    cluster::{Outcome, answer},
    contract::netconsole::{NODE_ANNOTATION, secret_sha256},
};

/// Name by which the API server knows our field.
const FIELD_MANAGER: &str = "detector-netconsole";

/// How often it is written again: a Node that was deleted and registers anew has lost it. What stands is no write to etcd.
pub const REPEAT: Duration = Duration::from_secs(600);

/// First pause after a failure, and the longest; each is twice the one before.
pub const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));

/// Writes the annotation for `secret`.
pub async fn write(client: &Client, node: &str, secret: &str) -> Outcome {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match Request::new(Node::url_path(&(), None)).patch(node, &params, &Patch::Merge(body(secret))) {
        Ok(request) => answer::send(client, request).await.outcome,
        Err(error) => Outcome::Final(format!("a request about the Node {node} cannot be made: {error}")),
    }
}

fn body(secret: &str) -> Value {
    json!({ "metadata": { "annotations": { NODE_ANNOTATION: secret_sha256(secret) } } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_annotation_is_written_and_the_secret_is_not_in_it() {
        let text = body("abc").to_string();
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(text, format!(r#"{{"metadata":{{"annotations":{{"{NODE_ANNOTATION}":"{digest}"}}}}}}"#));
    }
}
