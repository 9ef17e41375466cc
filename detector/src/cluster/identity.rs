//! Who the agent is: the node that it runs on, as the cluster knows it.

use std::fs;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

/// Where a pod finds the namespace of its service account (`serviceaccount/admission.go`).
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Namespace of the manifests that come with the program.
const DEFAULT_NAMESPACE: &str = "detector";

/// Namespace of the pod that this program runs in; outside of pods that of the manifests that come with it.
#[must_use]
pub fn own_namespace() -> String {
    let own = fs::read_to_string(OWN_NAMESPACE).ok().map(|name| name.trim().to_owned());
    own.filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `metadata.name` of the Node.
    pub node: String,
    /// `metadata.uid` of the Node; `None` if nobody told.
    pub node_uid: Option<String>,
}

/// The part of a service account's token that names the node its pod is bound to.
#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
struct Kubernetes {
    node: Option<Node>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    uid: Option<String>,
}

impl Identity {
    /// The node named `node`, with the uid that the agent's own `token` gives for that name.
    ///
    /// The token is not verified: it is our own, and the server that takes it verifies it. Only tokens bound to a pod
    /// name a node: by default since Kubernetes 1.30 (feature gate `ServiceAccountTokenPodNodeInfo`, KEP-4193).
    #[must_use]
    pub fn new(node: &str, token: Option<&str>) -> Self {
        let claimed = token.and_then(node_of).filter(|claimed| claimed.name == node);
        Self { node: node.to_owned(), node_uid: claimed.and_then(|claimed| claimed.uid) }
    }
}

fn node_of(token: &str) -> Option<Node> {
    let payload = token.trim().split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    claims.kubernetes?.node
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.c2lnbmF0dXJl\n", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_bound_token_tells_the_uid_of_its_node() {
        let token = token(r#"{"aud":["x"],"kubernetes.io":{"namespace":"n","node":{"name":"node-a","uid":"u-1"}}}"#);
        let expected = Identity { node: "node-a".to_owned(), node_uid: Some("u-1".to_owned()) };
        assert_eq!(Identity::new("node-a", Some(&token)), expected);
        assert_eq!(Identity::new("node-b", Some(&token)).node_uid, None, "the uid of another node");
    }

    #[rstest]
    #[case::not_bound(r#"{"kubernetes.io":{"namespace":"n"}}"#)]
    #[case::foreign(r#"{"sub":"me"}"#)]
    #[case::no_object("7")]
    #[case::no_json("{")]
    fn a_token_without_a_node_tells_no_uid(#[case] payload: &str) {
        assert_eq!(Identity::new("node-a", Some(&token(payload))).node_uid, None);
    }

    #[rstest]
    #[case("")]
    #[case("a.b.c")]
    #[case("a..c")]
    fn what_is_no_token_tells_no_uid(#[case] token: &str) {
        assert_eq!(Identity::new("node-a", Some(token)).node_uid, None);
    }
}
