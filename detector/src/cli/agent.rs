//! `detector agent`: watches this node for a cluster.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::{
    agent::{
        Failure,
        service::{self, Start},
        sink::{Units, json::Json},
    },
    cli::CliError,
    config::{self, Config},
    ops::{capability::Rights, lines::Lines, log, termination},
};

/// What was typed.
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {
    /// Settings (`detector config default` prints them all); without it the defaults hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to reach the API server; without it the pod's service account counts, or $KUBECONFIG
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
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
    let log = log::open(&config.log).context("opening the log").map_err(CliError::Other)?;
    // The runtime that reads it may be what hangs.
    let lines = Lines::of_standard_output();
    let lines_dropped = lines.dropped();
    let start = Start {
        config,
        file: arguments.config.clone(),
        kubeconfig: arguments.kubeconfig.clone(),
        log,
        lines: Box::new(Json::new(lines, Units::of_this_machine())),
        lines_dropped,
    };
    service::serve(start).map_err(|error| {
        let failure = error.failure();
        let error = anyhow::Error::from(error);
        termination::leave(&arguments.termination_log, &format!("{error:#}")).ok();
        failed(failure, error)
    })
}

fn failed(failure: Failure, error: anyhow::Error) -> CliError {
    let missing = Rights::of_this_process().ok().and_then(Rights::missing_for_probes);
    match (failure, missing) {
        (Failure::Denied, Some(missing)) => CliError::Rights(error.context(missing)),
        (Failure::Denied | Failure::Unavailable, _) => CliError::Unavailable(error),
        (Failure::OutputClosed | Failure::Other, _) => CliError::Other(error),
    }
}

impl Arguments {
    fn load(&self) -> Result<Config, Vec<String>> {
        match &self.config {
            Some(path) => config::load(path).map_err(|mistakes| mistakes.lines().collect()),
            None => Ok(Config::default()),
        }
    }
}
