//! The API server is away while kills go on.

use std::{
    env,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{
    Metrics,
    local::{Agent, Burst, Container, Stage, sum},
};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Variable with another length of the outage, in seconds; `--full` makes it ten minutes.
const SECONDS: &str = "DETECTOR_OUTAGE_SECONDS";

/// Its length otherwise.
const OUTAGE: Duration = Duration::from_secs(12);

/// Between two groups of kills.
const PAUSE: Duration = Duration::from_secs(2);

/// Kills of a group.
const GROUP: u32 = 10;

/// Containers with a kill each, more than the agent remembers one by one (`sink::event::SERIES`, 512).
const FLOOD: u16 = 560;

/// How many processes cause them.
const FLOODERS: usize = 2;

/// By how much an agent's own memory may grow while the API server is away, in bytes.
const GROWTH: u64 = 8 << 20;

/// Most bytes of its state.
const DISK: u64 = 4 << 20;

/// The kernel's clock and the wall clock are compared by both sides; this is how far apart they may be.
const TOLERANCE: Duration = Duration::from_millis(100);

/// What an outage costs an agent.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    before: u64,
    memory: u64,
    disk: u64,
}

impl Cost {
    /// Begins with what `agent` takes now.
    fn before(agent: &Agent) -> Result<Self> {
        Ok(Self { before: agent.memory()?, ..Self::default() })
    }

    fn look(&mut self, agent: &Agent, stage: &Stage) -> Result<()> {
        self.memory = self.memory.max(agent.memory()?);
        self.disk = self.disk.max(stage.place.state_bytes()?);
        Ok(())
    }

    fn is_bounded(self) -> Result<()> {
        let Self { before, memory, disk } = self;
        let growth = memory.saturating_sub(before);
        println!("{growth} bytes of memory more than the {before} before, {disk} bytes of state");
        ensure!(growth < GROWTH && disk < DISK, "memory grew by {growth} bytes, the state has {disk}");
        Ok(())
    }
}

fn waiting(metrics: &Metrics) -> f64 {
    metrics.sum("detector_queue_depth", &[("queue", "event")])
}

fn outage() -> Result<Duration> {
    let Ok(text) = env::var(SECONDS) else { return Ok(OUTAGE) };
    text.parse().map(Duration::from_secs).with_context(|| format!("{SECONDS} is {text}, which is no number"))
}

#[tokio::test]
async fn while_the_api_server_is_away_kills_wait_and_then_arrive_with_their_true_time() -> Result<()> {
    let mut stage = Stage::set("outage").await?;
    let (storm, single) = (stage.container("storm", 0)?, stage.container("single", 1)?);
    let mut agent = stage.start().await?;
    let mut cost = Cost::before(&agent)?;
    stage.proxy.cut().await;

    let begun = SystemTime::now();
    single.kills(1).await?;
    let single_done = SystemTime::now();
    let end = Instant::now() + outage()?;
    let mut kills = 0;
    let mut pauses = interval(PAUSE);
    pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < end {
        pauses.tick().await;
        storm.kills(GROUP).await?;
        kills += GROUP;
        // What waits survives this, too.
        if kills == 3 * GROUP {
            agent.kill().await?;
            agent = stage.start().await?;
        }
        cost.look(&agent, &stage)?;
    }
    let storm_done = SystemTime::now();
    agent.wait_for("all are counted", |metrics| storm.counted(metrics) == f64::from(kills)).await?;
    let refused = |metrics: &Metrics| metrics.sum("detector_api_writes_total", &[("result", "retry")]);
    let noticed = |metrics: &Metrics| refused(metrics) > 0.0;
    let refused = refused(&agent.wait_for("the agent notices that the API server is away", noticed).await?);
    stage.proxy.join().await?;

    let told = stage.told(&single, 1).await?;
    assert_eq!((told.events, told.kills), (1, 1), "{told}");
    let early = |time: SystemTime| Some(time - TOLERANCE);
    let late = |time: SystemTime| Some(time + TOLERANCE);
    ensure!(told.first >= early(begun) && told.first <= late(single_done), "{told}: not {begun:?} to {single_done:?}");
    let told = stage.told(&storm, kills.into()).await?;
    assert_eq!((told.events, told.kills), (1, kills.into()), "{told}");
    ensure!(told.first >= early(single_done) && told.last <= late(storm_done), "{told}: not up to {storm_done:?}");
    ensure!(told.last > told.first, "{told}");
    let metrics = agent.metrics().await?;
    assert_eq!(metrics.sum("detector_events_lost_total", &[]), 0.0, "{metrics:?}");
    println!("{kills} kills, {refused} writes refused");
    cost.is_bounded()?;
    agent.stop().await?;
    Ok(())
}

#[tokio::test]
async fn what_is_more_than_an_agent_remembers_is_told_together_and_costs_little() -> Result<()> {
    let mut stage = Stage::set("flood").await?;
    // Budgets that let all of it be told at once: what is judged here is what waits.
    let budget = json!({ "burst": 1000, "every": "1s" });
    stage.settle(&json!({ "events": { "nodeBudget": budget, "podBudget": budget } }))?;
    let containers: Vec<Container> = (0..FLOOD)
        .map(|number| stage.pod_of_one(&stage.namespace, &format!("c{number}"), number))
        .collect::<Result<_>>()?;
    let mut agent = stage.start().await?;
    let mut cost = Cost::before(&agent)?;
    stage.proxy.cut().await;
    let bursts = containers.chunks(containers.len().div_ceil(FLOODERS)).map(Burst::one_each);
    for burst in bursts.collect::<Result<Vec<_>>>()? {
        burst.end().await?;
    }
    let all = f64::from(FLOOD);
    agent.wait_for("all wait", |metrics| waiting(metrics) >= all).await?;
    let saved = stage.place.state().join("state.json");
    let last = containers.last().map(|container| format!("\"{}\"", container.name)).unwrap_or_default();
    let is_saved = |_: &Metrics| std::fs::read_to_string(&saved).is_ok_and(|text| text.contains(&last));
    agent.wait_for("all is saved", is_saved).await?;
    cost.look(&agent, &stage)?;

    stage.proxy.join().await?;
    // What waits survives this, too; and a fresh agent asks the server at once.
    agent.kill().await?;
    agent = stage.start().await?;
    let metrics = agent.wait_for("all is told", |metrics| waiting(metrics) == 0.0).await?;
    assert_eq!(metrics.sum("detector_events_lost_total", &[]), 0.0, "{metrics:?}");
    let api: Api<Event> = stage.namespace.api();
    let one_by_one = api.list(&ListParams::default()).await?.items;
    let of_node = stage.told_of_node().await?;
    let together: Vec<_> = of_node.iter().filter(|event| event.reason.as_deref() == Some("FurtherProblems")).collect();
    println!(
        "{} events one by one, {} about {} kills",
        one_by_one.len(),
        together.len(),
        sum(together.iter().copied())
    );
    ensure!(!together.is_empty(), "nothing was told together: {of_node:?}");
    let killed = metrics.sum("detector_node_oom_kills_total", &[]);
    assert_eq!((sum(&one_by_one) + sum(&of_node)) as f64, killed);
    cost.is_bounded()?;
    agent.stop().await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_that_starts_without_an_api_server_watches_and_tells_later() -> Result<()> {
    let mut stage = Stage::set("late").await?;
    let container = stage.container("eats", 0)?;
    stage.proxy.cut().await;
    let agent = stage.start().await?;
    container.kills(2).await?;
    agent.wait_for("all are counted", |metrics| container.counted(metrics) == 2.0).await?;
    stage.proxy.join().await?;
    let told = stage.told(&container, 2).await?;
    assert_eq!((told.events, told.kills), (1, 2), "{told}");
    agent.stop().await?;
    Ok(())
}
