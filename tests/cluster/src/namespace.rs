//! A namespace for one test.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{self, Pod, ServiceAccount};
use kube::{Api, Resource, api::PostParams, core::NamespaceResourceScope};
use serde_json::{Value, json};

use crate::{Rig, wait};

/// A namespace that only one test uses. It is deleted when dropped; nobody waits for that.
pub struct Namespace {
    /// Its name.
    pub name: String,
    rig: Rig,
}

impl Namespace {
    /// Makes it and waits until pods can be made in it.
    pub(crate) async fn make(rig: &Rig, name: &str) -> Result<Self> {
        // Pods of tests use the host's network and more.
        let labels = json!({ "pod-security.kubernetes.io/enforce": "privileged" });
        let object = json!({ "metadata": { "name": name, "labels": labels } });
        let api: Api<v1::Namespace> = Api::all(rig.client.clone());
        let object = serde_json::from_value(object).context("word a namespace")?;
        api.create(&PostParams::default(), &object).await.with_context(|| format!("make the namespace {name}"))?;
        let namespace = Self { name: name.to_owned(), rig: rig.clone() };
        let accounts: Api<ServiceAccount> = namespace.api();
        wait::until(&accounts, "default", "it exists", wait::PATIENCE, |account| account.is_some()).await?;
        Ok(namespace)
    }

    /// The cluster that it is in.
    pub fn rig(&self) -> &Rig {
        &self.rig
    }

    /// The API of one kind of object in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        self.rig.api(&self.name)
    }

    /// Makes a pod. Missing parts are filled in for a rig: the host's network (nodes have no other), no grace, and images
    /// that are never pulled.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn pod(&self, name: &str, spec: Value) -> Result<Pod> {
        let pod = json!({ "metadata": { "name": name }, "spec": completed(spec) });
        let pod = serde_json::from_value(pod).with_context(|| format!("word the pod {name}"))?;
        let pods: Api<Pod> = self.api();
        pods.create(&PostParams::default(), &pod).await.with_context(|| format!("make the pod {name}"))
    }

    /// Makes a pod and waits until its containers run.
    ///
    /// # Errors
    /// The API server refuses, or they do not run in time.
    pub async fn running_pod(&self, name: &str, spec: Value) -> Result<Pod> {
        self.pod(name, spec).await?;
        wait::until(&self.api::<Pod>(), name, "all containers run", wait::POD_PATIENCE, |pod| pod.is_some_and(all_run))
            .await?
            .with_context(|| format!("the pod {name} is gone"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.rig.remove("namespace", &self.name);
    }
}

/// Whether each container of a pod runs and is ready.
pub fn all_run(pod: &Pod) -> bool {
    let Some(statuses) = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()) else {
        return false;
    };
    let wanted = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    statuses.len() == wanted && statuses.iter().all(|status| status.ready)
}

fn completed(mut spec: Value) -> Value {
    let defaults = [("hostNetwork", json!(true)), ("terminationGracePeriodSeconds", json!(0))];
    if let Some(fields) = spec.as_object_mut() {
        for (key, value) in defaults {
            fields.entry(key).or_insert(value);
        }
    }
    for kind in ["containers", "initContainers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(fields) = container.as_object_mut() {
                fields.entry("imagePullPolicy").or_insert(json!("Never"));
            }
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_says_of_a_pod_stays() {
        let spec = completed(json!({ "hostNetwork": false, "containers": [{ "name": "a" }] }));
        assert_eq!(spec["hostNetwork"], false);
        assert_eq!(spec["terminationGracePeriodSeconds"], 0);
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "Never");
    }
}
