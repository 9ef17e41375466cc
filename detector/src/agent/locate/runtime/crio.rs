//! CRI-O: `overlay-containers/<id>/userdata/` of containers/storage, in its run directory and in its lasting one.
//!
//! `config.json` carries the kubelet's labels as annotations of their own beside CRI-O's (CRI-O,
//! `pkg/annotations/internal.go`); `pidfile` in the run directory is written by conmon.

use std::path::Path;

use serde::Deserialize;

use super::{Bundle, CONFIG_LIMIT, NameError, Names, Wanted, json, name, pid, under};
use crate::agent::locate::place::Runtime;

pub(super) const RUN: &str = "/run/containers/storage";
pub(super) const LASTING: &str = "/var/lib/containers/storage";

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

pub(super) fn names(root: &Path, wanted: Wanted<'_>) -> Result<Option<Names>, NameError> {
    for storage in [RUN, LASTING] {
        let userdata = under(root, storage).join("overlay-containers").join(wanted.id).join("userdata");
        let Some(Bundle::<Annotations> { annotations }) = json(&userdata.join("config.json"), CONFIG_LIMIT)? else {
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
            init_pid: pid(&userdata.join("pidfile")).or_else(|| {
                let run = under(root, RUN).join("overlay-containers").join(wanted.id);
                pid(&run.join("userdata/pidfile"))
            }),
        }));
    }
    Ok(None)
}
