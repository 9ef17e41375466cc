//! A `keeper` as child process, on a BPF file system of its own: started, killed, started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount},
    process::{Pid, Signal, kill_process},
    thread::{CpuSet, sched_getcpu, sched_setaffinity},
};
use serde_json::Value;

use crate::watcher::{LINE_DEADLINE, read};

/// Between two looks at what a keeper does beside its lines.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A BPF file system and a directory for what is saved. Dropping it unmounts and removes both, and so detaches all.
pub struct Place {
    root: PathBuf,
}

impl Place {
    /// Makes both below the directory of temporary files.
    pub fn make(name: &str) -> Result<Self> {
        let place = Self { root: std::env::temp_dir().join(format!("detector-test-{name}-{}", std::process::id())) };
        for directory in [place.bpf(), place.state()] {
            fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        }
        mount("bpf", place.bpf(), "bpf", MountFlags::empty(), None).context("mounting a BPF file system")?;
        Ok(place)
    }

    /// Waits until nothing is left at `path`.
    pub fn gone(path: &Path) -> Result<()> {
        let since = Instant::now();
        while path.exists() {
            ensure!(since.elapsed() < LINE_DEADLINE, "{} is still there", path.display());
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Where pins go.
    pub fn pins(&self) -> PathBuf {
        self.bpf().join("detector")
    }

    /// The one directory of a generation.
    pub fn generation(&self) -> Result<PathBuf> {
        let entries = fs::read_dir(self.pins().join("abi-1"))?.collect::<Result<Vec<_>, _>>()?;
        let generations: Vec<_> =
            entries.iter().map(fs::DirEntry::path).filter(|path| !path.ends_with("maps")).collect();
        let [generation] = generations.as_slice() else { bail!("generations: {generations:?}") };
        Ok(generation.clone())
    }

    /// Where the mount is.
    pub fn bpf(&self) -> PathBuf {
        self.root.join("bpf")
    }

    fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Starts a keeper and waits until it is attached.
    pub fn start(&self, methods: &[&str]) -> Result<Keeper> {
        self.start_at(&self.pins(), methods)
    }

    /// The same with pins elsewhere.
    pub fn start_at(&self, pins: &Path, methods: &[&str]) -> Result<Keeper> {
        let mut process = self.command("run", pins).arg(self.state()).args(methods).stdout(Stdio::piped()).spawn()?;
        let lines = read(process.stdout.take().context("its output is no pipe")?);
        let mut keeper = Keeper { process, lines, started: Value::Null };
        keeper.started = keeper.next()?;
        ensure!(keeper.started["type"] == "started", "the first line is {}", keeper.started);
        Ok(keeper)
    }

    /// Whether files can be made and removed where pins go.
    pub fn set_read_only(&self, is_read_only: bool) -> Result<()> {
        let flags = if is_read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        mount_remount(self.bpf(), flags, "").context("mounting it anew")
    }

    /// Takes the BPF file system away, and with it all that is kept.
    pub fn unmount(&self) -> Result<()> {
        unmount(self.bpf(), UnmountFlags::DETACH).context("unmounting the BPF file system")
    }

    /// Removes all that is kept, and says what it was.
    pub fn clean(&self) -> Result<Output> {
        Ok(self.command("clean", &self.pins()).output()?)
    }

    fn command(&self, word: &str, pins: &Path) -> Command {
        // A path that cannot be had is told when it is started.
        let mut command = Command::new(crate::keeper().unwrap_or_else(|_| PathBuf::from("DETECTOR_KEEPER")));
        command.arg(word).arg(pins);
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        unmount(self.bpf(), UnmountFlags::DETACH).ok();
        fs::remove_dir_all(&self.root).ok();
    }
}

/// Has this thread, and what it starts, stay on the CPU that it is on: records are numbered for each CPU.
pub fn stay_on_this_cpu() -> Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).context("staying on one CPU")
}

/// A running keeper. Dropping it kills it.
pub struct Keeper {
    process: Child,
    lines: Receiver<Value>,
    /// Its first line.
    pub started: Value,
}

impl Keeper {
    /// The next line.
    pub fn next(&self) -> Result<Value> {
        self.lines.recv_timeout(LINE_DEADLINE).context("the keeper ended, or printed nothing for a minute")
    }

    /// Waits for the next `count` kills, in the cgroup with that id or in any.
    pub fn kills(&self, cgroup: Option<u64>, count: usize) -> Result<()> {
        let mut seen = 0;
        while seen < count {
            let line = self.next().with_context(|| format!("after {seen} of {count} kills"))?;
            let is_there = cgroup.is_none_or(|cgroup| line["cgroup"] == cgroup);
            seen += usize::from(line["type"] == "kill" && is_there);
        }
        Ok(())
    }

    /// Programs and the kernel's ids of them, in the order in which they were attached.
    pub fn programs(&self) -> Vec<(String, Value)> {
        let programs = self.attachments().iter();
        programs.map(|link| (link["program"].as_str().unwrap_or_default().to_owned(), link["id"].clone())).collect()
    }

    /// Whether all programs last as named: `adopted` or `kept`.
    pub fn all_are(&self, lasting: &str) -> bool {
        self.attachments().iter().all(|link| link["lasting"] == lasting)
    }

    fn attachments(&self) -> &[Value] {
        self.started["attachments"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Ends it as nobody wants to be ended.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Ends it as an upgrade does, and gives its last line.
    pub fn stop(mut self) -> Result<Value> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).context("the keeper's pid")?;
        kill_process(pid, Signal::TERM).context("sending SIGTERM")?;
        loop {
            let line = self.next()?;
            if line["type"] == "ended" {
                ensure!(self.process.wait()?.success(), "it failed");
                return Ok(line);
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
