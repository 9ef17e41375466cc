//! Whatever values a user may give the chart, the API server takes the manifests that come of it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::Rig;

/// Kinds of the Prometheus operator, which this cluster does not have.
const FOREIGN: &str = "apiVersion: monitoring.coreos.com/";

/// The documents that this cluster has kinds for, in a namespace that is there: nothing is made by a dry run.
fn ours(rendered: &str, namespace: &str) -> String {
    let documents = rendered.split("---\n").filter(|document| document.contains("kind: "));
    let ours = documents.filter(|document| !document.contains(FOREIGN));
    let text: String = ours.map(|document| format!("---\n{document}\n")).collect();
    text.replace("namespace: detector\n", &format!("namespace: {namespace}\n"))
}

/// Values and what comes of them, as xtask wrote it.
fn renderings(directory: &Path) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry.context("list the renderings")?.path();
        let values = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        all.push((values, fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?));
    }
    Ok(all)
}

#[tokio::test]
async fn the_api_server_takes_what_the_chart_makes_of_each_set_of_values() -> Result<()> {
    let rig = Rig::connect().await?;
    let namespace = rig.namespace("values").await?;
    let renderings = renderings(&rig.facts.renderings)?;
    ensure!(!renderings.is_empty(), "{} is empty", rig.facts.renderings.display());
    let mut refused = Vec::new();
    for (values, rendered) in &renderings {
        let words = ["apply", "--server-side", "--dry-run=server", "--filename", "-"];
        match rig.kubectl_with(&words, &ours(rendered, &namespace.name)).await {
            Ok(said) => ensure!(said.contains("daemonset.apps/"), "{values}: it has no DaemonSet: {said}"),
            Err(error) => refused.push(format!("{values}: {error:#}")),
        }
    }
    ensure!(refused.is_empty(), "the API server refuses:\n{}", refused.join("\n"));
    println!("{} sets of values", renderings.len());
    Ok(())
}

#[test]
fn kinds_of_the_operator_are_left_out() {
    let rendered = "---\n# Source: a\nkind: A\nmetadata:\n  namespace: detector\n---\n\
                    apiVersion: monitoring.coreos.com/v1\nkind: B\n";
    let ours = ours(rendered, "other");
    assert!(ours.contains("kind: A") && ours.contains("namespace: other\n") && !ours.contains("kind: B"), "{ours}");
}
