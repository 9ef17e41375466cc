//! CRI-O: `<driver>-containers/<id>/userdata/` of containers/storage, in its run directory and in its lasting one.
//!
//! `config.json` carries the kubelet's labels as annotations of their own beside CRI-O's (CRI-O,
//! `pkg/annotations/internal.go`); `pidfile` in the run directory is written by conmon.

use serde::Deserialize;

use super::{Bundle, CONFIG_LIMIT, Files, NameError, Names, Wanted, json, name, pid};
use crate::agent::locate::place::Runtime;

pub(super) const RUN: &str = "/run/containers/storage";
pub(super) const LASTING: &str = "/var/lib/containers/storage";

/// Directories of containers in a storage: `<driver>-containers` (containers/storage, `store.go`), the common one first.
pub(super) const CONTAINERS: [&str; 4] = ["overlay-containers", "vfs-containers", "btrfs-containers", "zfs-containers"];

/// Name that the kubelet gives to the container that holds a pod's namespaces.
pub(super) const SANDBOX_NAME: &str = "POD";

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "io.container.manager")]
    manager: Option<String>,
    #[serde(rename = "io.kubernetes.cri-o.ContainerType")]
    kind: Option<String>,
    #[serde(rename = "io.kubernetes.container.name")]
    container: Option<String>,
    #[serde(rename = "io.kubernetes.pod.name")]
    pod: Option<String>,
    #[serde(rename = "io.kubernetes.pod.namespace")]
    namespace: Option<String>,
}

pub(super) fn names(files: &Files<'_>, wanted: Wanted<'_>) -> Result<Option<Names>, NameError> {
    for (storage, containers) in [RUN, LASTING].into_iter().flat_map(|storage| CONTAINERS.map(|part| (storage, part))) {
        let userdata = files.path(storage).join(containers).join(wanted.id).join("userdata");
        let Some(Bundle::<Annotations> { annotations }) = json(files, &userdata.join("config.json"), CONFIG_LIMIT)?
        else {
            continue;
        };
        // Podman keeps its bundles in the same place, but names only in its list.
        if annotations.manager.as_deref() == Some("libpod")
            || annotations.container.is_none() && annotations.kind.is_none()
        {
            continue;
        }
        let sandbox = annotations.kind.as_deref() == Some("sandbox");
        return Ok(Some(Names {
            runtime: Some(Runtime::CriO),
            container: name(annotations.container).filter(|name| !(sandbox && name == SANDBOX_NAME)),
            pod_namespace: name(annotations.namespace),
            pod_name: name(annotations.pod),
            sandbox,
            init_pid: pid(files, &userdata.join("pidfile")).or_else(|| {
                let run = files.path(RUN).join(containers).join(wanted.id);
                pid(files, &run.join("userdata/pidfile"))
            }),
        }));
    }
    Ok(None)
}
