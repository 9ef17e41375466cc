//! A program that runs in the background: its log in a file, ended by pid, and never longer alive than this process.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::last_lines;

/// How long a program may take to end before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Time between two looks while waiting.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Lines of a program's log that an error shows.
const SHOWN_LINES: usize = 20;

/// A running program. It is ended when dropped; should this process die without that, the kernel kills it.
pub(crate) struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command` with its output in `NAME.log` in the directory `logs`.
    ///
    /// Must be called on a thread that lives as long as the program should: the kernel's word that a parent died means the
    /// parent's thread (prctl(2), PR_SET_PDEATHSIG).
    pub(crate) fn start(name: &str, command: &Command, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let both = file.try_clone().with_context(|| format!("share {}", log.display()))?;
        let mut bound = bound_to_us(command);
        bound.stdin(Stdio::null()).stdout(file).stderr(both);
        // A group of its own: Ctrl-C is for us, and we end the others in their order.
        let child = bound.process_group(0).spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of its log, if it has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait().with_context(|| format!("look after {}", self.name))? else {
            return Ok(());
        };
        let text = std::fs::read(&self.log).unwrap_or_default();
        let end = last_lines(&String::from_utf8_lossy(&text), SHOWN_LINES);
        bail!("{} ended with {status}; the end of {}:\n{end}", self.name, self.log.display())
    }

    /// Waits until `is_done` says so; an error if the program ends before, or after `patience`.
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        patience: Duration,
        mut is_done: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !is_done()? {
            self.must_run().with_context(|| format!("wait until {what}"))?;
            if start.elapsed() > patience {
                bail!("wait until {what}: not so after {patience:?}; see {}", self.log.display());
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn end(&mut self) {
        let signal = |signal| {
            // Fails only if the process is gone, which the next look finds.
            Pid::from_raw(self.child.id() as i32).map(|pid| kill_process(pid, signal).ok());
        };
        signal(Signal::TERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > END_PATIENCE {
                self.child.kill().ok();
                self.child.wait().ok();
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// The same command, killed by the kernel when the thread that starts it ends. `setpriv` replaces itself by the program, so
/// that the process id is the program's.
fn bound_to_us(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(key, value),
            None => bound.env_remove(key),
        };
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("detector-server-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn a_server_that_is_dropped_has_ended() {
        let server = Server::start("sleep", Command::new("sleep").arg("1000"), &logs("dropped")).unwrap();
        let process = PathBuf::from(format!("/proc/{}", server.pid()));
        assert!(process.exists());
        drop(server);
        assert!(!process.exists());
    }

    #[test]
    fn a_server_that_ends_early_is_told_with_the_end_of_its_log() {
        let command = &mut Command::new("sh");
        let mut server =
            Server::start("short", command.args(["-c", "echo no port >&2; exit 3"]), &logs("short")).unwrap();
        let error = server.wait_until("it listens", Duration::from_secs(60), || Ok(false)).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("short ended with exit status: 3") && text.contains("no port"), "{text}");
    }
}
