//! `detector cleanup`: what it removes from this node and from the API, and what it says when it cannot.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use detector_cluster_tests::{
    CONDITIONS,
    local::{Place, Stage},
    wait,
};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// How many of the agent's conditions stand on a Node, in whatever form.
fn standing(node: &Node) -> usize {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| CONDITIONS.contains(&condition.type_.as_str())).count()
}

/// Has an agent leave all that it leaves behind.
async fn left_behind(stage: &Stage) -> Result<()> {
    let agent = stage.start().await?;
    let all_stand = |node: Option<&Node>| node.is_some_and(|node| standing(node) == CONDITIONS.len());
    wait::until(&stage.nodes(), &stage.namespace.name, "all conditions stand", wait::PATIENCE, all_stand).await?;
    agent.stop().await?;
    ensure!(files_below(&stage.place.pins()) > 0, "nothing is pinned");
    ensure!(files_below(&stage.place.state()) > 0, "no state is kept");
    Ok(())
}

fn node_is_clean(place: &Place) -> Result<()> {
    ensure!(!place.pins().exists(), "{} is left", place.pins().display());
    ensure!(files_below(&place.state()) == 0, "state is left in {}", place.state().display());
    Ok(())
}

/// Files below a directory; none if there is no such directory.
fn files_below(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

#[tokio::test]
async fn cleanup_leaves_neither_conditions_nor_pins_nor_state_and_may_be_run_again() -> Result<()> {
    let stage = Stage::set("cleanup").await?;
    let node = stage.namespace.name.clone();
    // What another writer has made is not gone with the agent's own fields.
    let theirs = json!({ "type": "TaskHung", "status": "False", "reason": "Other", "message": "by somebody else" });
    let patch = Patch::Strategic(json!({ "status": { "conditions": [theirs] } }));
    stage.nodes().patch_status(&node, &PatchParams::default(), &patch).await?;
    left_behind(&stage).await?;
    for run in ["first", "second"] {
        let output = stage.cleanup().await?;
        ensure!(output.status.code() == Some(0), "the {run} run: {output:?}");
        node_is_clean(&stage.place)?;
        let seen = stage.nodes().get_status(&node).await?;
        ensure!(standing(&seen) == 0, "after the {run} run there is {:?}", seen.status);
    }
    Ok(())
}

#[tokio::test]
async fn cleanup_without_an_api_server_fails_and_leaves_the_node_clean_and_works_once_there_is_one() -> Result<()> {
    let mut stage = Stage::set("cut").await?;
    left_behind(&stage).await?;
    stage.proxy.cut().await;
    let output = stage.cleanup().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    ensure!(said.contains("removing the conditions of Node") && said.contains("may be run again"), "{said}");
    node_is_clean(&stage.place)?;
    let node = stage.nodes().get_status(&stage.namespace.name).await?;
    assert_eq!(standing(&node), CONDITIONS.len(), "the API server was not away");
    stage.proxy.join().await?;
    let output = stage.cleanup().await?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let node = stage.nodes().get_status(&stage.namespace.name).await?;
    assert_eq!(standing(&node), 0, "{:?}", node.status);
    Ok(())
}
