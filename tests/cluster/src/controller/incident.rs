//! `KernelIncident` objects as the API server has them, without the product's types: what is tested is what others read.

use std::{borrow::Cow, fmt, time::Duration};

use anyhow::{Context as _, Result};
use k8s_openapi::{ClusterResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wait;

/// An incident.
#[derive(Clone, Serialize, Deserialize)]
pub struct Incident {
    /// Of the object.
    pub metadata: ObjectMeta,
    /// Identity.
    #[serde(default)]
    pub spec: Value,
    /// All else.
    #[serde(default)]
    pub status: Value,
}

/// All incidents.
#[derive(Clone)]
pub struct Incidents {
    api: Api<Incident>,
}

impl Resource for Incident {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "KernelIncident".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "detector.dev".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "kernelincidents".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What matters to a test that waited in vain: a hundred whole incidents would hide it.
impl fmt::Debug for Incident {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |key: &str, fields: [&str; 2]| {
            let entries = self.status[key].as_array().into_iter().flatten();
            let words = entries.map(|entry| fields.map(|field| entry[field].as_str().unwrap_or_default()).join(" "));
            words.collect::<Vec<_>>().join(", ")
        };
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let (phase, cause, message) = (self.text("phase"), self.text("cause"), self.text("message"));
        let (evidence, steps) = (list("evidence", ["id", "message"]), list("steps", ["kind", "state"]));
        let holds = list("holds", ["step", "reason"]);
        write!(formatter, "{name}: {phase} {cause} ({message}); evidence: {evidence}; steps: {steps}; holds: {holds}")
    }
}

impl Incident {
    /// Text at the top of its status; empty if there is none.
    pub fn text(&self, field: &str) -> &str {
        self.status[field].as_str().unwrap_or_default()
    }

    /// When it happened: `spec.time`.
    pub fn time(&self) -> Option<Timestamp> {
        self.spec["time"].as_str()?.parse().ok()
    }

    /// Text of each of `status.possible`.
    pub fn possible(&self) -> Vec<&str> {
        self.status["possible"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// State of a step, if it stands in the journal.
    pub fn step(&self, kind: &str) -> Option<&str> {
        let steps = self.status["steps"].as_array()?;
        steps.iter().find(|step| step["kind"] == kind)?["state"].as_str()
    }

    /// Kinds of all steps in the journal.
    pub fn steps(&self) -> Vec<&str> {
        let steps = self.status["steps"].as_array().into_iter().flatten();
        steps.filter_map(|step| step["kind"].as_str()).collect()
    }

    /// Reason of the hold of a step.
    pub fn hold(&self, kind: &str) -> Option<&str> {
        let holds = self.status["holds"].as_array()?;
        holds.iter().find(|hold| hold["step"] == kind)?["reason"].as_str()
    }

    /// Whether a piece of evidence of this kind is there.
    pub fn has(&self, kind: &str) -> bool {
        self.evidence().any(|entry| entry["kind"] == kind)
    }

    /// All evidence.
    pub fn evidence(&self) -> impl Iterator<Item = &Value> {
        self.status["evidence"].as_array().into_iter().flatten()
    }

    /// Who told evidence of a kind, sorted.
    pub fn witnesses(&self, kind: &str) -> Vec<&str> {
        let of_kind = self.evidence().filter(|entry| entry["kind"] == kind);
        let mut all: Vec<_> = of_kind.filter_map(|entry| entry["id"].as_str()?.split('/').next()).collect();
        all.sort_unstable();
        all
    }
}

impl Incidents {
    pub(super) fn new(client: Client) -> Self {
        Self { api: Api::all(client) }
    }

    /// The objects.
    pub fn api(&self) -> &Api<Incident> {
        &self.api
    }

    /// Those of a node.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn of(&self, node: &str) -> Result<Vec<Incident>> {
        Ok(self.api.list(&selecting(node)).await.context("list incidents")?.items)
    }

    /// All of them.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn all(&self) -> Result<Vec<Incident>> {
        Ok(self.api.list(&ListParams::default()).await.context("list incidents")?.items)
    }

    /// Waits until the only incident of a node is so. Between two looks others may change it.
    ///
    /// # Errors
    /// It is not in time; or there are several.
    pub async fn until(&self, node: &str, what: &str, mut holds: impl FnMut(&Incident) -> bool) -> Result<Incident> {
        let what = format!("the incident of {node}: {what}");
        let first = |all: &[Incident]| all.first().is_some_and(&mut holds);
        let mut all = wait::all(&self.api, &selecting(node), &what, PATIENCE, first).await?;
        anyhow::ensure!(all.len() == 1, "{what}: there are {}: {all:#?}", all.len());
        all.pop().context("an incident")
    }

    /// Waits until all incidents are so, and gives them.
    ///
    /// # Errors
    /// They are not in time.
    pub async fn until_all(&self, what: &str, holds: impl FnMut(&[Incident]) -> bool) -> Result<Vec<Incident>> {
        wait::all(&self.api, &ListParams::default(), what, PATIENCE, holds).await
    }

    pub(super) async fn clear(&self, prefix: &str) -> Result<()> {
        for incident in self.all().await? {
            if incident.spec["node"].as_str().is_some_and(|node| node.starts_with(prefix)) {
                let deleted = self.api.delete(&incident.name_any(), &DeleteParams::default()).await;
                anyhow::ensure!(deleted.is_ok() || wait::refusal(&deleted) == Some(404), "{deleted:?}");
            }
        }
        Ok(())
    }
}

/// How long anything about an incident may take: a Lease of 10 s is stale after 6, a leader that died is replaced after 18.
const PATIENCE: Duration = Duration::from_secs(180);

fn selecting(node: &str) -> ListParams {
    ListParams::default().fields(&format!("spec.node={node}"))
}
