//! Cgroups that look like those of a kubelet with containerd and the systemd driver.

use anyhow::Result;
use detector_provoke::{Cgroup, Hierarchy, Limits};

/// Uid of the pod as the API has it.
pub(crate) const POD_UID: &str = "5f0c2b1e-6d3a-4b57-9c43-0a1b2c3d4e5f";

/// Id of the container.
pub(crate) const CONTAINER_ID: &str = "4f2d8c1be07a93655f0c2b1e6d3a4b579c430a1b2c3d4e5f60718293a4b5c6d7";

/// Slice of all burstable pods.
const SLICE: &str = "kubepods.slice/kubepods-burstable.slice";

/// A pod with one container, and the slice that both are in.
pub(crate) struct Pod {
    // Dropped in this order: a cgroup can only be removed after those in it.
    pub(crate) container: Cgroup,
    pub(crate) pod: Cgroup,
    pub(crate) slice: Cgroup,
}

impl Pod {
    /// Makes the three cgroups with their limits.
    pub(crate) fn make(hierarchy: &Hierarchy, slice: Limits, pod: Limits, container: Limits) -> Result<Self> {
        let pod_name = format!("{SLICE}/kubepods-burstable-pod{}.slice", POD_UID.replace('-', "_"));
        let container_name = format!("{pod_name}/cri-containerd-{CONTAINER_ID}.scope");
        let slice = Cgroup::make(hierarchy, SLICE, slice)?;
        let pod = Cgroup::make(hierarchy, &pod_name, pod)?;
        let container = Cgroup::make(hierarchy, &container_name, container)?;
        Ok(Self { container, pod, slice })
    }
}
