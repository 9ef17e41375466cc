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
        source::{
            last_words::setting,
            pin::{self, PinError, Pins},
            previous_boot::boots,
        },
        state::{StateError, StateFile},
        watch::StopSignals,
    },
    cli::CliError,
    cluster::{self, Outcome},
    config::{self, Config},
    netconsole::{
        self,
        secret::{self, SecretError},
    },
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

/// What is said to who cleans up under the program that keeps the targets, which would make them anew.
const TARGETS_IN_USE: &str = "`detector netconsole` runs on this node, so that nothing was removed: end it first";

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
    let mut parts = clean_node(config, Path::new("/"))?;
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

/// Removes what is on this node, seen through `root`.
///
/// # Errors
/// An agent or `detector netconsole` uses it: then nothing was removed.
fn clean_node(config: &Config, root: &Path) -> Result<Vec<Result<String>>> {
    let (_lock, refused) = match take_state(config) {
        Ok(lock) => (lock, None),
        Err(cause @ StateError::Locked { .. }) => return Err(cause).context(IN_USE),
        Err(cause) => (None, Some(anyhow!(cause))),
    };
    // It would be made, else.
    let there = config.state.directory.as_deref().filter(|directory| directory.exists());
    let _targets = match there.map(secret::lock).transpose() {
        Err(cause @ SecretError::Locked(_)) => return Err(cause).context(TARGETS_IN_USE),
        // Who cannot lock cannot remove the file either, which is told below.
        lock => lock.ok(),
    };
    let pins = match remove_pins(config) {
        Err(cause @ PinError::InUse { .. }) => return Err(cause).context(IN_USE),
        pins => pins.context("removing the pins"),
    };
    // Before the state, in which its former value stands.
    let printing = restore_printing(config, root);
    // Before the secret, which tells that there may be some.
    let targets = remove_targets(config, root);
    let netconsole_files: &[&str] = if targets.is_ok() { &secret::STATE_FILES } else { &[] };
    let state = refused.map_or_else(|| remove_state(config, netconsole_files), Err);
    Ok(vec![pins, printing, targets, state, remove_note(config)])
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

/// The kernel's setting that prints last words.
fn restore_printing(config: &Config, root: &Path) -> Result<String> {
    let done = match &config.state.directory {
        Some(directory) => setting::restore(root, directory).context("setting back kernel.ftrace_dump_on_oops")?,
        None => false,
    };
    let what = if done { "as it was before the agent" } else { "not ours, left alone" };
    Ok(format!("kernel.ftrace_dump_on_oops: {what}"))
}

/// The agent's, and those of `detector netconsole` with these names.
fn remove_state(config: &Config, netconsole: &[&str]) -> Result<String> {
    let Some(directory) = &config.state.directory else {
        return Ok("state: none is kept by these settings".to_owned());
    };
    let mut removed = 0;
    for name in STATE_FILES.iter().chain(netconsole) {
        removed += u32::from(remove(&directory.join(name))?);
    }
    // Somebody else's files stay, and the directory with them; in a container it is a mount that cannot go.
    fs::remove_dir(directory).ok();
    Ok(format!("state: {removed} files removed from {}", directory.display()))
}

/// Those of `detector netconsole`, whose state lies beside the agent's.
fn remove_targets(config: &Config, root: &Path) -> Result<String> {
    let removed = netconsole::remove_targets(root, config.state.directory.as_deref());
    let removed = removed.context("removing netconsole's targets")?;
    Ok(format!("netconsole: {removed} targets removed"))
}

/// What says which boot was seen last.
fn remove_note(config: &Config) -> Result<String> {
    let Some(file) = &config.state.boots else {
        return Ok("note of the last boot: none is kept by these settings".to_owned());
    };
    let mut removed = 0;
    for path in [file.clone(), boots::beside(file)] {
        removed += u32::from(remove(&path)?);
    }
    if let Some(directory) = file.parent() {
        fs::remove_dir(directory).ok();
    }
    Ok(format!("note of the last boot: {removed} files removed at {}", file.display()))
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
    use crate::agent::source::small_file::under;

    /// Settings whose state lies in `directory`, which has what an agent leaves there, and a file of somebody else.
    fn left(directory: &Path) -> Config {
        for name in STATE_FILES.iter().chain(&["other"]) {
            fs::write(directory.join(name), "x").unwrap();
        }
        let mut config = Config::default();
        config.state.directory = Some(directory.to_owned());
        config.state.pins = None;
        config.state.boots = None;
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
        assert!(clean_node(&config, root.path()).unwrap().iter().all(Result::is_ok));
        assert_eq!(files(root.path()), 1);
    }

    #[test]
    fn nothing_is_removed_while_somebody_keeps_the_targets() {
        let root = tempfile::tempdir().unwrap();
        let config = left(root.path());
        let keeper = secret::lock(root.path()).unwrap();
        let error = clean_node(&config, root.path()).unwrap_err();
        assert!(format!("{error:#}").contains("`detector netconsole` runs on this node"), "{error:#}");
        assert_eq!(files(root.path()), STATE_FILES.len() + 2);
        drop(keeper);
        assert!(clean_node(&config, root.path()).unwrap().iter().all(Result::is_ok));
        assert_eq!(files(root.path()), 1);
    }

    #[test]
    fn targets_that_may_stand_unseen_are_a_failure_each_time() {
        let root = tempfile::tempdir().unwrap();
        let (state, module) = (root.path().join("state"), root.path().join("sys/module/netconsole"));
        fs::create_dir_all(&state).unwrap();
        fs::create_dir_all(&module).unwrap();
        let config = left(&state);
        secret::of_boot(&state, "boot").unwrap();
        for _ in 0..2 {
            let parts = clean_node(&config, root.path()).unwrap();
            let failures: Vec<_> = parts.iter().filter_map(|part| part.as_ref().err()).collect();
            assert!(failures.len() == 1 && format!("{:#}", failures[0]).contains("may stand"), "{failures:?}");
        }
        fs::create_dir_all(root.path().join("sys/kernel/config/netconsole")).unwrap();
        assert!(clean_node(&config, root.path()).unwrap().iter().all(Result::is_ok));
        assert_eq!(files(&state), 1);
    }

    #[test]
    fn the_note_of_the_last_boot_goes_with_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let mut config = left(root.path());
        let file = root.path().join("lib/boot.json");
        fs::create_dir(root.path().join("lib")).unwrap();
        for path in [file.clone(), boots::beside(&file)] {
            fs::write(path, "x").unwrap();
        }
        config.state.boots = Some(file.clone());
        assert!(clean_node(&config, root.path()).unwrap().iter().all(Result::is_ok));
        assert!(!file.exists() && !root.path().join("lib").exists());
    }

    #[test]
    fn the_setting_that_the_agent_changed_is_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        fs::create_dir_all(&state).unwrap();
        let config = left(&state);
        let value = under(root.path(), setting::SETTING);
        let boot = under(root.path(), "/proc/sys/kernel/random/boot_id");
        fs::create_dir_all(boot.parent().unwrap()).unwrap();
        fs::write(&boot, "boot-1\n").unwrap();
        fs::write(&value, "0\n").unwrap();
        setting::set(root.path(), &state).unwrap();
        assert_eq!(fs::read_to_string(&value).unwrap(), "2\n");
        let parts = clean_node(&config, root.path()).unwrap();
        assert!(parts.iter().flatten().any(|part| part.contains("as it was before the agent")), "{parts:?}");
        assert_eq!(fs::read_to_string(&value).unwrap(), "0\n");
        assert_eq!(files(&state), 1);
    }

    #[test]
    fn where_nothing_is_nothing_is_made() {
        let root = tempfile::tempdir().unwrap();
        let mut config = left(root.path());
        let missing = root.path().join("missing");
        config.state.directory = Some(missing.clone());
        assert!(clean_node(&config, root.path()).unwrap().iter().all(Result::is_ok));
        assert!(!missing.exists());
    }
}
