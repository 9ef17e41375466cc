//! The agent on the rig's nodes: installed as users install it, once for all tests of a run.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use kube::{Api, api::ListParams};
use tokio::sync::OnceCell;

use crate::{Rig, namespace::all_run, wait};

/// Namespace of the install.
pub const NAMESPACE: &str = "detector";

/// Name of its DaemonSet.
pub const DAEMON_SET: &str = "detector-agent";

/// Where the agent of a node serves its metrics.
pub const METRICS_PORT: u16 = 20257;

/// Where it serves `/readyz` and `/livez`.
pub const HEALTH_PORT: u16 = 20256;

/// Begins the agent's settings in the manifests.
const SETTINGS: &str = "  config.yaml: |\n";

/// What the tests set differently: they run side by side and share each node's budget, whose default is made for one
/// fault at a time. The budget of a pod is the default.
const OWN_SETTINGS: &str = "    events:\n      nodeBudget:\n        burst: 500\n        every: 1s\n";

/// Whether this process has installed it.
static INSTALLED: OnceCell<()> = OnceCell::const_new();

impl Rig {
    /// Installs the agent by `deploy/detector.yaml`, unless this run has, and waits until it is ready on all nodes.
    ///
    /// # Errors
    /// The rig has no image of it, the API server refuses, or it does not become ready in time.
    pub async fn agent(&self) -> Result<()> {
        INSTALLED.get_or_try_init(|| self.install()).await.map(drop)
    }

    async fn install(&self) -> Result<()> {
        ensure!(self.facts.images.detector.is_some(), "this rig was started without the product's image");
        for node in self.nodes() {
            node.ready().await?;
        }
        self.apply(&manifests()?).await.context("install the agent")?;
        let sets: Api<DaemonSet> = self.api(NAMESPACE);
        let wanted = i32::try_from(self.facts.nodes.len()).context("count the nodes")?;
        let is_up = |set: Option<&DaemonSet>| {
            let status = set.and_then(|set| set.status.clone()).unwrap_or_default();
            status.number_ready == wanted && status.updated_number_scheduled == Some(wanted)
        };
        let waited = wait::until(&sets, DAEMON_SET, "the agent is ready on all nodes", wait::POD_PATIENCE, is_up).await;
        if waited.is_err() {
            // Why it is not stands in the pods, not in the DaemonSet.
            let said = self.kubectl(&["--namespace", NAMESPACE, "describe", "pods"]).await.unwrap_or_default();
            return waited.map(drop).with_context(|| said);
        }
        Ok(())
    }

    /// The agent's pod on a node, once it is ready.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn agent_pod(&self, node: &str) -> Result<Pod> {
        let pods: Api<Pod> = self.api(NAMESPACE);
        let of_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let what = format!("the agent runs on {node}");
        let list = wait::all(&pods, &of_node, &what, wait::POD_PATIENCE, |pods| pods.iter().any(all_run)).await?;
        list.into_iter().find(all_run).with_context(|| format!("no agent runs on {node}"))
    }
}

/// The install in one file, with the settings of the tests.
fn manifests() -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("find the root of the source tree")?;
    let path = root.join("deploy/detector.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    ensure!(text.matches(SETTINGS).count() == 1, "{} has no settings of the agent", path.display());
    Ok(text.replace(SETTINGS, &format!("{SETTINGS}{OWN_SETTINGS}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_the_tests_are_in_the_install() {
        assert!(manifests().unwrap().contains(&format!("{SETTINGS}{OWN_SETTINGS}    health:")));
    }
}
