//! The agent works with the rights that are documented and no others, on an old and a new kernel; and as a privileged
//! container, for those who want the kernel's log.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{
    Metrics, Node, Rig,
    agent::{DAEMON_SET, METRICS_PORT, NAMESPACE},
    namespace::all_run,
    node::CALM,
    wait,
};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// Numbers of capabilities (`include/uapi/linux/capability.h`).
const NUMBERS: [(&str, u32); 4] = [("DAC_READ_SEARCH", 2), ("SYSLOG", 34), ("PERFMON", 38), ("BPF", 39)];

/// Detectors, each with one method in use.
const PROBES: [&str; 2] = ["hung_task", "oom"];
/// The one that is attached when the agent is ready already: it may not be there yet.
const LATE: &str = "panic";

/// Chart's manifests for a privileged agent, in the rig's directory of renderings.
const PRIVILEGED: &str = "privileged=true.yaml";

/// A label of the Node that the chart's own `affinity` leaves out: the DaemonSet takes its pod away.
const AWAY: &str = "virtual-kubelet";

/// The table of capabilities in `deploy/README.md`, as a mask.
fn documented() -> Result<u64> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("find the root of the source tree")?;
    let page = fs::read_to_string(root.join("deploy/README.md")).context("read deploy/README.md")?;
    let names = page.lines().filter_map(|line| line.strip_prefix("| capability `")?.split('`').next());
    names.into_iter().try_fold(0, |mask, name| {
        let number = NUMBERS.iter().find(|(known, _)| *known == name).map(|(_, number)| number);
        Ok(mask | 1 << number.with_context(|| format!("the number of the capability {name}"))?)
    })
}

/// A number of `/proc/PID/status`, which has masks in hexadecimal.
fn field(status: &str, name: &str) -> Result<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.with_context(|| format!("no {name} in {status}"))?.trim();
    u64::from_str_radix(value, 16).with_context(|| format!("{name} is no number: {value}"))
}

/// The method by which each detector watches; an error if one has none or several.
fn methods(metrics: &Metrics) -> Result<BTreeMap<String, String>> {
    let mut used = BTreeMap::new();
    for sample in metrics.samples().iter().filter(|sample| sample.name == "detector_probe_attached") {
        let label = |name: &str| sample.labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let (probe, method) = label("probe").zip(label("method")).context("a probe without its labels")?;
        if sample.value == 1.0 {
            let other = used.insert(probe.clone(), method.clone());
            ensure!(other.is_none(), "{probe} is watched by {method} and {other:?}");
        }
    }
    let probes: Vec<_> = used.keys().map(String::as_str).filter(|probe| *probe != LATE).collect();
    ensure!(probes == PROBES, "these are watched: {used:?}");
    Ok(used)
}

/// What was lost between the kernel and the agent; what the API server refuses is no matter of rights on the node.
fn lost(metrics: &Metrics) -> f64 {
    let of = |stage| metrics.sum("detector_events_lost_total", &[("stage", stage)]);
    of("source") + of("decode")
}

#[tokio::test]
async fn the_agent_needs_no_privileged_container_on_an_old_and_a_new_kernel() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let _calm = CALM.read().await;
    let documented = documented()?;
    for node in rig.nodes() {
        let pod = rig.agent_pod(node.name()).await?;
        let container =
            pod.spec.as_ref().and_then(|spec| spec.containers.first()).context("a pod without container")?;
        let context = container.security_context.as_ref().context("a container without securityContext")?;
        assert_eq!((context.privileged, context.allow_privilege_escalation), (Some(false), Some(false)));
        assert_eq!(context.read_only_root_filesystem, Some(true));
        // By its cgroup: a test of settings runs the program, too.
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let id = statuses.and_then(|all| all.first()?.container_id.as_deref()).context("a container without id")?;
        let cgroup = node.cgroup(id).await?;
        let status = node.run(&format!("cat /proc/$(cat {cgroup}/cgroup.procs)/status")).await?;
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            let held = field(&status, set)?;
            assert_eq!(held, documented, "{set} is {held:x}, documented are {documented:x}");
        }
        assert_eq!((field(&status, "CapAmb")?, field(&status, "NoNewPrivs")?), (0, 1));
        let metrics = node.metrics(METRICS_PORT).await?;
        println!("{}, kernel {}: {:?}", node.name(), node.facts.kernel, methods(&metrics)?);
        assert_eq!(lost(&metrics), 0.0);
        // Pins are written from within the container into the node's own bpffs.
        let pins = node.run("ls -d /sys/fs/bpf/detector/abi-*/*").await?;
        ensure!(!pins.trim().is_empty(), "nothing is pinned on {}", node.name());
    }
    Ok(())
}

#[tokio::test]
async fn a_privileged_agent_watches_too_and_reads_the_kernels_log() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let _calm = CALM.write().await;
    let node = rig.node_with(false)?;
    let before = node.metrics(METRICS_PORT).await?;
    assert_eq!(log_lines(&before), 0.0, "the agent as installed may not read the kernel's log");
    label(&rig, &node, json!(AWAY)).await?;
    let judged = watches_privileged(&rig, &node).await;
    // Whatever happened: other tests need the agent.
    label(&rig, &node, Value::Null).await?;
    let sets: Api<DaemonSet> = rig.api(NAMESPACE);
    let all = i32::try_from(rig.facts.nodes.len())?;
    let is_back = |set: Option<&DaemonSet>| {
        set.and_then(|set| set.status.as_ref())
            .is_some_and(|status| status.number_ready == all && status.desired_number_scheduled == all)
    };
    wait::until(&sets, DAEMON_SET, "the agent is back", wait::POD_PATIENCE, is_back).await?;
    judged
}

/// Runs the pod of the chart's privileged rendering in the place of the installed one.
async fn watches_privileged(rig: &Rig, node: &Node) -> Result<()> {
    let pods: Api<v1::Pod> = rig.api(NAMESPACE);
    let of_node = ListParams::default().fields(&format!("spec.nodeName={}", node.name()));
    wait::all(&pods, &of_node, "the installed agent is away", wait::POD_PATIENCE, <[_]>::is_empty).await?;
    let pod = json!({ "metadata": { "name": "privileged" }, "spec": privileged(rig, node).await? });
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await.context("make the privileged pod")?;
    let judged = async {
        let runs = |pod: Option<&v1::Pod>| pod.is_some_and(all_run);
        wait::until(&pods, "privileged", "it is ready", wait::POD_PATIENCE, runs).await?;
        node.run("echo detector: a line for the privileged agent > /dev/kmsg").await?;
        let reads = |metrics: &Metrics| log_lines(metrics) > 0.0;
        let metrics = node.wait_for_metrics(METRICS_PORT, "it reads the log", wait::PATIENCE, reads).await?;
        println!("privileged, kernel {}: {:?}", node.facts.kernel, methods(&metrics)?);
        ensure!(lost(&metrics) == 0.0, "{} were lost", lost(&metrics));
        Ok(())
    };
    let judged = judged.await;
    pods.delete("privileged", &DeleteParams::default()).await.context("delete the privileged pod")?;
    wait::until(&pods, "privileged", "it is gone", wait::POD_PATIENCE, |pod| pod.is_none()).await?;
    judged
}

/// The pod's specification in the rendering. It goes to the node by name, past the scheduler and the affinity that keeps the
/// DaemonSet's own pod away.
async fn privileged(rig: &Rig, node: &Node) -> Result<Value> {
    let path = rig.facts.renderings.join(PRIVILEGED);
    let rendered = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let set = rendered.split("---\n").find(|document| document.contains("kind: DaemonSet"));
    let words = ["create", "--dry-run=client", "--output", "json", "--filename", "-"];
    let set = rig.kubectl_with(&words, set.context("a rendering without a DaemonSet")?).await?;
    let mut set: Value = serde_json::from_str(&set).context("understand the DaemonSet")?;
    let mut spec = set["spec"]["template"]["spec"].take();
    let context = &spec["containers"][0]["securityContext"];
    ensure!(context["privileged"] == true, "this is not privileged: {context}");
    let fields = spec.as_object_mut().context("a DaemonSet without a pod")?;
    fields.remove("affinity");
    fields.insert("nodeName".to_owned(), json!(node.name()));
    Ok(spec)
}

/// Lines of the kernel's log that the agent has read.
fn log_lines(metrics: &Metrics) -> f64 {
    metrics.sum("detector_records_total", &[("kind", "kernel_log")])
}

async fn label(rig: &Rig, node: &Node, value: Value) -> Result<()> {
    let nodes: Api<v1::Node> = Api::all(rig.client.clone());
    let patch = Patch::Merge(json!({ "metadata": { "labels": { "type": value } } }));
    nodes.patch(node.name(), &PatchParams::default(), &patch).await.context("label the node").map(drop)
}

#[test]
fn masks_are_read_from_the_documentation_and_from_a_process() {
    assert_eq!(documented().unwrap(), 0x00c4_0000_0004);
    assert_eq!(field("Name:\tdetector\nCapEff:\t000000c400000004\n", "CapEff").unwrap(), 0x00c4_0000_0004);
    assert!(field("Name:\tdetector\n", "CapEff").is_err());
}
