//! `detector controller`: hears dying kernels, writes down what ended them, and acts on it.

use std::{env, fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::{
    cli::CliError,
    cluster,
    config::controller::{self, ControllerConfig},
    controller::service::{self, Start},
    ops::{log, termination},
};

/// What was typed.
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {
    /// Settings (`detector config default --for controller` prints them all); without it the defaults hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to reach the API server; without it the pod's service account counts, or $KUBECONFIG
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Name of this replica, another for each; without it the hostname
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    replica: Option<String>,
    /// Where the leader's Lease and the brake are; without it the namespace of this pod, else `detector`
    #[arg(long, short, value_name = "NAME", env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// Where the last words are left for `kubectl describe pod`, if the settings are wrong
    #[arg(long, value_name = "FILE", default_value = termination::DEFAULT_PATH, env = "DETECTOR_TERMINATION_LOG")]
    termination_log: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let config = arguments.load().map_err(|mistakes| {
        // Only a courtesy: there may be no such file.
        termination::leave(&arguments.termination_log, &mistakes.join("\n")).ok();
        CliError::Usage(mistakes)
    })?;
    let replica = arguments.replica().context("finding a name for this replica").map_err(CliError::Other)?;
    let log = log::open(&config.log).context("opening the log").map_err(CliError::Other)?;
    let start = Start {
        config,
        file: arguments.config.clone(),
        kubeconfig: arguments.kubeconfig.clone(),
        replica,
        namespace: arguments.namespace.clone().unwrap_or_else(cluster::own_namespace),
        log,
    };
    service::serve(start).map_err(|error| {
        let error = anyhow::Error::from(error);
        termination::leave(&arguments.termination_log, &format!("{error:#}")).ok();
        CliError::Other(error)
    })
}

impl Arguments {
    fn load(&self) -> Result<ControllerConfig, Vec<String>> {
        match &self.config {
            Some(path) => controller::load(path).map_err(|mistakes| mistakes.lines().collect()),
            None => Ok(ControllerConfig::default()),
        }
    }

    fn replica(&self) -> anyhow::Result<String> {
        if let Some(name) = self.replica.clone().filter(|name| !name.is_empty()) {
            return Ok(name);
        }
        // Inside of a pod it is the pod's name, or with the host's network the node's.
        let name = match env::var("HOSTNAME") {
            Ok(name) if !name.is_empty() => name,
            _ => fs::read_to_string("/proc/sys/kernel/hostname").context("reading the hostname")?,
        };
        Ok(name.trim().to_lowercase())
    }
}
