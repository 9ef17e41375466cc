//! The places where the agent keeps what must survive are broken: it works on and says so.

use std::{fs, pin::pin, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use detector_cluster_tests::local::Stage;
use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, WatchEvent, WatchParams},
};
use serde_json::json;

/// Size of a disk that is too small once something else has filled it.
const DISK: u64 = 256 << 10;

/// How long the first write of an agent that has just started may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_full_disk_is_told_and_what_was_counted_is_saved_once_there_is_room() -> Result<()> {
    let stage = Stage::set("full").await?;
    let container = stage.container("eats", 0)?;
    stage.place.small_disk(DISK)?;
    let filler = stage.place.state().join("filler");
    // As much as there is room for.
    let filled = fs::write(&filler, vec![b'x'; usize::try_from(2 * DISK)?]);
    ensure!(filled.is_err(), "the disk is not full");
    let agent = stage.start().await?;
    container.kills(2).await?;
    let full = [("reason", "disk_full")];
    let told = |metrics: &detector_cluster_tests::Metrics| {
        container.counted(metrics) == 2.0 && metrics.sum("detector_state_write_failures_total", &full) > 0.0
    };
    agent.wait_for("the kills are counted and the failure, too", told).await?;
    assert_eq!(stage.told(&container, 2).await?.kills, 2);
    fs::remove_file(&filler).context("make room")?;
    container.kills(1).await?;
    agent.wait_for("the third is counted", |metrics| container.counted(metrics) == 3.0).await?;
    let saved = stage.place.state().join("state.json");
    agent.wait_for("it is saved", |_| fs::metadata(&saved).is_ok_and(|file| file.len() > 0)).await?;
    agent.kill().await?;
    let agent = stage.start().await?;
    agent.wait_for("all are known", |metrics| container.counted(metrics) == 3.0).await?;
    let told = stage.told(&container, 3).await?;
    assert_eq!((told.events, told.kills), (1, 3), "{told}");
    agent.stop().await?;
    Ok(())
}

#[tokio::test]
async fn on_a_read_only_bpf_file_system_the_agent_works_and_says_that_nothing_is_kept() -> Result<()> {
    let stage = Stage::set("readonly").await?;
    let container = stage.container("eats", 0)?;
    stage.place.make_bpf_read_only()?;
    let agent = stage.start().await?;
    container.kills(2).await?;
    agent.wait_for("the kills are counted", |metrics| container.counted(metrics) == 2.0).await?;
    assert_eq!(stage.told(&container, 2).await?.kills, 2);
    let log = fs::read_to_string(stage.log())?;
    ensure!(log.contains("making the directory"), "the log does not say why nothing is kept: {log}");
    agent.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_damaged_state_is_set_aside_and_counts_begin_anew() -> Result<()> {
    let stage = Stage::set("damaged").await?;
    let container = stage.container("eats", 0)?;
    let agent = stage.start().await?;
    container.kills(2).await?;
    agent.wait_for("the kills are counted", |metrics| container.counted(metrics) == 2.0).await?;
    stage.told(&container, 2).await?;
    agent.stop().await?;
    let file = stage.place.state().join("state.json");
    let bytes = fs::read(&file)?;
    fs::write(&file, &bytes[..bytes.len() / 2])?;
    let agent = stage.start().await?;
    ensure!(stage.place.state().join("state.json.damaged").exists(), "it was not set aside");
    container.kills(1).await?;
    let metrics = agent.wait_for("the next is counted", |metrics| container.counted(metrics) >= 1.0).await?;
    ensure!(container.counted(&metrics) <= 3.0, "{metrics:?}");
    let told = stage.told(&container, 3).await?;
    assert_eq!(told.kills, 3, "{told}");
    agent.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_second_agent_is_refused_and_the_first_works_on() -> Result<()> {
    let stage = Stage::set("second").await?;
    let container = stage.container("eats", 0)?;
    let agent = stage.start().await?;
    // At another port: what it is refused for is the state.
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    stage.place.write_settings(&stage.place.settings(free))?;
    let status = stage.spawn()?.ended().await?;
    assert_eq!(status.code(), Some(1));
    let words = fs::read_to_string(stage.place.termination())?;
    ensure!(words.contains("another agent uses this directory"), "its last words: {words}");
    stage.place.write_settings(&stage.place.settings(stage.port))?;
    container.kills(1).await?;
    agent.wait_for("the first counts", |metrics| container.counted(metrics) == 1.0).await?;
    agent.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_damaged_state_shows_no_false_where_somebody_has_set_true() -> Result<()> {
    let stage = Stage::set("adopted").await?;
    let container = stage.container("eats", 0)?;
    let agent = stage.start().await?;
    let nodes: Api<Node> = Api::all(stage.rig.client.clone());
    let named = WatchParams::default().fields(&format!("metadata.name={}", stage.namespace.name));
    let is_written = |node: Option<&Node>| node.and_then(condition).is_some_and(|found| found.status == "False");
    detector_cluster_tests::wait::until(&nodes, &stage.namespace.name, "it is written", PATIENCE, is_written).await?;
    // So that there is a state.
    container.kills(1).await?;
    agent.wait_for("the kill is counted", |metrics| container.counted(metrics) == 1.0).await?;
    agent.stop().await?;
    let words = json!({ "type": "TaskHung", "status": "True", "reason": "AdminSaysSo", "message": "do not touch" });
    let patch = Patch::Strategic(json!({ "status": { "conditions": [words] } }));
    let node = nodes.patch_status(&stage.namespace.name, &PatchParams::default(), &patch).await.context("set it")?;
    let version = node.resource_version().context("a Node without a version")?;
    let saved = stage.place.state().join("state.json");
    let bytes = fs::read(&saved)?;
    fs::write(&saved, &bytes[..bytes.len() / 2])?;
    let agent = stage.start().await?;
    let mut changes = pin!(nodes.watch(&named, &version).await?);
    loop {
        let Some(change) = tokio::time::timeout(PATIENCE, changes.try_next()).await.context("nothing is written")??
        else {
            bail!("the watch ended");
        };
        let WatchEvent::Modified(node) = change else { continue };
        let condition = condition(&node).context("the condition is gone")?;
        assert_eq!(condition.status, "True", "{condition:?}");
        let message = condition.message.clone().unwrap_or_default();
        if message == "stood before the agent started, is being verified: do not touch" {
            assert_eq!(condition.reason.as_deref(), Some("TaskHung"));
            break;
        }
    }
    agent.stop().await?;
    Ok(())
}

fn condition(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "TaskHung")
}
