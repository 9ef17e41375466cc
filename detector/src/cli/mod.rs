//! The command line: one file per subcommand, and the exit codes that tell a script what went wrong.

#[cfg(feature = "agent")]
mod agent;
#[cfg(feature = "controller")]
mod brake;
#[cfg(feature = "agent")]
mod cleanup;
#[cfg(any(feature = "agent", feature = "controller"))]
mod config;
#[cfg(feature = "controller")]
mod controller;
#[cfg(feature = "agent")]
mod doctor;
#[cfg(feature = "controller")]
mod incidents;
#[cfg(feature = "agent")]
mod netconsole;
#[cfg(feature = "agent")]
mod watch;

use std::io::{self, Write as _};

use clap::{Parser, Subcommand};
use thiserror::Error;

/// Tells what the kernel of this machine goes through.
#[derive(Debug, Parser)]
#[command(name = "detector", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the OOM kills and hung tasks of this machine as they happen
    #[cfg(feature = "agent")]
    Watch(watch::Arguments),
    /// Watch this node for a cluster: conditions, events, metrics
    #[cfg(feature = "agent")]
    Agent(agent::Arguments),
    /// Have this node's kernel speak to the controller, so that its last words are heard
    #[cfg(feature = "agent")]
    Netconsole(netconsole::Arguments),
    /// Tell what this machine offers, and by which method each detector runs on it
    #[cfg(feature = "agent")]
    Doctor(doctor::Arguments),
    /// Remove what the agent left behind on this node and in the API; end the agent first
    #[cfg(feature = "agent")]
    Cleanup(cleanup::Arguments),
    /// Hear dying kernels of a cluster, tell why their pods died, and act on it
    #[cfg(feature = "controller")]
    Controller(controller::Arguments),
    /// Show what ended the kernels of a cluster: a table of all incidents, or the timeline of one
    #[cfg(feature = "controller")]
    Incidents(incidents::Arguments),
    /// See, pull or release the controller's brake: while it is pulled, no step is begun but reasons and what takes back
    #[cfg(feature = "controller")]
    Brake(brake::Arguments),
    /// Check files of settings, or print the default one
    #[cfg(any(feature = "agent", feature = "controller"))]
    Config(config::Arguments),
    /// Only to say that they are missing.
    #[cfg(not(feature = "agent"))]
    #[command(hide = true, alias = "doctor")]
    Watch {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _rest: Vec<std::ffi::OsString>,
    },
}

/// Why a subcommand failed. The numbers are those of sysexits(3).
#[derive(Debug, Error)]
pub enum CliError {
    /// What was typed breaks rules: all of them, one a line.
    #[error("{}", .0.join("\n"))]
    Usage(Vec<String>),
    /// This process has not the rights it needs.
    #[error("{0:#}")]
    Rights(anyhow::Error),
    /// This binary or this kernel cannot do it.
    #[error("{0:#}")]
    Unavailable(anyhow::Error),
    /// Anything else.
    #[error("{0:#}")]
    Other(anyhow::Error),
}

/// Exit code of a command line that breaks rules (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

impl CliError {
    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            // EX_NOPERM
            Self::Rights(_) => 77,
            // EX_UNAVAILABLE
            Self::Unavailable(_) => 69,
            Self::Other(_) => 1,
        }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Other(error.into())
    }
}

/// Prints `text` to the end of it, on standard output.
fn print(text: &str) -> Result<(), CliError> {
    written(io::stdout().lock().write_all(text.as_bytes()))
}

/// Who closed the output, as `head` does, has what was wanted.
fn written(result: io::Result<()>) -> Result<(), CliError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

impl Cli {
    /// Runs the subcommand to its end.
    ///
    /// # Errors
    ///
    /// As [`CliError`] tells.
    pub fn run(self) -> Result<(), CliError> {
        match self.command {
            #[cfg(feature = "agent")]
            Command::Watch(arguments) => watch::run(&arguments),
            #[cfg(feature = "agent")]
            Command::Agent(arguments) => agent::run(&arguments),
            #[cfg(feature = "agent")]
            Command::Netconsole(arguments) => netconsole::run(&arguments),
            #[cfg(feature = "agent")]
            Command::Cleanup(arguments) => cleanup::run(&arguments),
            #[cfg(feature = "agent")]
            Command::Doctor(arguments) => doctor::run(&arguments),
            #[cfg(feature = "controller")]
            Command::Controller(arguments) => controller::run(&arguments),
            #[cfg(feature = "controller")]
            Command::Incidents(arguments) => incidents::run(&arguments),
            #[cfg(feature = "controller")]
            Command::Brake(arguments) => brake::run(&arguments),
            #[cfg(any(feature = "agent", feature = "controller"))]
            Command::Config(arguments) => config::run(&arguments),
            #[cfg(not(feature = "agent"))]
            Command::Watch { .. } => Err(CliError::Unavailable(anyhow::anyhow!(
                "this binary was built without the feature `agent`, so that it knows nothing of kernels: build it with \
                 `--features agent`"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[cfg(not(feature = "agent"))]
    #[test]
    fn without_the_agent_watch_says_what_is_missing() {
        let cli = Cli::try_parse_from(["detector", "watch", "--output", "json"]).expect("any arguments");
        let error = cli.run().expect_err("no agent");
        assert_eq!(error.exit_code(), 69);
        assert!(error.to_string().contains("--features agent"), "{error}");
        assert!(!Cli::command().render_help().to_string().contains("watch"));
    }

    #[test]
    fn each_failure_has_its_exit_code() {
        let codes = [
            CliError::Usage(Vec::new()),
            CliError::Rights(anyhow::anyhow!("x")),
            CliError::Unavailable(anyhow::anyhow!("x")),
            CliError::Other(anyhow::anyhow!("x")),
        ];
        assert_eq!(codes.map(|error| error.exit_code()), [64, 77, 69, 1]);
    }

    #[test]
    fn a_failure_tells_its_cause() {
        let error = CliError::Other(anyhow::anyhow!("no such file").context("cannot read x"));
        assert_eq!(error.to_string(), "cannot read x: no such file");
    }
}
