//! `detector brake`: tells whether the controller's brake is pulled, pulls it, releases it.
//!
//! The controller pulls it by itself when more nodes die within an hour than its budget allows, and never releases it.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::{
    cli::{CliError, print},
    clock::{WallClock, boot_ns},
    cluster,
    controller::remediation::brake::{self, Brake},
    text,
};

/// What was typed.
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Namespace of the controller; without it that of this pod, else `detector`
    #[arg(long, short, value_name = "NAME", global = true)]
    namespace: Option<String>,
    /// How to reach the API server; without it the pod's service account counts, or $KUBECONFIG
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Tell whether it is pulled, and why
    Status,
    /// Pull it: until it is released no step is begun, but for reasons and what takes back; steps under way are finished
    Pull {
        /// Why, for those who find it pulled
        #[arg(long, value_name = "TEXT", default_value = "pulled by hand")]
        reason: String,
    },
    /// Release it
    Release {
        /// Who releases it; without it $USER
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let brake = runtime.block_on(ask(arguments)).map_err(CliError::Other)?;
    print(&format!("{}\n", told(&brake)))
}

async fn ask(arguments: &Arguments) -> Result<Brake> {
    let access = cluster::connect(arguments.kubeconfig.clone()).await.context("connecting to the API server")?;
    let namespace = arguments.namespace.clone().unwrap_or_else(cluster::own_namespace);
    let (client, now) = (&access.client, WallClock::measure().time(boot_ns()));
    let brake = match &arguments.command {
        Command::Status => brake::read(client, &namespace).await,
        Command::Pull { reason } => brake::pull(client, &namespace, reason, "", now).await,
        Command::Release { by } => {
            let who = by.clone().or_else(|| env::var("USER").ok()).unwrap_or_else(|| "a person".to_owned());
            brake::release(client, &namespace, &who, now).await
        }
    };
    brake.with_context(|| format!("in the namespace {namespace}"))
}

/// What people are told; foreign text is made harmless to their terminal.
fn told(brake: &Brake) -> String {
    let with = |word: &str, value: Option<String>| value.map(|value| format!(" {word} {value}")).unwrap_or_default();
    let harmless = |value: &Option<String>| value.as_deref().map(text::harmless);
    let at = |time: Option<jiff::Timestamp>| time.map(|time| format!("{time:.0}"));
    if brake.pulled {
        let reason = harmless(&brake.reason).map(|reason| format!(": {reason}")).unwrap_or_default();
        let incident = with("for the incident", harmless(&brake.incident));
        return format!("pulled{}{incident}{reason}", with("at", at(brake.pulled_at)));
    }
    let released = (brake.released_at.is_some() || brake.released_by.is_some()).then(|| {
        format!("; released{}{}", with("at", at(brake.released_at)), with("by", harmless(&brake.released_by)))
    });
    format!("not pulled{}", released.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulled() -> Brake {
        Brake {
            pulled: true,
            reason: Some("6 nodes were remediated\x1b[2J".to_owned()),
            incident: Some("node-a-0f3c".to_owned()),
            pulled_at: "2026-11-22T12:00:00Z".parse().ok(),
            ..Brake::default()
        }
    }

    #[test]
    fn a_person_is_told_why_it_is_pulled() {
        assert_eq!(
            told(&pulled()),
            "pulled at 2026-11-22T12:00:00Z for the incident node-a-0f3c: 6 nodes were remediated\u{fffd}[2J"
        );
    }

    #[test]
    fn a_person_is_told_who_released_it() {
        assert_eq!(told(&Brake::default()), "not pulled");
        let released_at = "2026-11-22T13:00:00Z".parse().ok();
        let brake = Brake { pulled: false, released_at, released_by: Some("ann".to_owned()), ..pulled() };
        assert_eq!(told(&brake), "not pulled; released at 2026-11-22T13:00:00Z by ann");
    }
}
