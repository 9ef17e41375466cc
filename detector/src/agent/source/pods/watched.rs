//! A pod of an answer, of which all is skipped that nobody asks for: what it becomes is [`PodFacts`].

use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, api::ObjectMeta};
use serde::{Deserialize, Deserializer};

use super::PodFacts;

/// Annotation of a static pod: the uid that the kubelet gave it, by default the hash of its manifest, which is in cgroup
/// paths (`applyDefaults`, `pkg/kubelet/config/common.go`).
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// What is read of a pod.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WatchedPod {
    #[serde(default, deserialize_with = "trimmed")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    resource_version: Option<String>,
    #[serde(default)]
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "kubernetes.io/config.hash")]
    config_hash: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    container_statuses: Option<Vec<Container>>,
    init_container_statuses: Option<Vec<Container>>,
    ephemeral_container_statuses: Option<Vec<Container>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    #[serde(rename = "containerID")]
    id: Option<String>,
    last_state: Option<LastState>,
}

#[derive(Clone, Debug, Deserialize)]
struct LastState {
    terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Deserialize)]
struct Terminated {
    #[serde(rename = "containerID")]
    id: Option<String>,
}

fn trimmed<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    let metadata = Metadata::deserialize(from)?;
    let hash = metadata.annotations.and_then(|annotations| annotations.config_hash);
    Ok(ObjectMeta {
        uid: metadata.uid,
        namespace: metadata.namespace,
        name: metadata.name,
        resource_version: metadata.resource_version,
        annotations: hash.map(|hash| BTreeMap::from([(CONFIG_HASH.to_owned(), hash)])),
        ..ObjectMeta::default()
    })
}

impl WatchedPod {
    pub(super) fn into_facts(self) -> PodFacts {
        let Self { metadata, status } = self;
        let lists = [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses];
        let mut containers = Vec::new();
        for container in lists.into_iter().flatten().flatten() {
            let last = container.last_state.and_then(|state| state.terminated?.id);
            for id in last.into_iter().chain(container.id) {
                // `<runtime>://<id>`; empty before the container was made.
                let id = id.rsplit_once("://").map_or(id.as_str(), |(_, id)| id);
                if !id.is_empty() {
                    containers.push((id.to_owned(), container.name.clone()));
                }
            }
        }
        PodFacts {
            uid: metadata.uid.unwrap_or_default(),
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            config_hash: metadata.annotations.and_then(|mut annotations| annotations.remove(CONFIG_HASH)),
            containers,
        }
    }
}

impl Resource for WatchedPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> std::borrow::Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> std::borrow::Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> std::borrow::Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> std::borrow::Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
