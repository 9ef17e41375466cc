//! Settings that are wrong, at start and while the agent runs.

use std::fs;

use anyhow::{Result, ensure};
use detector_cluster_tests::local::Stage;
use serde_json::json;

/// Exit code of wrong settings (`EX_USAGE` of sysexits(3)).
const USAGE: i32 = 64;

#[tokio::test]
async fn a_wrong_file_at_start_ends_the_agent_with_all_mistakes_in_the_last_words() -> Result<()> {
    let stage = Stage::set("wrong").await?;
    stage.settle(&json!({ "locate": { "hold": "3 parsecs" }, "no-such-key": 1 }))?;
    let status = stage.spawn()?.ended().await?;
    assert_eq!(status.code(), Some(USAGE));
    let words = fs::read_to_string(stage.place.termination())?;
    ensure!(words.contains("locate.hold") && words.contains("3 parsecs"), "{words}");
    ensure!(words.contains("no-such-key"), "{words}");
    Ok(())
}

#[tokio::test]
async fn a_wrong_file_at_reload_leaves_the_settings_in_force_and_a_right_one_is_taken() -> Result<()> {
    let stage = Stage::set("reload").await?;
    let container = stage.container("eats", 0)?;
    let agent = stage.start().await?;
    let reloads = |result| {
        move |metrics: &detector_cluster_tests::Metrics| {
            metrics.sum("detector_config_reloads_total", &[("result", result)]) == 1.0
        }
    };
    stage.settle(&json!({ "log": { "level": "shout" } }))?;
    let metrics = agent.wait_for("the wrong file is refused", reloads("refused")).await?;
    assert_eq!(metrics.sum("detector_config_reloads_total", &[("result", "applied")]), 0.0);
    let log = fs::read_to_string(stage.log())?;
    ensure!(log.contains("log.level") && log.contains("the settings in force stay"), "{log}");
    stage.settle(&json!({ "log": { "format": "text", "level": "debug" } }))?;
    agent.wait_for("the right file is taken", reloads("applied")).await?;
    container.kills(1).await?;
    agent.wait_for("it works on", |metrics| container.counted(metrics) == 1.0).await?;
    stage.told(&container, 1).await?;
    let log = fs::read_to_string(stage.log())?;
    ensure!(log.contains("DEBUG"), "the level was not taken: {log}");
    agent.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_applies_at_restart_changes_nothing_before_it() -> Result<()> {
    let stage = Stage::set("at-restart").await?;
    let container = stage.container("eats", 0)?;
    let agent = stage.start().await?;
    stage.settle(&json!({ "events": { "enabled": false } }))?;
    let applied = |metrics: &detector_cluster_tests::Metrics| {
        metrics.sum("detector_config_reloads_total", &[("result", "applied")]) == 1.0
    };
    agent.wait_for("the file is read", applied).await?;
    container.kills(1).await?;
    stage.told(&container, 1).await?;
    let log = fs::read_to_string(stage.log())?;
    ensure!(log.contains("events.enabled"), "nobody said that it waits: {log}");
    agent.stop().await?;
    Ok(())
}
