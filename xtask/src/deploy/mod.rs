//! What `deploy/` has that is made from something else, and the checks of the rest.
//!
//! The chart is the source of the plain YAML; `deploy/monitoring` is the source of the alerts and dashboards, and
//! `deploy/crd` of the definition of incidents, of which the chart needs copies, because Helm reads nothing outside of a
//! chart.

mod check;
mod manifest;
mod values;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

pub(crate) use check::{check, write_renderings};

use crate::{process, toolchain::helm, workspace};

const CHART: &str = "deploy/chart";
const MONITORING: &str = "deploy/monitoring";

/// Name of the release in the plain YAML, and of its namespace.
const RELEASE: &str = "detector";

/// A file that is made, and how.
pub(crate) type Made = (&'static str, fn() -> Result<String>);

/// All files of `deploy/` that are made.
pub(crate) const MADE: &[Made] = &[
    ("deploy/chart/files/alerts.yaml", || source("alerts.yaml")),
    ("deploy/chart/files/dashboards/agent.json", || source("dashboards/agent.json")),
    ("deploy/chart/files/dashboards/nodes.json", || source("dashboards/nodes.json")),
    ("deploy/chart/files/dashboards/oom.json", || source("dashboards/oom.json")),
    ("deploy/chart/files/dashboards/incidents.json", || source("dashboards/incidents.json")),
    ("deploy/chart/files/kernelincidents.yaml", || read(&path("deploy/crd/kernelincidents.yaml"))),
    ("deploy/chart/README.md", values_reference),
    ("deploy/detector.yaml", plain),
    ("deploy/controller.yaml", || part(CONTROLLER_HEADER, "controller")),
    ("deploy/netconsole.yaml", || part(NETCONSOLE_HEADER, "netconsole")),
    ("deploy/monitoring/operator.yaml", for_operator),
];

const PLAIN_HEADER: &str = "\
# detector with the default values of its chart, made from deploy/chart by `cargo xtask gen`.
#
#   kubectl apply --server-side -f detector.yaml
#
# The admission policies stand before the rights that they narrow. docs/install.md tells how to upgrade and remove it.
";

const CONTROLLER_HEADER: &str = "\
# `detector controller` with the default values of the chart, made from deploy/chart by `cargo xtask gen`.
#
#   kubectl apply --server-side -f controller.yaml
#
# It writes down what it hears and sees, and does nothing to nodes and pods: what it is given no right to follows from
# `policy` in its settings. docs/remediation.md tells how to let it act; that takes the chart, which gives the rights.
";

const NETCONSOLE_HEADER: &str = "\
# `detector netconsole` with the default values of the chart, made from deploy/chart by `cargo xtask gen`.
#
#   kubectl apply --server-side -f netconsole.yaml
#
# Nodes need the kernel module netconsole and configfs (docs/netconsole.md), and detector-controller to speak to.
";

const OPERATOR_HEADER: &str = "\
# Scraping and alerts for the Prometheus operator, beside deploy/detector.yaml, deploy/controller.yaml and
# deploy/netconsole.yaml. Made from deploy/chart by `cargo xtask gen`.
";

fn path(name: &str) -> PathBuf {
    workspace::root().join(name)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn source(name: &str) -> Result<String> {
    read(&path(MONITORING).join(name))
}

fn values_reference() -> Result<String> {
    values::reference(&read(&path(CHART).join("values.yaml"))?)
}

/// The install of one file.
fn plain() -> Result<String> {
    let rendered = render(&["--set", "namespace.create=true"])?;
    Ok(format!("{PLAIN_HEADER}{}", manifest::ordered(&rendered)?))
}

/// What a program besides the agent consists of, in one file: all of its folder of templates.
fn part(header: &str, name: &str) -> Result<String> {
    let (templates, sets) = (format!("templates/{name}/*.yaml"), format!("namespace.create=true,{name}.enabled=true"));
    let rendered = render(&["--show-only", "templates/namespace.yaml", "--show-only", &templates, "--set", &sets])?;
    Ok(format!("{header}{}", manifest::ordered(&rendered)?))
}

fn for_operator() -> Result<String> {
    let sets = "monitoring.serviceMonitor.enabled=true,monitoring.prometheusRule.enabled=true,controller.enabled=true,\
                netconsole.enabled=true";
    let mut words = vec!["--set", sets];
    for template in ["templates/monitoring.yaml", "templates/*/monitoring.yaml"] {
        words.extend(["--show-only", template]);
    }
    let rendered = render(&words)?;
    Ok(format!("{OPERATOR_HEADER}{}", manifest::ordered(&rendered)?))
}

/// What `helm template` makes of the chart.
fn render(words: &[&str]) -> Result<String> {
    process::capture(helm(&["template", RELEASE])?.arg(path(CHART)).args(words), "render the chart")
}

/// Helm without the user's settings, repositories and plugins.
fn helm(words: &[&str]) -> Result<Command> {
    let mut command = Command::new(helm::ensure()?);
    let home = workspace::target().join("helm");
    for (variable, part) in [("HELM_CONFIG_HOME", "config"), ("HELM_CACHE_HOME", "cache"), ("HELM_DATA_HOME", "data")] {
        command.env(variable, home.join(part));
    }
    command.args(words).args(["--namespace", RELEASE]);
    Ok(command)
}
