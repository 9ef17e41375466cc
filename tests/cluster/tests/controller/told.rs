//! One panic is one incident, whoever tells it.

use std::time::Duration;

use anyhow::{Result, ensure};
use detector_cluster_tests::controller::{Fleet, Incident, Recording, Stage, policy, send};
use serde_json::{Value, json};

/// What the agent writes after the reboot (`contract::problem::previous_boot`).
pub(super) fn previous_boot(reason: &str, message: &str) -> Value {
    let now = format!("{:.0}", k8s_openapi::jiff::Timestamp::now());
    json!({ "type": "PreviousBootCrash", "status": if reason == "PreviousBootEndedInOrder" { "False" } else { "True" },
        "reason": reason, "message": message, "lastHeartbeatTime": now, "lastTransitionTime": now })
}

#[tokio::test(flavor = "multi_thread")]
async fn one_panic_that_two_replicas_hear_and_the_node_finds_again_is_one_incident() -> Result<()> {
    let stage = Stage::set("told", policy(&json!({ "mode": "dryRun" }))).await?;
    let fleet = Fleet::make(&stage.rig, &stage.namespace.name, 5).await?;
    let (node, namespace) = (&fleet.members[0], &stage.namespace.name);
    fleet.pods(namespace, node, 3).await?;
    let (one, other) = (stage.start().await?, stage.start().await?);

    fleet.silence(node);
    let words = Recording::named("oom-6.12")?.of(&node.name, &node.boot);
    send(node.address, &[one.netconsole, other.netconsole], &words.datagrams)?;
    let both = |incident: &Incident| incident.witnesses("Panic").len() == 2;
    let incident = stage.incidents.until(&node.name, "both tell the panic", both).await?;
    let mut replicas = [one.pod.as_str(), other.pod.as_str()];
    replicas.sort_unstable();
    assert_eq!(incident.witnesses("Panic"), replicas);
    let counted = |incident: &Incident| incident.status["podCount"] == 3;
    let incident = stage.incidents.until(&node.name, "its cause is known and its pods are counted", |incident| {
        incident.text("cause") == "OutOfMemory" && counted(incident)
    });
    let incident = incident.await?;
    assert_eq!(incident.spec["bootId"], node.boot.as_str(), "{incident:#?}");
    let log = incident.status["logs"][0]["text"].as_str().unwrap_or_default();
    ensure!(log.contains("Kernel panic - not syncing") && !log.contains("detector_secret"), "{log}");

    stage.incidents.until(&node.name, "its Lease is stale", |incident| incident.has("LeaseStale")).await?;
    fleet.give_up(node, Duration::ZERO).await?;
    stage.incidents.until(&node.name, "it is dead", |incident| incident.text("phase") == "Dead").await?;
    let message = format!(
        "The boot before ({}) ended in a kernel panic at {:.0}, by pstore (erst): \
         Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled",
        node.boot,
        k8s_openapi::jiff::Timestamp::now()
    );
    let found = previous_boot("KernelPanic", &message);
    fleet.revive(node, &node.next_boot(), Duration::ZERO, Some(found)).await?;
    let incident = stage.incidents.until(&node.name, "the node found it again and is back", |incident| {
        incident.has("FoundPanic") && incident.has("OtherBoot") && incident.text("phase") == "Returned"
    });
    let incident = incident.await?;
    assert_eq!((incident.text("cause"), incident.text("confidence")), ("OutOfMemory", "High"), "{incident:#?}");
    assert_eq!(stage.incidents.all().await?.len(), 1, "one panic is one incident");

    // In dry run all is told and nothing done.
    let node_now = fleet.nodes().get(&node.name).await?;
    ensure!(node_now.spec.and_then(|spec| spec.unschedulable) != Some(true), "a dry run cordons nobody");
    let steps = incident.status["steps"].as_array().cloned().unwrap_or_default();
    ensure!(!steps.is_empty() && steps.iter().all(|step| step["state"] == "Told"), "{steps:#?}");
    one.stop().await?;
    other.stop().await?;
    stage.clear(fleet).await
}
