//! The node's clock is set while the agent runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{Node, node::CALM, wait};
use k8s_openapi::{api::core::v1, api::events::v1::Event, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::Api;

use super::lost::Eater;

/// By how much the clock is set, in seconds.
const JUMP: i64 = 3600;

/// How far from the node's clock a told time may be.
const TOLERANCE: Duration = Duration::from_secs(2);

/// Sets the clock on or back by so many seconds. `date` sets whole ones: it is done as a second begins, so that the way
/// back ends where it began.
async fn jump(node: &Node, seconds: i64) -> Result<()> {
    let command = "now=$(date +%s); while [ $(date +%s) = $now ]; do true; done; date -s @$((now + 1 + SECONDS))";
    node.run(&command.replace("SECONDS", &seconds.to_string())).await.map(drop)
}

/// One more kill; gives the event that tells it, and when it was by the node's clock: not before and not after.
async fn kill(eater: &Eater, nth: u32) -> Result<(Event, [Duration; 2])> {
    let begun = eater.node.time().await?;
    eater.cue(1).await?;
    eater.killed(nth).await?;
    let end = eater.node.time().await?;
    let mut events = eater.told(nth.into()).await?;
    ensure!(events.len() == 1, "not one event: {events:#?}");
    Ok((events.remove(0), [begun, end]))
}

/// Whether a told time is the node's clock.
fn check(time: Option<&MicroTime>, [begun, end]: [Duration; 2]) -> Result<()> {
    let time = SystemTime::from(time.context("an event without this time")?.0).duration_since(UNIX_EPOCH)?;
    let off = begun.saturating_sub(time).max(time.saturating_sub(end));
    println!("told {off:?} off the node's clock");
    ensure!(off < TOLERANCE, "it happened from {begun:?} to {end:?}, told is {time:?}");
    Ok(())
}

fn last_observed(event: &Event) -> Option<&MicroTime> {
    event.series.as_ref().map(|series| &series.last_observed_time)
}

/// Status of our conditions, once they stand, and since when: a flap would show.
async fn conditions(node: &Node) -> Result<Vec<String>> {
    let ours = |node: Option<&v1::Node>| -> Vec<String> {
        let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref()).into_iter().flatten();
        let ours = conditions.filter(|one| ["KernelDeadlock", "TaskHung"].contains(&&*one.type_));
        ours.map(|one| format!("{} {} {:?}", one.type_, one.status, one.last_transition_time)).collect()
    };
    let nodes: Api<v1::Node> = Api::all(node.rig().client.clone());
    let stand = |node: Option<&v1::Node>| ours(node).len() == 2;
    let node = wait::until(&nodes, node.name(), "our conditions stand", wait::POD_PATIENCE, stand).await?;
    Ok(ours(node.as_ref()))
}

#[tokio::test]
async fn a_kill_after_the_clock_was_set_has_the_new_time_and_belongs_to_the_same_series() -> Result<()> {
    let _calm = CALM.write().await;
    let eater = Eater::start("clock").await?;
    let before = conditions(&eater.node).await?;
    // A kill by the old clock shortly before: what the agent measured then is fresh.
    let (first, time) = kill(&eater, 1).await?;
    check(first.event_time.as_ref(), time)?;
    jump(&eater.node, JUMP).await?;
    let second = kill(&eater, 2).await;
    // Whatever happened: other tests need the right time.
    jump(&eater.node, -JUMP).await?;
    let (second, time) = second?;
    check(last_observed(&second), time)?;
    let (third, _) = kill(&eater, 3).await?;
    assert_eq!(third.series.as_ref().map(|series| series.count), Some(3));
    // The last time of a series never falls.
    assert_eq!((&third.event_time, last_observed(&third)), (&first.event_time, last_observed(&second)));
    assert_eq!(eater.wait_counted(3.0).await?, 3.0);
    assert_eq!(conditions(&eater.node).await?, before);
    Ok(())
}
