//! `detector incidents`: what ended the kernels of a cluster: a table of all, or the timeline of one.

mod page;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind, Status},
};

use self::page::Happening;
use crate::{
    cli::{CliError, print},
    clock::{WallClock, boot_ns},
    cluster,
    contract::incident::KernelIncident,
    ops::screen::Screen,
};

/// Incidents of one page of a list.
const PAGE: u32 = 100;
/// Incidents that are shown at most.
const MOST: usize = 10_000;
/// Events about one incident that are shown at most; each step and hold has one.
const EVENTS: u32 = 200;
/// What is said where the definition is missing.
const NOT_DEFINED: &str = "this cluster has no incidents: their definition, which comes with the controller \
                           (controller.enabled of the chart, or deploy/controller.yaml), is not installed";
/// Namespace of events about what has none.
const EVENTS_NAMESPACE: &str = "default";

/// What was typed.
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {
    /// Show the timeline of this incident; without it a table of all, the newest first
    name: Option<String>,
    /// `json`: the objects as they stand
    #[arg(long, short, value_name = "FORM", value_parser = ["table", "json"], default_value = "table")]
    output: String,
    /// How to reach the API server; without it the pod's service account counts, or $KUBECONFIG
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let page = runtime.block_on(page(arguments)).map_err(CliError::Other)?;
    print(&page)
}

async fn page(arguments: &Arguments) -> Result<String> {
    let access = cluster::connect(arguments.kubeconfig.clone()).await.context("connecting to the API server")?;
    let api: Api<KernelIncident> = Api::all(access.client.clone());
    let (json, now) = (arguments.output == "json", WallClock::measure().time(boot_ns()));
    match &arguments.name {
        Some(name) => {
            let incident =
                api.get(name).await.map_err(explained).with_context(|| format!("reading the incident {name}"))?;
            if json {
                return text(&incident);
            }
            // Whoever may read incidents may not read events: the rest is shown all the same.
            let events = events(access.client, name).await.unwrap_or_else(|cause| {
                eprintln!("detector: events about {name} are not shown: {cause:#}");
                Vec::new()
            });
            Ok(page::timeline(&incident, &events, now, Screen::of_standard_output()))
        }
        None => {
            let all = list(&api).await.map_err(explained).context("listing incidents")?;
            if json { text(&all) } else { Ok(page::table(&all, now, Screen::of_standard_output())) }
        }
    }
}

fn text(value: &impl serde::Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// The API server's answer; in words where it only says that it knows no such path.
fn explained(error: kube::Error) -> anyhow::Error {
    let is_unknown = matches!(&error, kube::Error::Api(status) if status.code == 404 && !names_an_object(status));
    let error = anyhow::Error::from(error);
    if is_unknown { error.context(NOT_DEFINED) } else { error }
}

/// Whether it is an object that is not there, and not the definition of its kind.
fn names_an_object(status: &Status) -> bool {
    status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

/// All of them, the newest first.
async fn list(api: &Api<KernelIncident>) -> Result<Vec<KernelIncident>, kube::Error> {
    let (mut all, mut token) = (Vec::new(), None);
    loop {
        let mut params = ListParams::default().limit(PAGE);
        params.continue_token = token;
        let list = api.list(&params).await?;
        all.extend(list.items);
        token = list.metadata.continue_.filter(|token| !token.is_empty());
        if token.is_none() || all.len() >= MOST {
            break;
        }
    }
    all.sort_by(|one, other| {
        other.spec.time.0.cmp(&one.spec.time.0).then_with(|| one.metadata.name.cmp(&other.metadata.name))
    });
    Ok(all)
}

/// What was told as events about the incident.
async fn events(client: Client, incident: &str) -> Result<Vec<Happening>> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Event"));
    let api: Api<DynamicObject> = Api::namespaced_with(client, EVENTS_NAMESPACE, &resource);
    let fields = format!("involvedObject.kind=KernelIncident,involvedObject.name={incident}");
    let list = api.list(&ListParams::default().fields(&fields).limit(EVENTS)).await?;
    let happening = |event: DynamicObject| {
        let word = |key: &str| event.data.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        let at = word("eventTime").or_else(|| word("lastTimestamp"))?.parse().ok()?;
        let (reason, message) = (word("reason").unwrap_or_default(), word("message").unwrap_or_default());
        Some(Happening {
            at,
            kind: "event",
            what: reason,
            text: message,
            bad: word("type").as_deref() == Some("Warning"),
        })
    };
    Ok(list.items.into_iter().filter_map(happening).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(details: &str) -> String {
        let text =
            format!(r#"{{"status":"Failure","code":404,"message":"x","reason":"NotFound","details":{details}}}"#);
        format!("{:#}", explained(kube::Error::Api(Box::new(serde_json::from_str(&text).expect("a status")))))
    }

    #[test]
    fn a_missing_definition_is_told_from_a_missing_incident() {
        assert!(answer("{}").contains("is not installed"));
        assert!(!answer(r#"{"name":"node-1-x","kind":"kernelincidents"}"#).contains("is not installed"));
    }
}
