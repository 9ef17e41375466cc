//! `detector netconsole`: keeps netconsole's targets to the controller.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::{
    cli::{CliError, print},
    config::netconsole::{NETCONSOLE, NetconsoleConfig},
    netconsole::{self, Start, preview},
    ops::{log, termination},
};

/// What was typed.
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {
    /// Settings (`detector config default --for netconsole` prints them all); without it the defaults hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to reach the API server; without it the pod's service account counts, or $KUBECONFIG
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
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
    let _log = log::open(&config.log).context("opening the log").map_err(CliError::Other)?;
    let start = Start { config, kubeconfig: arguments.kubeconfig.clone() };
    if arguments.dry_run {
        let page = preview::preview(&start).map_err(|error| CliError::Other(error.into()))?;
        return print(&page);
    }
    netconsole::serve(start).map_err(|error| {
        let error = anyhow::Error::from(error);
        termination::leave(&arguments.termination_log, &format!("{error:#}")).ok();
        CliError::Other(error)
    })
}

impl Arguments {
    fn load(&self) -> Result<NetconsoleConfig, Vec<String>> {
        match &self.config {
            Some(path) => NETCONSOLE.load(path).map_err(|mistakes| mistakes.lines().collect()),
            None => Ok(NetconsoleConfig::default()),
        }
    }
}
