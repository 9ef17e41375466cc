//! `detector cleanup`: removes what the agent leaves behind, on this node and in the API.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use tokio::time::sleep;

use crate::{
    agent::{
        service::STATE_FILES,
        sink::condition::{deliver, kube_node::KubeNode},
        source::pin::{self, PinError, Pins},
        state::{StateError, StateFile},
        watch::StopSignals,
    },
    cli::CliError,
    cluster::{self, Outcome},
    config::{self, Config},
    ops::http::{Pages, Pulse, Readiness, Server},
};

/// What was typed.
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {
    /// Settings of the agent that left it; without it the defaults hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to reach the API server; without it the pod's service account counts, or $KUBECONFIG
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Leave the API alone
    #[arg(long)]
    node_only: bool,
    /// When all is done, wait for a signal instead of ending, and say at `/readyz` of `health.listen` that it is done: for
    /// a DaemonSet, whose pods are started again when they end
    #[arg(long)]
    stay: bool,
}

/// How often the API server is asked, if it does not answer, and how long is waited in between.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_secs(5);

/// What is said to who cleans up under an agent.
const IN_USE: &str = "an agent runs on this node, so that nothing was removed: end it first";

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let config = match &arguments.config {
        Some(path) => config::load(path).map_err(|mistakes| CliError::Usage(mistakes.lines().collect()))?,
        None => Config::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(clean(arguments, &config)).map_err(CliError::Other)
}

/// Does all of it, also after a part failed; then tells the first failure. Does nothing while an agent runs.
async fn clean(arguments: &Arguments, config: &Config) -> Result<()> {
    let mut signals = StopSignals::take().context("setting up to wait for signals")?;
    let done = Readiness::new(["cleanup"]);
    if arguments.stay {
        serve(config, &done).await?;
    }
    let mut parts = clean_node(config)?;
    if !arguments.node_only {
        parts.push(withdraw_conditions(arguments.kubeconfig.clone()).await);
    }
    let mut failure = None;
    for part in parts {
        match part {
            Ok(done) => println!("{done}"),
            Err(cause) => {
                eprintln!("detector: {cause:#}");
                failure.get_or_insert(cause);
            }
        }
    }
    if failure.is_some() {
        return Err(anyhow!("not all could be removed, see above; it may be run again"));
    }
    done.there("cleanup");
    if arguments.stay {
        signals.any().await;
    }
    Ok(())
}

/// Tells at `/readyz` whether all is done.
async fn serve(config: &Config, done: &Readiness) -> Result<()> {
    let server = Server::bind(config.health.listen, None).await?;
    let (pulse, mut heart) = Pulse::new();
    let pages = Pages { pulse, readiness: done.clone(), metrics: Arc::new(|_| String::new()) };
    tokio::spawn(async move {
        if let Err(cause) = server.serve(pages).await {
            eprintln!("detector: {:#}", anyhow!(cause));
        }
    });
    tokio::spawn(async move {
        loop {
            drop(heart.asked().await);
        }
    });
    Ok(())
}

/// Removes what is on this node.
///
/// # Errors
/// An agent uses it: then nothing was removed.
fn clean_node(config: &Config) -> Result<Vec<Result<String>>> {
    let (_lock, refused) = match take_state(config) {
        Ok(lock) => (lock, None),
        Err(cause @ StateError::Locked { .. }) => return Err(cause).context(IN_USE),
        Err(cause) => (None, Some(anyhow!(cause))),
    };
    let pins = match remove_pins(config) {
        Err(cause @ PinError::InUse { .. }) => return Err(cause).context(IN_USE),
        pins => pins.context("removing the pins"),
    };
    Ok(vec![pins, refused.map_or_else(|| remove_state(config), Err)])
}

/// The lock of the agent's state, if there is any state.
fn take_state(config: &Config) -> Result<Option<StateFile<()>>, StateError> {
    // It would be made, else.
    let there = config.state.directory.as_ref().filter(|directory| directory.exists());
    there.map(|directory| StateFile::open(directory, "")).transpose()
}

fn remove_pins(config: &Config) -> Result<String, PinError> {
    let Some(directory) = &config.state.pins else { return Ok("pins: none are kept by these settings".to_owned()) };
    let removed = pin::remove_all(&Pins::below(directory))?;
    let (links, files) = (removed.links, removed.paths.len());
    Ok(format!("pins: {links} attached programs and {files} files removed below {}", directory.display()))
}

fn remove_state(config: &Config) -> Result<String> {
    let Some(directory) = &config.state.directory else {
        return Ok("state: none is kept by these settings".to_owned());
    };
    let mut removed = 0;
    for name in STATE_FILES {
        removed += u32::from(remove(&directory.join(name))?);
    }
    // Somebody else's files stay, and the directory with them; in a container it is a mount that cannot go.
    fs::remove_dir(directory).ok();
    Ok(format!("state: {removed} files removed from {}", directory.display()))
}

fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    }
}

async fn withdraw_conditions(kubeconfig: Option<PathBuf>) -> Result<String> {
    let access = cluster::connect(kubeconfig).await?;
    let node = access.identity.node;
    let api = KubeNode::new(access.client, node.clone());
    let mut why = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(PAUSE).await;
        }
        match deliver::withdraw(&api).await {
            Outcome::Done | Outcome::AlreadyThere => return Ok(format!("conditions: removed from Node {node}")),
            Outcome::Final(reason) | Outcome::Gone(reason) => {
                return Err(anyhow!("removing the conditions of Node {node}: {reason}"));
            }
            Outcome::Retry { reason, .. } => why = reason,
        }
    }
    Err(anyhow!("removing the conditions of Node {node}, {ATTEMPTS} times: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings whose state lies in `directory`, which has what an agent leaves there, and a file of somebody else.
    fn left(directory: &Path) -> Config {
        for name in STATE_FILES.iter().chain(&["other"]) {
            fs::write(directory.join(name), "x").unwrap();
        }
        let mut config = Config::default();
        config.state.directory = Some(directory.to_owned());
        config.state.pins = None;
        config
    }

    fn files(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[tokio::test]
    async fn nothing_is_removed_under_a_running_agent() {
        let root = tempfile::tempdir().unwrap();
        let config = left(root.path());
        let agent = StateFile::<()>::open(root.path(), "boot").unwrap();
        // It must not even look for the API server, which it would not find.
        let kubeconfig = Some(root.path().join("none"));
        let arguments = Arguments { config: None, kubeconfig, node_only: false, stay: false };
        let error = clean(&arguments, &config).await.unwrap_err();
        assert!(format!("{error:#}").contains("an agent runs on this node"), "{error:#}");
        assert_eq!(files(root.path()), STATE_FILES.len() + 1);
        drop(agent);
        assert!(clean_node(&config).unwrap().iter().all(Result::is_ok));
        assert_eq!(files(root.path()), 1);
    }

    #[test]
    fn where_nothing_is_nothing_is_made() {
        let root = tempfile::tempdir().unwrap();
        let mut config = left(root.path());
        let missing = root.path().join("missing");
        config.state.directory = Some(missing.clone());
        assert!(clean_node(&config).unwrap().iter().all(Result::is_ok));
        assert!(!missing.exists());
    }
}
