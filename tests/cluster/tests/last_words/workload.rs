//! What runs on the node that dies: a pod of each kind of owner, and the container that is to blame.

use std::time::Duration;

use anyhow::{Context as _, Result};
use detector_cluster_tests::{Namespace, Node, Rig, eater, namespace::all_run, wait};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long what the tests look at may take: a dead node is given up after 30 s, PodGC comes each 20 s, and on a busy machine a
/// guest that has just booted takes minutes to have its pods run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// The container that is to blame; alone in its pod, which nobody replaces.
pub(crate) const CULPRIT: &str = "culprit";

/// Names of those whose owners replace them, by the beginning of their names.
pub(crate) const WEB: &str = "web-";
pub(crate) const DATABASE: &str = "db-0";
pub(crate) const BATCH: &str = "batch-";
pub(crate) const LOGS: &str = "logs-";

/// Limit of the container that is to blame.
const LIMIT: &str = "48Mi";

/// Settings of the node's owner: a container's limit is the machine's end; it stays dead, for kernels of 7.x send nothing over
/// netconsole if they are to reboot at once; and the line about the suspect is printed.
const SETTINGS: &str = "echo 2 > /proc/sys/vm/panic_on_oom; echo 0 > /proc/sys/kernel/panic; \
    echo 2 > /proc/sys/kernel/ftrace_dump_on_oops";

/// A Deployment with a Service, a StatefulSet, a Job that forgives disruptions, a DaemonSet, and the culprit.
pub(crate) struct Workload {
    pub(crate) namespace: Namespace,
    /// The node on which all of it begins.
    pub(crate) node: Node,
}

impl Workload {
    /// Makes all of it and waits until it runs on `node`.
    pub(crate) async fn start(rig: &Rig, purpose: &str, node: &Node) -> Result<Self> {
        let workload = Self { namespace: rig.namespace(purpose).await?, node: node.clone() };
        let manifests = workload.manifests();
        rig.apply(&serde_json::to_string(&manifests)?).await?;
        let all_here = |pods: &[Pod]| {
            let here = |start: &str| pods.iter().any(|pod| is(pod, start) && on(pod, node.name()) && all_run(pod));
            [WEB, DATABASE, BATCH, LOGS, CULPRIT].into_iter().all(here)
        };
        let what = format!("all pods run on {}", node.name());
        wait::all(&workload.pods(), &ListParams::default(), &what, PATIENCE, all_here).await?;
        let ready = |slices: &[EndpointSlice]| slices.iter().any(|slice| endpoints(slice, node.name()) > 0);
        wait::all(&workload.namespace.api(), &ListParams::default(), "there is an endpoint", PATIENCE, ready).await?;
        Ok(workload)
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        self.namespace.api()
    }

    /// Pods of the namespace that run on a node.
    pub(crate) async fn pods_on(&self, node: &Node) -> Result<Vec<Pod>> {
        let mut pods = self.pods().list(&ListParams::default()).await.context("list pods")?.items;
        pods.retain(|pod| on(pod, node.name()) && all_run(pod));
        Ok(pods)
    }

    /// Has the Deployment run on another node, too, and waits until that and the DaemonSet run on both.
    pub(crate) async fn spreads_to(&self, node: &Node) -> Result<()> {
        let rig = self.node.rig();
        let words = ["--namespace", &self.namespace.name, "scale", "deployment", "web", "--replicas", "2"];
        rig.kubectl(&words).await?;
        let run = |pods: &[Pod]| {
            let here = |start: &str| pods.iter().any(|pod| is(pod, start) && on(pod, node.name()) && all_run(pod));
            let both = |start: &str| pods.iter().filter(|pod| is(pod, start) && all_run(pod)).count() == 2;
            here(WEB) && both(WEB) && both(LOGS)
        };
        wait::all(&self.pods(), &ListParams::default(), "the Deployment runs on both nodes", PATIENCE, run).await?;
        Ok(())
    }

    /// Has the culprit overrun its limit, which the node's kernel does not survive if `vm.panic_on_oom` is 2, and gives the
    /// moment at which the console says so.
    pub(crate) async fn panic(&self) -> Result<Instant> {
        self.node.run(SETTINGS).await?;
        let console = self.node.facts.console.clone();
        let before = std::fs::metadata(&console).context("look at the console")?.len();
        let cue = eater::cue("go");
        let words = ["--namespace", &self.namespace.name, "exec", CULPRIT, "--", "/bin/sh", "-c", &cue];
        // It may not come back from there: its kernel dies meanwhile.
        let rig = self.node.rig().clone();
        let cue = async { rig.kubectl(&words).await };
        let seen = async {
            let mut again = tokio::time::interval(Duration::from_millis(10));
            loop {
                again.tick().await;
                let text = std::fs::read(&console).context("read the console")?;
                let new = String::from_utf8_lossy(text.get(before as usize..).unwrap_or_default()).into_owned();
                if new.contains("Kernel panic - not syncing") {
                    return Ok::<_, anyhow::Error>(Instant::now());
                }
            }
        };
        tokio::pin!(cue);
        let waiting = tokio::time::timeout(PATIENCE, seen);
        tokio::pin!(waiting);
        tokio::select! {
            seen = &mut waiting => seen.context("wait for the panic")?,
            told = &mut cue => { told.ok(); waiting.await.context("wait for the panic")? }
        }
    }

    /// When all pods that were on the node have `holds`, whatever becomes of them later.
    pub(crate) async fn when_each(&self, what: &str, here: &[Pod], holds: impl Fn(&Pod) -> bool) -> Result<Instant> {
        let mut left: Vec<_> = here.iter().filter_map(ResourceExt::uid).collect();
        let each = |pods: &[Pod]| {
            left.retain(|uid| !pods.iter().any(|pod| pod.uid().as_ref() == Some(uid) && holds(pod)));
            left.is_empty()
        };
        wait::all(&self.pods(), &ListParams::default(), what, PATIENCE, each).await?;
        Ok(Instant::now())
    }

    /// Waits until `kubectl get pods` has printed a word of each of these pods.
    pub(crate) async fn is_printed(&self, here: &[Pod], word: &str) -> Result<()> {
        let mut left: Vec<_> = here.iter().map(ResourceExt::name_any).collect();
        let each = |row: &str| {
            let mut words = row.split_whitespace();
            let name = words.next().unwrap_or_default();
            if words.any(|one| one == word) && left.iter().any(|one| one == name) {
                println!("{row}");
                left.retain(|one| one != name);
            }
            left.is_empty()
        };
        let words = ["--namespace", &self.namespace.name, "get", "pods", "--watch"];
        let printed = tokio::time::timeout(PATIENCE, self.node.rig().kubectl_until(&words, each)).await;
        printed.with_context(|| format!("kubectl printed no {word} of each pod"))?
    }

    /// When one of the owner's pods that was not there before is as wanted.
    pub(crate) async fn when_new(
        &self,
        what: &str,
        here: &[Pod],
        start: &str,
        patience: Duration,
        holds: impl Fn(&Pod) -> bool,
    ) -> Result<Instant> {
        let old: Vec<_> = here.iter().filter_map(ResourceExt::uid).collect();
        let new = |pod: &Pod| is(pod, start) && pod.uid().is_some_and(|uid| !old.contains(&uid));
        let elsewhere = |pod: &Pod| !on(pod, self.node.name());
        let found = |pods: &[Pod]| pods.iter().any(|pod| new(pod) && elsewhere(pod) && holds(pod));
        wait::all(&self.pods(), &ListParams::default(), what, patience, found).await?;
        Ok(Instant::now())
    }

    /// When no endpoint of the Service that is ready is on the node.
    pub(crate) async fn when_no_endpoint(&self, patience: Duration) -> Result<Instant> {
        let none = |slices: &[EndpointSlice]| slices.iter().all(|slice| endpoints(slice, self.node.name()) == 0);
        let what = "no endpoint is ready on the node";
        wait::all(&self.namespace.api::<EndpointSlice>(), &ListParams::default(), what, patience, none).await?;
        Ok(Instant::now())
    }

    /// Pods of the Job that count as failed, and whether it has given up. On a node that has just booted one may have failed to
    /// start.
    pub(crate) async fn charged(&self) -> Result<(i32, bool)> {
        let job: Job = self.namespace.api().get("batch").await.context("read the Job")?;
        let status = job.status.unwrap_or_default();
        let given_up = status.conditions.unwrap_or_default().iter().any(|one| one.type_ == "Failed");
        Ok((status.failed.unwrap_or_default(), given_up))
    }

    /// All documents, to be made at once.
    fn manifests(&self) -> Value {
        let rig = self.node.rig();
        let image = rig.facts.images.provoke.clone();
        let idle = json!({ "name": "works", "image": image, "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"] });
        // Where the test wants them first; a scheduler may put them elsewhere later.
        let affinity = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 100,
            "preference": { "matchExpressions": [{
                "key": "kubernetes.io/hostname", "operator": "In", "values": [self.node.name()] }] } }] } });
        let spec = |more: Value| {
            let mut spec = json!({ "hostNetwork": true, "terminationGracePeriodSeconds": 5, "affinity": affinity,
                "containers": [idle] });
            if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
                spec.extend(more);
            }
            spec
        };
        let template = |app: &str, more: Value| json!({ "metadata": { "labels": { "app": app } }, "spec": spec(more) });
        let select = |app: &str| json!({ "matchLabels": { "app": app } });
        let object = |api: &str, kind: &str, name: &str, spec: Value| {
            json!({ "apiVersion": api, "kind": kind,
                "metadata": { "name": name, "namespace": self.namespace.name }, "spec": spec })
        };
        let script = "mkfifo /tmp/cue; read cue < /tmp/cue; exec tail /dev/zero";
        let eats = json!({ "name": "eats", "image": image, "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", script],
            "resources": { "requests": { "memory": "16Mi" }, "limits": { "memory": LIMIT } } });
        let culprit = json!({ "hostNetwork": true, "terminationGracePeriodSeconds": 5, "restartPolicy": "Never",
            "nodeName": self.node.name(), "containers": [eats] });
        let forgiving = json!({ "rules": [{ "action": "Ignore",
            "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] }] });
        json!({ "apiVersion": "v1", "kind": "List", "items": [
            object("apps/v1", "Deployment", "web", json!({
                "replicas": 1, "selector": select("web"), "template": template("web", json!({})) })),
            object("v1", "Service", "web", json!({
                "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] })),
            object("apps/v1", "StatefulSet", "db", json!({
                "replicas": 1, "serviceName": "db", "selector": select("db"), "template": template("db", json!({})) })),
            object("batch/v1", "Job", "batch", json!({ "backoffLimit": 3, "podFailurePolicy": forgiving,
                "template": template("batch", json!({ "restartPolicy": "Never" })) })),
            object("apps/v1", "DaemonSet", "logs", json!({
                "selector": select("logs"), "template": template("logs", json!({})) })),
            object("v1", "Pod", CULPRIT, culprit),
        ] })
    }
}

/// Whether a pod's name begins so.
pub(crate) fn is(pod: &Pod, start: &str) -> bool {
    pod.name_any().starts_with(start)
}

fn on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

/// Endpoints of the slice that are ready and on a node.
fn endpoints(slice: &EndpointSlice, node: &str) -> usize {
    let ready = |ready: Option<bool>| ready.unwrap_or(true);
    let fits = slice
        .endpoints
        .iter()
        .filter(|one| one.node_name.as_deref() == Some(node) && ready(one.conditions.as_ref().and_then(|is| is.ready)));
    fits.count()
}
