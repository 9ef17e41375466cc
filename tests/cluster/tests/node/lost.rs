//! What must not be lost on a real node: its agent is killed, or cut off from the API server, while kills go on.

use std::{
    env,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{
    CONTROLLER, Namespace, Node, Rig,
    agent::METRICS_PORT,
    eater,
    node::{CALM, cgroup_number},
    wait,
};
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::api::ListParams;
use serde_json::json;

/// Variable with the number of kills while the agent is killed.
const KILLS: &str = "DETECTOR_NODE_KILLS";

/// The same, without the variable.
const FEW_KILLS: u32 = 60;

/// Lists what is attached, each with the number of its file, which a link made anew would not have.
const PINS: &str = "ls -i /sys/fs/bpf/detector/abi-*/*/links";

/// How often the agent is killed meanwhile. The kubelet starts it again at once the first time, 10 s later the second.
const ROUNDS: u32 = 2;

/// How long kills, a restart with the kubelet's delay, and the last write of a series may take: the default budget of a
/// pod has one write a minute, and as long may pass before an API server that failed is asked again.
const PATIENCE: Duration = Duration::from_secs(240);

/// How much longer each kill may take in a guest.
const PATIENCE_PER_KILL: Duration = Duration::from_millis(500);

/// How far from the node's clock a told time may be.
const TOLERANCE: Duration = Duration::from_secs(1);

/// A pod whose container has one child after another killed, as many as the cue says.
pub(super) struct Eater {
    rig: Rig,
    pub(super) node: Node,
    namespace: Namespace,
    cgroup: String,
}

impl Eater {
    pub(super) async fn start(purpose: &str) -> Result<Self> {
        let rig = Rig::connect().await?;
        rig.agent().await?;
        let node = rig.node_with(false)?;
        let namespace = rig.namespace(purpose).await?;
        // Most of the memory is taken before, so that each child is killed soon: a copy of the shell, which doubles a text.
        let script = "mkfifo /tmp/cue; dd if=/dev/zero of=/dev/shm/full bs=1M count=40
            while read kills < /tmp/cue; do
                while [ $kills -gt 0 ]; do
                    (x=0123456789abcdef; while true; do x=$x$x; done)
                    kills=$((kills - 1))
                done
            done";
        let container = json!({
            "name": "eats", "image": rig.facts.images.provoke, "command": ["/bin/sh", "-c", script],
            "resources": { "requests": { "memory": "16Mi" }, "limits": { "memory": "48Mi" } } });
        let spec = json!({ "nodeName": node.name(), "containers": [container] });
        let pod: Pod = namespace.running_pod("eats", spec).await?;
        let status = pod.status.and_then(|status| status.container_statuses?.into_iter().next());
        let id = status.and_then(|status| status.container_id).context("a container without an id")?;
        let cgroup = node.cgroup(&id).await?;
        // The kubelet of this node has all of a container killed at once; here the children are to die one by one.
        node.run(&format!("echo 0 > {cgroup}/memory.oom.group")).await?;
        Ok(Self { rig, node, namespace, cgroup })
    }

    /// Begins `kills` kills.
    pub(super) async fn cue(&self, kills: u32) -> Result<()> {
        let (name, word) = (&*self.namespace.name, eater::cue(&kills.to_string()));
        self.rig.kubectl(&["--namespace", name, "exec", "eats", "--", "/bin/sh", "-c", &word]).await.map(drop)
    }

    /// Waits until the kernel has counted so many.
    pub(super) async fn killed(&self, kills: u32) -> Result<()> {
        let enough = |text: &str| cgroup_number(text, "oom_kill").is_ok_and(|counted| counted >= kills.into());
        let command = format!("cat {}/memory.events", self.cgroup);
        let text = self.node.wait_for("the kernel has killed", &command, patience(kills), enough).await?;
        assert_eq!(cgroup_number(&text, "oom_kill")?, u64::from(kills));
        Ok(())
    }

    /// What the agent counts; zero while it does not answer.
    async fn counted(&self) -> f64 {
        let labels = [("namespace", &*self.namespace.name)];
        let metrics = self.node.metrics(METRICS_PORT).await.unwrap_or_default();
        metrics.sum("detector_container_oom_kills_total", &labels)
    }

    /// Waits until the agent counts at least so many, and gives what it counts.
    pub(super) async fn wait_counted(&self, kills: f64) -> Result<f64> {
        let mut again = tokio::time::interval(Duration::from_millis(100));
        let looking = async {
            loop {
                again.tick().await;
                let counted = self.counted().await;
                if counted >= kills {
                    return counted;
                }
            }
        };
        tokio::time::timeout(patience(kills as u32), looking)
            .await
            .with_context(|| format!("wait until {kills} are counted"))
    }

    /// Waits until events tell so many, and gives the events.
    pub(super) async fn told(&self, kills: i64) -> Result<Vec<Event>> {
        let ours = ListParams::default().fields("reportingController=detector.dev/agent");
        let what = format!("{kills} kills are told");
        wait::all(&self.namespace.api(), &ours, &what, PATIENCE, |events| sum(events) >= kills).await
    }
}

/// How long so many kills may take.
fn patience(kills: u32) -> Duration {
    PATIENCE + PATIENCE_PER_KILL * kills
}

fn kills() -> Result<u32> {
    let Ok(text) = env::var(KILLS) else { return Ok(FEW_KILLS) };
    text.parse().with_context(|| format!("{KILLS} is {text}, which is no number"))
}

/// Happenings that events tell.
fn sum(events: &[Event]) -> i64 {
    events.iter().map(|event| event.series.as_ref().map_or(1, |series| i64::from(series.count))).sum()
}

#[tokio::test]
async fn an_agent_that_is_killed_while_kills_go_on_counts_and_tells_each_once() -> Result<()> {
    let _calm = CALM.write().await;
    let kills = kills()?;
    let eater = Eater::start("sigkill").await?;
    let pins = eater.node.run(PINS).await?;
    eater.cue(kills).await?;
    for round in 1..=ROUNDS {
        eater.wait_counted(f64::from(kills * round / (2 * ROUNDS + 1))).await?;
        // The guest has no other process of this name.
        eater.node.run("kill -KILL $(pidof detector)").await?;
    }
    eater.killed(kills).await?;
    assert_eq!(eater.wait_counted(kills.into()).await?, f64::from(kills));
    let events = eater.told(kills.into()).await?;
    assert_eq!((events.len(), sum(&events)), (1, i64::from(kills)), "{events:#?}");
    assert_eq!(eater.counted().await, f64::from(kills));
    // Links that were made anew watched nothing in between.
    assert_eq!(eater.node.run(PINS).await?, pins);
    Ok(())
}

#[tokio::test]
async fn kills_while_the_api_server_is_away_arrive_with_their_true_time() -> Result<()> {
    const KILLS: u32 = 5;
    let _calm = CALM.write().await;
    let eater = Eater::start("away").await?;
    eater.node.set_api_reachable(false).await?;
    // By the node's own clock, which another test sets.
    let begun = eater.node.time().await;
    let told = kills_meanwhile(&eater, KILLS).await;
    let end = eater.node.time().await;
    // Whatever happened: other tests need it.
    eater.node.set_api_reachable(true).await?;
    told?;
    let (begun, end) = (UNIX_EPOCH + begun? - TOLERANCE, UNIX_EPOCH + end? + TOLERANCE);
    let events = eater.told(KILLS.into()).await?;
    let [event] = events.as_slice() else { anyhow::bail!("not one event: {events:#?}") };
    assert_eq!(sum(&events), i64::from(KILLS));
    let (first, last) = (event.event_time.as_ref(), event.series.as_ref().map(|series| &series.last_observed_time));
    let (first, last) = first.zip(last).context("an event without its times")?;
    let (first, last) = (SystemTime::from(first.0), SystemTime::from(last.0));
    ensure!(begun <= first && first < last && last <= end, "{first:?} to {last:?} is not in {begun:?} to {end:?}");
    Ok(())
}

/// The kills, and that nothing of them is in the API.
async fn kills_meanwhile(eater: &Eater, kills: u32) -> Result<()> {
    eater.cue(kills).await?;
    eater.killed(kills).await?;
    eater.wait_counted(kills.into()).await?;
    let events = eater.namespace.api::<Event>().list(&ListParams::default()).await?.items;
    let ours = events.iter().any(|event| event.reporting_controller.as_deref() == Some(CONTROLLER));
    ensure!(!ours, "the agent was not cut off: {events:#?}");
    Ok(())
}
