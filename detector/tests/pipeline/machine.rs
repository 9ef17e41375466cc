//! A machine that consists of files: the root directory that the flow looks at.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// Kills that the fake kernel had counted before the flow started.
pub(crate) const KILLS_BEFORE: u64 = 100;

/// A root directory with what the flow reads.
pub(crate) struct Machine {
    root: TempDir,
    mount: &'static str,
}

impl Machine {
    /// Memory cgroups in hierarchy 4 of cgroup v1, as on the machine of the recordings.
    pub(crate) fn version_1() -> Self {
        let machine = Self::empty("/sys/fs/cgroup/memory");
        machine.write("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/\n");
        let mount = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
        machine.write("/proc/self/mountinfo", mount);
        machine.write("/sys/fs/cgroup/memory/cgroup.sane_behavior", "0\n");
        machine
    }

    /// Memory cgroups in cgroup v2.
    pub(crate) fn version_2() -> Self {
        let machine = Self::empty("/sys/fs/cgroup");
        machine.write("/proc/self/cgroup", "0::/\n");
        machine.write("/proc/self/mountinfo", "29 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        machine.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n");
        machine
    }

    fn empty(mount: &'static str) -> Self {
        let machine = Self { root: tempfile::tempdir().expect("a temporary directory"), mount };
        machine.kernel_counted(0);
        machine
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where the file `path` of the machine is.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.file(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        fs::write(path, content).expect("a file");
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.file(path);
        fs::create_dir_all(path.parent().expect("not the root")).expect("made");
        std::os::unix::fs::symlink(target, path).expect("made");
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.file(path)).expect("a file to remove");
    }

    /// Makes a cgroup that no record tells of; returns its id.
    pub(crate) fn make_cgroup(&self, path: &str) -> u64 {
        let directory = self.file(self.mount).join(path.trim_start_matches('/'));
        fs::create_dir_all(&directory).expect("a directory");
        fs::metadata(directory).expect("it was just made").ino()
    }

    /// The kernel has counted so many kills since the start of the flow.
    pub(crate) fn kernel_counted(&self, kills: u64) {
        let count = KILLS_BEFORE + kills;
        self.write("/proc/vmstat", &format!("nr_free_pages 1234\noom_kill {count}\nnuma_hit 5\n"));
    }
}
