//! Cgroups that look like those of a kubelet with containerd and the systemd driver, and the file in which containerd
//! keeps the container's names.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::{Context, Result};
use detector_provoke::{Cgroup, Hierarchy, Limits};

use crate::line::Owner;

/// Uid of the pod as the API has it.
const POD_UID: &str = "5f0c2b1e-6d3a-4b57-9c43-0a1b2c3d4e5f";

/// Id of the container.
const CONTAINER_ID: &str = "4f2d8c1be07a93655f0c2b1e6d3a4b579c430a1b2c3d4e5f60718293a4b5c6d7";

/// Names of the container, its pod, and the pod's namespace.
const NAMES: [&str; 3] = ["app", "cart-0", "shop"];

/// Slice of all burstable pods.
const SLICE: &str = "kubepods.slice/kubepods-burstable.slice";

/// Where containerd keeps bundles of the kubelet's containers. Its state directory is for root alone.
pub(crate) const STATE: &str = "/run/containerd";
const TASKS: &str = "io.containerd.runtime.v2.task/k8s.io";

/// A pod with one container, and the slice that both are in.
pub(crate) struct Pod {
    // Dropped in this order: a cgroup can only be removed after those in it.
    pub(crate) container: Cgroup,
    pub(crate) pod: Cgroup,
    pub(crate) slice: Cgroup,
}

impl Pod {
    /// Makes the three cgroups with their limits, and before them the container's bundle, as containerd does.
    pub(crate) fn make(hierarchy: &Hierarchy, slice: Limits, pod: Limits, container: Limits) -> Result<Self> {
        make_bundle().context("making the container's bundle")?;
        let pod_name = format!("{SLICE}/kubepods-burstable-pod{}.slice", POD_UID.replace('-', "_"));
        let container_name = format!("{pod_name}/cri-containerd-{CONTAINER_ID}.scope");
        let slice = Cgroup::make(hierarchy, SLICE, slice)?;
        let pod = Cgroup::make(hierarchy, &pod_name, pod)?;
        let container = Cgroup::make(hierarchy, &container_name, container)?;
        Ok(Self { container, pod, slice })
    }
}

/// Who owns the cgroup of this path, as a watcher must tell it.
pub(crate) fn owner_of(path: &str) -> Owner {
    if !path.contains(CONTAINER_ID) {
        return Owner::of_kind("cgroup");
    }
    let text = |value: &str| Some(value.to_owned());
    let [container, pod, namespace] = NAMES.map(text);
    Owner {
        runtime: text("containerd"),
        container_id: text(CONTAINER_ID),
        container,
        pod_uid: text(POD_UID),
        pod,
        namespace,
        qos: text("burstable"),
        ..Owner::of_kind("container")
    }
}

/// Annotations as of containerd's CRI plugin (`pkg/cri/annotations/annotations.go`).
fn make_bundle() -> Result<()> {
    let directory: PathBuf = [STATE, TASKS, CONTAINER_ID].iter().collect();
    fs::create_dir_all(&directory)?;
    fs::set_permissions(STATE, fs::Permissions::from_mode(0o700))?;
    let [container, pod, namespace] = NAMES;
    let config = serde_json::json!({ "ociVersion": "1.2.1", "annotations": {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": container,
        "io.kubernetes.cri.sandbox-name": pod,
        "io.kubernetes.cri.sandbox-namespace": namespace,
    }});
    Ok(fs::write(directory.join("config.json"), config.to_string())?)
}
