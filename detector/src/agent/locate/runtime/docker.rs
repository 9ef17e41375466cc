//! Docker: `<data root>/containers/<id>/config.v2.json`, the daemon's own record of a container
//! (moby, `container/container.go`): `Name` with a leading `/`, `State.Pid` (0 before the start), and
//! `Config.Labels`, in which cri-dockerd keeps the kubelet's as dockershim did.

use serde::Deserialize;

use super::{CONFIG_LIMIT, Files, NameError, Names, Wanted, crio::SANDBOX_NAME, json, name};
use crate::agent::locate::place::Runtime;

/// Data roots: the default, and that of the snap.
const DATA_ROOTS: [&str; 2] = ["/var/lib/docker", "/var/snap/docker/common/var-lib-docker"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    name: Option<String>,
    #[serde(default)]
    state: State,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    #[serde(default)]
    pid: u32,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    /// `null` where there are none.
    labels: Option<Labels>,
}

#[derive(Default, Deserialize)]
struct Labels {
    #[serde(rename = "io.kubernetes.docker.type")]
    kind: Option<String>,
    #[serde(rename = "io.kubernetes.container.name")]
    container: Option<String>,
    #[serde(rename = "io.kubernetes.pod.name")]
    pod: Option<String>,
    #[serde(rename = "io.kubernetes.pod.namespace")]
    namespace: Option<String>,
}

pub(super) fn names(files: &Files<'_>, wanted: Wanted<'_>) -> Result<Option<Names>, NameError> {
    for data_root in DATA_ROOTS {
        let file = files.path(data_root).join("containers").join(wanted.id).join("config.v2.json");
        let Some(container) = json::<Container>(files, &file, CONFIG_LIMIT)? else { continue };
        let labels = container.config.labels.unwrap_or_default();
        let own = container.name.map(|name| name.trim_start_matches('/').to_owned());
        let sandbox = labels.kind.as_deref() == Some("podsandbox");
        return Ok(Some(Names {
            runtime: Some(Runtime::Docker),
            container: name(labels.container).filter(|name| !(sandbox && name == SANDBOX_NAME)).or_else(|| name(own)),
            pod_namespace: name(labels.namespace),
            pod_name: name(labels.pod),
            sandbox,
            init_pid: Some(container.state.pid).filter(|pid| *pid > 0),
        }));
    }
    Ok(None)
}
