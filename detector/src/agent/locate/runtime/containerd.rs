//! containerd: the bundle that its shim hands to runc, `<state>/io.containerd.runtime.v2.task/<namespace>/<id>/`.
//!
//! `config.json` has the CRI plugin's annotations (containerd, `pkg/cri/annotations/annotations.go`), `init.pid` the pid of
//! the first process, written by the shim once the container is created.

use std::path::Path;

use serde::Deserialize;

use super::{Bundle, CONFIG_LIMIT, Files, NameError, Names, Wanted, json, name, pid};
use crate::agent::locate::place::Runtime;

/// State directories: containerd's own, k3s and RKE2, k0s, MicroK8s, and the containerd that Docker starts.
const STATES: [&str; 5] = [
    "/run/containerd",
    "/run/k3s/containerd",
    "/run/k0s/containerd",
    "/var/snap/microk8s/common/run/containerd",
    "/run/docker/containerd/daemon",
];

const TASKS: &str = "io.containerd.runtime.v2.task";

/// The kubelet's namespace is tried first; others (`default` of nerdctl, `moby` of Docker) are listed.
const KUBERNETES: &str = "k8s.io";

/// Docker's namespace.
const DOCKER: &str = "moby";

/// Most namespaces of one containerd that are searched.
const NAMESPACES: usize = 16;

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "io.kubernetes.cri.container-type")]
    kind: Option<String>,
    #[serde(rename = "io.kubernetes.cri.container-name")]
    container: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-name")]
    pod: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-namespace")]
    namespace: Option<String>,
    /// nerdctl copies its labels into the annotations.
    #[serde(rename = "nerdctl/name")]
    nerdctl: Option<String>,
}

pub(super) fn names(files: &Files<'_>, wanted: Wanted<'_>) -> Result<Option<Names>, NameError> {
    for state in STATES {
        let tasks = files.path(state).join(TASKS);
        if let Some(names) = bundle(files, &tasks.join(KUBERNETES).join(wanted.id))? {
            return Ok(Some(names));
        }
        for namespace in files.list(&tasks, NAMESPACES) {
            // Docker's own file says more; this one would only stop the search for it.
            let dockers = namespace.ends_with(DOCKER) && wanted.runtime != Runtime::Containerd;
            if dockers || namespace.ends_with(KUBERNETES) {
                continue;
            }
            if let Some(names) = bundle(files, &namespace.join(wanted.id))? {
                return Ok(Some(names));
            }
        }
    }
    Ok(None)
}

fn bundle(files: &Files<'_>, directory: &Path) -> Result<Option<Names>, NameError> {
    let Some(Bundle::<Annotations> { annotations }) = json(files, &directory.join("config.json"), CONFIG_LIMIT)? else {
        return Ok(None);
    };
    Ok(Some(Names {
        runtime: Some(Runtime::Containerd),
        container: name(annotations.container.or(annotations.nerdctl)),
        pod_namespace: name(annotations.namespace),
        pod_name: name(annotations.pod),
        sandbox: annotations.kind.as_deref() == Some("sandbox"),
        init_pid: pid(files, &directory.join("init.pid")),
    }))
}
