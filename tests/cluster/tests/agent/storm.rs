//! A storm of kills in one pod while others have one each, under the budgets that hold unless a user changes them.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{
    Metrics,
    local::{Burst, Container, Stage, sum},
};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use serde_json::json;
use tokio::time::Instant;

/// Kills of the storm.
const KILLS: u32 = 1000;

/// Other pods with one kill each: those for which the burst has room beside the storm, and all of them.
const FIRST: usize = 6;
const OTHERS: usize = 20;

/// The default of `events.nodeBudget`.
const BURST: f64 = 10.0;
const EVERY: Duration = Duration::from_secs(10);

/// How soon after its kill the event of another pod is there, unless the machine stands still.
const PROMPT: Duration = Duration::from_secs(8);

/// Kills on this machine that the agent knows of, whose ever.
fn killed(metrics: &Metrics) -> f64 {
    metrics.sum("detector_node_oom_kills_total", &[])
}

/// Writes to the API, of whatever kind. One that failed costs no budget.
fn writes(metrics: &Metrics) -> f64 {
    metrics.sum("detector_api_writes_total", &[("result", "done")])
}

/// Writes that had to wait for the node's budget.
fn refusals(metrics: &Metrics) -> f64 {
    metrics.sum("detector_budget_refusals_total", &[("budget", "node")])
}

/// Writes since there were `before` of them, which a budget that was full at `begun` must have allowed: 20 only after 100 s.
fn within_budget(metrics: &Metrics, before: f64, begun: Instant) -> Result<f64> {
    let grown = writes(metrics) - before;
    let allowed = BURST + (begun.elapsed().as_secs_f64() / EVERY.as_secs_f64()).floor();
    ensure!(grown <= allowed, "{grown} writes after {:?}, {allowed} are allowed", begun.elapsed());
    Ok(grown)
}

/// From the kill in a container to the moment at which its event was seen.
async fn delay(stage: &Stage, container: &Container) -> Result<Duration> {
    let told = stage.told(container, 1).await?;
    let killed = told.first.context("an event without eventTime")?;
    SystemTime::now().duration_since(killed).context("the kernel is ahead of this clock")
}

#[tokio::test]
async fn a_storm_delays_no_other_pod_and_the_default_budgets_hold_and_lose_nothing() -> Result<()> {
    let stage = Stage::set("storm").await?;
    // No setting of events but the defaults.
    stage.settle(&json!({ "events": {} }))?;
    let storm = stage.container("storm", 0)?;
    let others = (1..=OTHERS)
        .map(|number| stage.pod_of_one(&stage.namespace, &format!("other-{number}"), u16::try_from(number)?));
    let others: Vec<_> = others.collect::<Result<_>>()?;
    let agent = stage.start().await?;
    // The conditions are read once and written once at the start.
    let conditions = [("kind", "condition"), ("result", "done")];
    let at_rest = |metrics: &Metrics| metrics.sum("detector_api_writes_total", &conditions) >= 2.0;
    let before = writes(&agent.wait_for("the conditions stand", at_rest).await?);

    let begun = Instant::now();
    storm.burst(KILLS, 4)?.end().await?;
    let refused = refusals(&agent.metrics().await?);
    Burst::one_each(&others[..FIRST])?.end().await?;
    let mut slowest = Duration::ZERO;
    for other in &others[..FIRST] {
        slowest = slowest.max(delay(&stage, other).await?);
    }
    let metrics = agent.metrics().await?;
    let none_waited = refusals(&metrics) == refused;
    ensure!(slowest < PROMPT || none_waited, "the event of another pod came {slowest:?} after its kill");
    let grown = within_budget(&metrics, before, begun)?;
    println!("{KILLS} kills and {FIRST} others: told after at most {slowest:?}, by {grown} writes");

    // Of the others more than one has to wait, whatever is left of the burst; the storm's own update may, too.
    let held = refusals(&metrics) + 2.0;
    Burst::one_each(&others[FIRST..])?.end().await?;
    let metrics = agent.wait_for("the burst is spent", |metrics| refusals(metrics) >= held).await?;
    let spent = writes(&metrics);
    // One write may have been under way.
    let metrics = agent.wait_for("the budget gives more", |metrics| writes(metrics) >= spent + 2.0).await?;
    within_budget(&metrics, before, begun)?;
    ensure!(killed(&metrics) >= f64::from(KILLS) + OTHERS as f64, "{metrics:?}");

    let api: Api<Event> = stage.namespace.api();
    let (metrics, told, of_node) = loop {
        let before = agent.metrics().await?;
        let told = api.list(&ListParams::default()).await.context("list events")?.items;
        let of_node = stage.told_of_node().await?;
        let metrics = agent.metrics().await?;
        // The budget gives more each 10 s: what was told between two reads is in one of them only.
        if writes(&before) == writes(&metrics) {
            break (metrics, told, of_node);
        }
    };
    let waiting = metrics.sum("detector_queue_depth", &[("queue", "event")]);
    assert_eq!((sum(&told) + sum(&of_node)) as f64 + waiting, killed(&metrics), "told and waiting, and all kills");
    assert_eq!(metrics.sum("detector_events_lost_total", &[]), 0.0, "{metrics:?}");
    println!("{OTHERS} others: {} events after {:?}, {waiting} kills wait", told.len(), begun.elapsed());
    agent.stop().await?;
    Ok(())
}
