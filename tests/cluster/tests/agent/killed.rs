//! SIGKILL in the middle of a storm of kills.

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{Metrics, local::Stage};

const KILLS: u32 = 1000;

/// Kills that an agent counts before it is killed itself, round by round: at another distance from the last saved state
/// each time.
const ROUNDS: [u32; 6] = [1, 37, 90, 5, 130, 60];

/// All kills of this machine, whose ever.
fn of_node(metrics: &Metrics) -> f64 {
    metrics.sum("detector_node_oom_kills_total", &[])
}

#[tokio::test]
async fn an_agent_that_is_killed_again_and_again_in_a_storm_counts_and_tells_each_kill_once() -> Result<()> {
    let stage = Stage::set("killed").await?;
    let container = stage.container("eats", 0)?;
    let before = detector_provoke::vmstat_kills()?;
    let mut agent = stage.start().await?;
    let mut burst = container.burst(KILLS, 4)?;
    for (round, more) in ROUNDS.into_iter().enumerate() {
        if burst.has_ended()? {
            ensure!(round > 2, "the storm ended after {round} rounds: too slow a machine for this test");
            break;
        }
        let counted = container.counted(&agent.metrics().await?);
        let wanted = (counted + f64::from(more)).min(f64::from(KILLS));
        agent.wait_for("some kills are counted", |metrics| container.counted(metrics) >= wanted).await?;
        agent.kill().await?;
        agent = stage.start().await?;
    }
    burst.end().await?;
    let metrics = agent.wait_for("all are counted", |metrics| container.counted(metrics) >= f64::from(KILLS)).await?;
    assert_eq!(container.counted(&metrics), f64::from(KILLS));
    let told = stage.told(&container, i64::from(KILLS)).await?;
    assert_eq!((told.events, told.kills), (1, i64::from(KILLS)), "{told}");
    let metrics = agent.metrics().await?;
    assert_eq!(metrics.sum("detector_events_lost_total", &[]), 0.0, "{metrics:?}");
    // Others may cause kills, too: what counts is that the agent agrees with the kernel.
    let of_kernel = |before| detector_provoke::vmstat_kills().map(|now| now - before);
    agent
        .wait_for("the node's count is the kernel's", |metrics| {
            of_kernel(before).is_ok_and(|kills| of_node(metrics) == kills as f64)
        })
        .await
        .context(format!("the kernel counted {} kills", of_kernel(before)?))?;
    agent.stop().await?;
    let agent = stage.start().await?;
    let metrics = agent.metrics().await?;
    assert_eq!(container.counted(&metrics), f64::from(KILLS), "after one more restart");
    agent.stop().await?;
    Ok(())
}

#[tokio::test]
async fn what_happens_while_no_agent_runs_is_told_by_the_next_one() -> Result<()> {
    let stage = Stage::set("absent").await?;
    let container = stage.container("eats", 0)?;
    stage.start().await?.kill().await?;
    let start = std::time::SystemTime::now();
    container.kills(3).await?;
    let end = std::time::SystemTime::now();
    let agent = stage.start().await?;
    agent.wait_for("all are counted", |metrics| container.counted(metrics) == 3.0).await?;
    let told = stage.told(&container, 3).await?;
    assert_eq!((told.events, told.kills), (1, 3));
    ensure!(told.first >= Some(start) && told.last <= Some(end), "{told}; they were from {start:?} to {end:?}");
    agent.stop().await?;
    Ok(())
}
