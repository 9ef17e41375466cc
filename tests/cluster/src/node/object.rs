//! A Node object without a machine.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::Rig;

/// A Node object that no kubelet looks after. It is deleted when dropped, also by a test that fails: what others find when
/// they look at all Nodes must not depend on that.
pub struct NodeObject {
    /// Its name.
    pub name: String,
    rig: Rig,
}

impl NodeObject {
    /// Makes it, with this metadata besides its name. Without the label of an operating system DaemonSets put no pod there.
    pub(crate) async fn make(rig: &Rig, name: &str, mut metadata: Value) -> Result<Self> {
        metadata["name"] = name.into();
        let object = serde_json::from_value(json!({ "metadata": metadata })).context("word a Node")?;
        let api: Api<Node> = Api::all(rig.client.clone());
        api.create(&PostParams::default(), &object).await.with_context(|| format!("make the Node {name}"))?;
        Ok(Self { name: name.to_owned(), rig: rig.clone() })
    }
}

impl Drop for NodeObject {
    fn drop(&mut self) {
        self.rig.remove("node", &self.name);
    }
}
