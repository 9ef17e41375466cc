//! A namespace that is deleted while kills in it wait to be told.

use anyhow::{Context as _, Result};
use detector_cluster_tests::{Metrics, local::Stage, wait};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

/// Keeps a namespace from being gone before a test has seen it being terminated.
const FINALIZER: &str = "detector.dev/test";

/// Kills in the namespace that goes.
const KILLS: u32 = 3;

fn waiting(metrics: &Metrics) -> f64 {
    metrics.sum("detector_queue_depth", &[("queue", "event")])
}

#[tokio::test]
async fn kills_in_a_namespace_that_is_being_terminated_are_given_up_and_hold_up_no_other() -> Result<()> {
    let mut stage = Stage::set("stays").await?;
    let doomed = stage.rig.namespace("goes").await?;
    let maps: Api<ConfigMap> = doomed.api();
    let anchor = json!({ "metadata": { "name": "anchor", "finalizers": [FINALIZER] } });
    maps.create(&PostParams::default(), &serde_json::from_value(anchor)?).await.context("hold the namespace")?;
    let (gone, stays) = (stage.pod_of_one(&doomed, "gone", 1)?, stage.container("stays", 0)?);
    let agent = stage.start().await?;
    stage.proxy.cut().await;
    gone.kills(KILLS).await?;
    agent.wait_for("the kills wait", |metrics| waiting(metrics) >= f64::from(KILLS)).await?;

    let namespaces: Api<Namespace> = Api::all(stage.rig.client.clone());
    namespaces.delete(&doomed.name, &DeleteParams::default()).await.context("delete the namespace")?;
    let is_terminating = |namespace: Option<&Namespace>| {
        let phase = namespace.and_then(|namespace| namespace.status.as_ref()?.phase.as_deref());
        phase == Some("Terminating")
    };
    wait::until(&namespaces, &doomed.name, "it is being terminated", wait::PATIENCE, is_terminating).await?;
    stage.proxy.join().await?;
    let given_up = [("kind", "pod_event"), ("result", "gone")];
    let is_over =
        |metrics: &Metrics| metrics.sum("detector_api_writes_total", &given_up) == 1.0 && waiting(metrics) == 0.0;
    agent.wait_for("the kills are given up", is_over).await?;
    stays.kills(1).await?;
    let told = stage.told(&stays, 1).await?;
    assert_eq!((told.events, told.kills), (1, 1), "{told}");
    let metrics = agent.metrics().await?;
    assert_eq!(metrics.sum("detector_events_lost_total", &[]), 0.0, "it is no error: {metrics:?}");
    assert_eq!(gone.counted(&metrics), f64::from(KILLS), "the metric has them all the same");

    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("anchor", &PatchParams::default(), &free).await.context("let the namespace go")?;
    agent.stop().await?;
    Ok(())
}
