//! Another version of the agent takes over.

use std::fs;

use anyhow::{Result, ensure};
use detector_cluster_tests::local::Stage;

/// Kills that the first version has told, and after the upgrade. With its maps the numbers that it gave to records are
/// gone: a version that gave the same again would take the later kills for the earlier ones.
const TOLD: u32 = 20;
const LATE: u32 = 20;

/// Kills at a time: numbers are those of a CPU, and both groups of kills must use all of them.
const PARALLEL: u32 = 4;

/// Fewest agents that are replaced in a storm.
const ROUNDS: u32 = 3;

#[tokio::test]
async fn records_of_another_version_are_counted_as_lost_and_its_producers_are_gone() -> Result<()> {
    let stage = Stage::set("abi").await?;
    let (told, early, late) = (stage.container("told", 2)?, stage.container("early", 0)?, stage.container("late", 1)?);
    let agent = stage.start().await?;
    told.burst(TOLD, PARALLEL)?.end().await?;
    agent.wait_for("the first kills are counted", |metrics| told.counted(metrics) == f64::from(TOLD)).await?;
    stage.told(&told, TOLD.into()).await?;
    agent.stop().await?;
    early.kills(3).await?;
    let pins = stage.place.pins();
    let ours = fs::read_dir(&pins)?.find_map(|entry| {
        let path = entry.ok()?.path();
        path.file_name()?.to_str()?.starts_with("abi-").then_some(path)
    });
    let ours = ours.ok_or_else(|| anyhow::anyhow!("nothing is pinned in {}", pins.display()))?;
    let theirs = pins.join("abi-9");
    fs::rename(&ours, &theirs)?;

    let agent = stage.start().await?;
    let lost = [("stage", "decode"), ("kind", "abi")];
    let metrics = agent.metrics().await?;
    ensure!(metrics.sum("detector_events_lost_total", &lost) >= 3.0, "{metrics:?}");
    ensure!(!theirs.exists() && ours.exists(), "{} is still there", theirs.display());
    late.burst(LATE, PARALLEL)?.end().await?;
    let wanted = f64::from(LATE);
    agent.wait_for("the next kills are counted", |metrics| late.counted(metrics) >= wanted).await?;
    let next = stage.told(&late, LATE.into()).await?;
    assert_eq!((next.events, next.kills), (1, LATE.into()), "{next}");
    // Two producers would have told twice by now.
    let metrics = agent.metrics().await?;
    assert_eq!(late.counted(&metrics), wanted);
    assert_eq!(metrics.sum("detector_records_total", &[("kind", "oom_mark")]), wanted);
    assert_eq!(told.counted(&metrics), f64::from(TOLD), "what was counted before stays");
    agent.stop().await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_that_is_replaced_in_a_storm_leaves_no_gap() -> Result<()> {
    const KILLS: u32 = 800;
    let stage = Stage::set("replaced").await?;
    let container = stage.container("eats", 0)?;
    let mut agent = stage.start().await?;
    let mut burst = container.burst(KILLS, 2)?;
    let mut rounds = 0;
    while !burst.has_ended()? {
        rounds += 1;
        let counted = container.counted(&agent.metrics().await?);
        let wanted = (counted + 40.0).min(f64::from(KILLS));
        agent.wait_for("some kills are counted", |metrics| container.counted(metrics) >= wanted).await?;
        agent.stop().await?;
        agent = stage.start().await?;
    }
    burst.end().await?;
    ensure!(rounds >= ROUNDS, "the storm ended after {rounds} rounds: too slow a machine for this test");
    agent.wait_for("all are counted", |metrics| container.counted(metrics) >= f64::from(KILLS)).await?;
    let told = stage.told(&container, KILLS.into()).await?;
    assert_eq!((told.events, told.kills), (1, KILLS.into()), "{told}");
    assert_eq!(container.counted(&agent.metrics().await?), f64::from(KILLS));
    agent.stop().await?;
    Ok(())
}
