//! `cargo xtask run`: from a fresh clone to a sensor that watches this machine.

use std::{
    io::{BufRead as _, BufReader, Read},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, Result, bail};

use crate::{build, process};

/// What `detector watch` prints on its error stream once its probes are attached.
const BANNER: &str = "watching ";

/// How its closing line begins if it saw nothing.
const NOTHING_SEEN: &str = "seen 0 ";

/// Arguments of the watch of `--demo`: it ends with the first kill, or after a time in which one must have been seen.
const DEMO_WATCH: &[&str] = &["--count", "1", "--duration", "60s"];

/// The demo's fault: a process that outgrows a cgroup of its own, limited to 16 MiB. Nothing else is touched.
const DEMO_PROVOKE: &[&str] = &["oom", "--limit-mib", "16", "--cgroup", "detector-demo"];

/// Install what is missing, build, and run `detector watch` on this machine.
///
/// Needs root for the probes: as another user it asks sudo, for that one program only.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask run --demo\n  cargo xtask run -- --output json --duration 10m")]
pub(crate) struct Options {
    /// Cause one harmless real OOM kill, show it and end. It happens in a cgroup of its own with a limit of 16 MiB.
    #[arg(long, conflicts_with = "arguments")]
    demo: bool,
    /// Arguments for `detector watch`, after `--`.
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.demo {
        let artifacts = build::release()?;
        let mut watch = process::as_root(&artifacts.detector)?;
        watch.arg("watch").args(DEMO_WATCH);
        return demo(&mut watch, &artifacts.provoke).map(exit_code);
    }
    let mut watch = process::as_root(&build::detector()?)?;
    watch.arg("watch");
    process::say(format_args!("run `{}`; Ctrl-C ends it", process::shown(watch.args(&options.arguments))));
    // In our place, so that Ctrl-C and the exit code are the watch's own affair.
    Err(watch.exec()).context("start detector watch")
}

fn demo(watch: &mut Command, provoke: &Path) -> Result<ExitStatus> {
    process::say(format_args!("run `{}`", process::shown(watch)));
    let mut child = watch.stderr(Stdio::piped()).spawn().context("start detector watch")?;
    let stderr = child.stderr.take().context("read what detector watch says")?;
    let (attached, is_attached) = mpsc::sync_channel(1);
    let relay = thread::spawn(move || relay(stderr, &attached));
    if is_attached.recv().is_ok() {
        if let Err(error) = cause_oom(provoke) {
            end(&mut child);
            return Err(error);
        }
    } else {
        process::say(format_args!("detector watch ended before it said `{BANNER}…`: no kill was caused"));
    }
    let status = child.wait().context("wait for detector watch")?;
    match relay.join() {
        Ok(nothing_seen) if nothing_seen => bail!("detector watch did not see the OOM kill that was caused"),
        Ok(_) => Ok(status),
        Err(_) => bail!("show what detector watch says: the thread that does so panicked"),
    }
}

/// Hands on what the watch says, and tells once when it is attached. Dropping the sender tells that it never was. Returns
/// whether the watch says that it saw nothing.
fn relay(said: impl Read, attached: &mpsc::SyncSender<()>) -> bool {
    let mut nothing_seen = false;
    for line in BufReader::new(said).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        eprintln!("{line}");
        if line.starts_with(BANNER) {
            // Full: it was told already. Closed: nobody waits any more.
            attached.try_send(()).ok();
        }
        nothing_seen |= line.starts_with(NOTHING_SEEN);
    }
    nothing_seen
}

fn cause_oom(provoke: &Path) -> Result<()> {
    let mut command = process::as_root(provoke)?;
    command.args(DEMO_PROVOKE);
    process::say(format_args!("cause one OOM kill: `{}`", process::shown(&command)));
    process::capture(&mut command, "cause one OOM kill").map(|_| ())
}

/// Ends the watch early. Under sudo this may not be ours to end; it then ends by its own `--duration`.
fn end(child: &mut Child) {
    child.kill().ok();
    child.wait().ok();
}

/// The code of the program; one that died by a signal is told as a shell tells it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_waits_for_the_banner() {
        let (attached, is_attached) = mpsc::sync_channel(1);
        relay(&b"attaching\nwatching 3 probes\nwatching again\n"[..], &attached);
        assert!(is_attached.try_recv().is_ok());
        assert!(is_attached.try_recv().is_err(), "told once");
    }

    #[test]
    fn a_watch_that_saw_nothing_is_noticed() {
        let (attached, _is_attached) = mpsc::sync_channel(1);
        assert!(relay(&b"watching x\nseen 0 kills in 0 incidents\n"[..], &attached));
        assert!(!relay(&b"watching x\nseen 1 kill in 1 incident\n"[..], &attached));
    }

    #[test]
    fn a_watch_that_ends_early_is_noticed() {
        let (attached, is_attached) = mpsc::sync_channel::<()>(1);
        relay(&b"error: not root\n"[..], &attached);
        drop(attached);
        assert!(is_attached.recv().is_err());
    }
}
