//! What every test here needs once: agents, and kernels that speak to the controllers.

use std::{fs, sync::OnceLock, time::Duration};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{
    Rig,
    agent::NAMESPACE,
    controller::{Ports, SECRET_ANNOTATION},
    wait,
};
use k8s_openapi::api::core::v1;
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::json;
use tokio::sync::OnceCell;

/// What guests call the machine they run on (QEMU, user networking): datagrams reach it there, too.
pub(crate) const HOST_IN_GUESTS: &str = "10.0.2.2";

/// Values of the chart with which the nodes' kernels speak (`xtask/src/deploy/check.rs` renders them).
const VALUES: &str = "netconsole.enabled=true,netconsole.privileged=true";

/// Name of the DaemonSet and of all that belongs to it.
const SPEAKERS: &str = "detector-netconsole";

/// The Service whose EndpointSlices name the controllers, and its port. There is no such Service here: only the slices are read.
const RECEIVERS: &str = "detector-controller-netconsole";
const PORT: &str = "netconsole";

/// Time over which kernels that speak turn to other receivers.
pub(crate) const SPREAD: Duration = Duration::from_secs(4);

/// Before which the pods' template gets another annotation.
const RESTART: &str = "detector.dev/restart-settings:";

/// Ports of both replicas, the same in all tests: kernels are told once to whom they speak.
pub(crate) fn ports() -> Result<[Ports; 2]> {
    static PORTS: OnceLock<[Ports; 2]> = OnceLock::new();
    if let Some(ports) = PORTS.get() {
        return Ok(*ports);
    }
    let ports = [Ports::free()?, Ports::free()?];
    Ok(*PORTS.get_or_init(|| ports))
}

/// Installs all of it, unless this run has.
pub(crate) async fn once(rig: &Rig) -> Result<()> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED.get_or_try_init(|| install(rig)).await.map(drop)
}

async fn install(rig: &Rig) -> Result<()> {
    rig.agent().await?;
    for (number, ports) in ports()?.iter().enumerate() {
        point(rig, number, ports.netconsole).await?;
    }
    rig.apply(&speakers(rig)?).await.context("install what has the kernels speak")?;
    let rolled = ["--namespace", NAMESPACE, "rollout", "status", "daemonset", SPEAKERS, "--timeout", "180s"];
    if let Err(error) = rig.kubectl(&rolled).await {
        let said = rig.kubectl(&["--namespace", NAMESPACE, "describe", "pods"]).await.unwrap_or_default();
        return Err(error.context(said));
    }
    let nodes: Api<v1::Node> = Api::all(rig.client.clone());
    let own = rig.nodes();
    let all_speak = |seen: &[v1::Node]| {
        own.iter().all(|node| {
            let mut found = seen.iter().filter(|seen| seen.name_any() == node.name());
            found.any(|seen| seen.annotations().contains_key(SECRET_ANNOTATION))
        })
    };
    wait::all(&nodes, &ListParams::default(), "all kernels speak", wait::POD_PATIENCE, all_speak).await?;
    Ok(())
}

/// `detector netconsole` on all nodes as the chart has it, but towards the controllers on this machine.
fn speakers(rig: &Rig) -> Result<String> {
    let path = rig.facts.renderings.join(format!("{VALUES}.yaml"));
    let chart = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let line = |object: &str, key: &str| object.lines().find_map(|line| line.strip_prefix(key).map(str::to_owned));
    let is_wanted = |object: &&str| {
        let named = line(object, "  name: ").is_some_and(|name| name.starts_with(SPEAKERS));
        named && line(object, "kind: ").is_some_and(|kind| kind != "ConfigMap")
    };
    let config = config()?;
    // Other settings replace the pods.
    let replaced =
        |object: &str| object.replace(RESTART, &format!("detector.dev/receivers: {config:?}\n        {RESTART}"));
    let mut objects: Vec<_> = chart.split("\n---\n").filter(is_wanted).map(replaced).collect();
    ensure!(objects.iter().any(|object| object.contains("detector.dev/receivers")), "{} has no pods", path.display());
    let metadata = json!({ "name": SPEAKERS, "namespace": NAMESPACE });
    let map =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "config.yaml": config } });
    objects.insert(0, map.to_string());
    Ok(objects.join("\n---\n"))
}

/// Two controllers on one machine: both hear the same line, so that one is asked for both.
fn config() -> Result<String> {
    let [one, _] = ports()?;
    let service = json!({ "namespace": NAMESPACE, "name": RECEIVERS, "port": PORT });
    let config = json!({
        "receivers": { "service": service, "spread": format!("{}s", SPREAD.as_secs()) },
        "targets": { "poll": "5s" },
        "selfTest": { "port": one.health },
        "health": { "listen": "0.0.0.0:20258" },
    });
    Ok(config.to_string())
}

/// Has the EndpointSlice of a controller tell this port of this machine. Each controller has a slice, as if on a node of its own:
/// one slice has one port for all in it.
pub(crate) async fn point(rig: &Rig, number: usize, port: u16) -> Result<()> {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": slice(number), "namespace": NAMESPACE,
            "labels": { "kubernetes.io/service-name": RECEIVERS } },
        "addressType": "IPv4",
        "ports": [{ "name": PORT, "protocol": "UDP", "port": port }],
        "endpoints": [{ "addresses": [HOST_IN_GUESTS], "nodeName": format!("controller-{number}"),
            "conditions": { "ready": true } }],
    });
    rig.apply(&slice.to_string()).await.context("tell where a receiver is").map(drop)
}

/// Takes the slice of a controller away.
pub(crate) async fn point_nowhere(rig: &Rig, number: usize) -> Result<()> {
    let name = slice(number);
    rig.kubectl(&["--namespace", NAMESPACE, "delete", "endpointslice", &name]).await.map(drop)
}

fn slice(number: usize) -> String {
    format!("{RECEIVERS}-{number}")
}
