//! The cluster as a test sees it.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use kube::{
    Api, Client, Config, Resource,
    config::{KubeConfigOptions, Kubeconfig},
    core::NamespaceResourceScope,
};
use serde_json::{Value, json};

use crate::{Facts, Namespace, Node, NodeObject};

/// A connection to the rig with an administrator's rights.
#[derive(Clone)]
pub struct Rig {
    /// Speaks to the API server as administrator.
    pub client: Client,
    /// Where things are.
    pub facts: Facts,
}

impl Rig {
    /// Finds the rig and connects to it.
    ///
    /// # Errors
    /// There is no rig.
    pub async fn connect() -> Result<Self> {
        let facts = Facts::read()?;
        let kubeconfig = Kubeconfig::read_from(&facts.kubeconfig).context("read the administrator's kubeconfig")?;
        let client = connect(kubeconfig).await?;
        Ok(Self { client, facts })
    }

    /// A client that presents a token and nothing else, as a pod does.
    ///
    /// # Errors
    /// The authority's certificate cannot be read.
    pub async fn client_with_token(&self, token: &str) -> Result<Client> {
        let kubeconfig = self.kubeconfig_with_token(token);
        connect(serde_json::from_value(kubeconfig).context("make a kubeconfig with a token")?).await
    }

    /// A kubeconfig that presents a token and nothing else.
    pub fn kubeconfig_with_token(&self, token: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "rig", "cluster": {
                "server": self.facts.server, "certificate-authority": self.facts.authority } }],
            "users": [{ "name": "token", "user": { "token": token } }],
            "contexts": [{ "name": "rig", "context": { "cluster": "rig", "user": "token" } }],
            "current-context": "rig",
        })
    }

    /// A namespace of the test's own, removed when dropped. `purpose` is part of its name: lower case, digits, `-`.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn namespace(&self, purpose: &str) -> Result<Namespace> {
        Namespace::make(self, &format!("{purpose}-{}", unique())).await
    }

    /// A Node object without a machine, removed when dropped. `metadata` is an object: what it has besides its name.
    ///
    /// # Errors
    /// The API server refuses, such as when there is one of that name.
    pub async fn node_object(&self, name: &str, metadata: Value) -> Result<NodeObject> {
        NodeObject::make(self, name, metadata).await
    }

    /// The API of one kind of object in a namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// All nodes of the rig, ready or not.
    pub fn nodes(&self) -> Vec<Node> {
        self.facts.nodes.iter().map(|facts| Node::new(self, facts)).collect()
    }

    /// A node whose kubelet lets a container live when one of its processes is killed, or the other kind.
    ///
    /// # Errors
    /// The rig has none, such as one without virtual machines.
    pub fn node_with(&self, single_process_oom_kill: bool) -> Result<Node> {
        let fits = |node: &&crate::facts::NodeFacts| node.single_process_oom_kill == single_process_oom_kill;
        let facts = self.facts.nodes.iter().find(fits);
        let facts = facts.with_context(|| format!("no node with singleProcessOOMKill {single_process_oom_kill}"))?;
        Ok(Node::new(self, facts))
    }
}

async fn connect(kubeconfig: Kubeconfig) -> Result<Client> {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .context("understand a kubeconfig")?;
    Client::try_from(config).context("make a client")
}

/// Differs for each call of all tests that run at the same time.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
