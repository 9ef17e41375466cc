//! What an agent sees of a full node: cgroups as a kubelet with containerd and the systemd driver makes them, and the
//! files in which containerd keeps the containers' names.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use detector_provoke::{Cgroup, Hierarchy, Limits};

/// Pods of a node: what kubelet allows unless told otherwise (`maxPods`).
pub(super) const PODS: usize = 110;

/// Containers in them.
pub(super) const CONTAINERS: usize = 250;

/// Cgroup of ours in which the node's are made, so that what an interrupted run left is known to be ours.
const ROOT: &str = "detector-bench-node";

/// Slices of the classes of service, and how a pod's slice in them begins.
const CLASSES: [(&str, &str); 3] = [
    ("kubepods-burstable.slice/", "kubepods-burstable-pod"),
    ("", "kubepods-pod"),
    ("kubepods-besteffort.slice/", "kubepods-besteffort-pod"),
];

/// Memory of a container, in MiB: enough for a shell, little enough to be overrun in milliseconds.
const LIMIT_MIB: u64 = 8;

/// Where containerd keeps bundles of the kubelet's containers, below `/run`. Its state directory is for root alone.
const STATE: &str = "containerd";
const TASKS: &str = "io.containerd.runtime.v2.task/k8s.io";

/// A container's names and cgroup.
pub(super) struct Container {
    /// Name of its pod, in the namespace `default`.
    pub(super) pod: String,
    /// Its own name.
    pub(super) name: String,
    /// Path of its cgroup, relative to the root of the memory hierarchy.
    pub(super) cgroup: String,
    id: String,
}

/// A full node. Dropping it removes its cgroups; the files are the caller's.
pub(super) struct Node {
    hierarchy: Hierarchy,
    containers: Vec<Container>,
    /// The outermost first: removing it removes all others.
    cgroups: Vec<Cgroup>,
}

impl Node {
    /// Makes cgroups and, below the directory `run`, which the agent is to see as `/run`, the bundles.
    pub(super) fn make(run: &Path) -> Result<Self> {
        let hierarchy = Hierarchy::find().context("find the memory cgroups")?;
        remove_leftover(&hierarchy.mount.join(ROOT))?;
        let mut cgroups = vec![Cgroup::make(&hierarchy, ROOT, Limits::default())?];
        let containers: Vec<_> = (0..CONTAINERS).map(Container::numbered).collect();
        for container in &containers {
            // As containerd does: the file first.
            container.make_bundle(run).with_context(|| format!("make the bundle of {}", container.name))?;
            cgroups.push(Cgroup::make(&hierarchy, &container.cgroup, Limits::mib(LIMIT_MIB))?);
        }
        Ok(Self { hierarchy, containers, cgroups })
    }

    /// The first `count` containers, which are in as many pods as there are.
    pub(super) fn first(&self, count: usize) -> Result<&[Container]> {
        self.containers.get(..count).with_context(|| format!("take {count} of {CONTAINERS} containers"))
    }

    /// Another container, the `number`th beyond those that are there: known by its files, without a cgroup yet.
    pub(super) fn further(run: &Path, number: usize) -> Result<Container> {
        let container = Container::numbered(CONTAINERS + number);
        container.make_bundle(run).context("make the bundle of one more container")?;
        Ok(container)
    }

    /// File to which a process writes its id to be in the container.
    pub(super) fn processes_of(&self, container: &Container) -> PathBuf {
        self.hierarchy.mount.join(&container.cgroup).join("cgroup.procs")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The outermost takes all others with it, the rest then finds nothing to remove.
        self.cgroups.drain(..).for_each(drop);
    }
}

impl Container {
    fn numbered(number: usize) -> Self {
        let (pod, container) = (number % PODS, number / PODS);
        let uid = format!("5f0c2b1e_6d3a_4b57_9c43_{pod:012x}");
        let id = format!("{number:08x}be07a93655f0c2b1e6d3a4b579c430a1b2c3d4e5f60718293a4b5c6d");
        let (class, prefix) = CLASSES[pod % CLASSES.len()];
        let cgroup = format!("{ROOT}/kubepods.slice/{class}{prefix}{uid}.slice/cri-containerd-{id}.scope");
        Self { pod: format!("checkout-7d9f8c6b54-{pod:05x}"), name: format!("worker-{container}"), cgroup, id }
    }

    /// Annotations as of containerd's CRI plugin (`pkg/cri/annotations/annotations.go`).
    fn make_bundle(&self, run: &Path) -> Result<()> {
        let directory = run.join(STATE).join(TASKS).join(&self.id);
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        fs::set_permissions(run.join(STATE), fs::Permissions::from_mode(0o700))?;
        let config = serde_json::json!({ "ociVersion": "1.2.1", "annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": self.name,
            "io.kubernetes.cri.sandbox-name": self.pod,
            "io.kubernetes.cri.sandbox-namespace": "default",
        }});
        let path = directory.join("config.json");
        fs::write(&path, config.to_string()).with_context(|| format!("write {}", path.display()))
    }
}

/// Removes what an interrupted run left; an error if something lives in it.
fn remove_leftover(directory: &Path) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("read {}", directory.display()))?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_leftover(&entry.path())?;
        }
    }
    let attempt = || format!("remove the cgroup {}, which an earlier run left", directory.display());
    fs::remove_dir(directory).with_context(attempt)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn containers_are_distinct_and_spread_over_all_pods() {
        let containers: Vec<_> = (0..=CONTAINERS).map(Container::numbered).collect();
        let distinct = |of: fn(&Container) -> &str| containers.iter().map(of).collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(|container| &container.cgroup), CONTAINERS + 1);
        assert_eq!(distinct(|container| &container.pod), PODS);
        assert_eq!(containers[7].cgroup.rsplit_once("cri-containerd-").unwrap().1.len(), 64 + ".scope".len());
    }
}
