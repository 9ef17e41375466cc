//! What one agent keeps: a BPF file system, a directory for its state, its settings. All are the test's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use serde_json::{Value, json};

/// Directories and mounts below one root. Dropping it unmounts and removes all, and so detaches what is pinned.
pub struct Place {
    root: PathBuf,
}

impl Place {
    /// Makes it below the directory of temporary files.
    ///
    /// # Errors
    /// A directory cannot be made, or nothing mounted.
    pub fn make(name: &str) -> Result<Self> {
        let place = Self { root: std::env::temp_dir().join(format!("detector-{name}")) };
        for directory in [place.bpf(), place.state(), place.run()] {
            fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        }
        mount("bpf", place.bpf(), "bpf", MountFlags::empty(), None).context("mount a BPF file system")?;
        fs::write(place.termination(), "").context("make the file for last words")?;
        Ok(place)
    }

    /// The mount of the BPF file system.
    pub fn bpf(&self) -> PathBuf {
        self.root.join("bpf")
    }

    /// The directory in which the agent pins.
    pub fn pins(&self) -> PathBuf {
        self.bpf().join("detector")
    }

    /// The directory of the agent's state.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// What the agent sees as `/run`.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The file of settings.
    pub fn settings_file(&self) -> PathBuf {
        self.root.join("detector.yaml")
    }

    /// The file for the agent's last words.
    pub fn termination(&self) -> PathBuf {
        self.root.join("termination-log")
    }

    /// A file of the test's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Settings for an agent that serves at `port`: quick, so that a test need not wait for budgets.
    pub fn settings(&self, port: u16) -> Value {
        let listen = format!("127.0.0.1:{port}");
        json!({
            "locate": { "hold": "5s" },
            "events": { "nodeBudget": { "burst": 100, "every": "1s" }, "podBudget": { "burst": 50, "every": "1s" } },
            "metrics": { "listen": listen },
            "health": { "listen": listen },
            "state": { "directory": self.state(), "pins": self.pins(), "boots": self.root.join("boot.json") },
            "log": { "format": "text" },
        })
    }

    /// Writes settings as a file; JSON is YAML.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_settings(&self, settings: &Value) -> Result<()> {
        fs::write(self.settings_file(), format!("{settings:#}\n")).context("write the settings")
    }

    /// Puts a file system of so many bytes in the place of the directory of the state.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn small_disk(&self, bytes: u64) -> Result<()> {
        let size = std::ffi::CString::new(format!("size={bytes}")).context("word an option of a mount")?;
        mount("tmpfs", self.state(), "tmpfs", MountFlags::empty(), Some(size.as_c_str())).context("mount a small disk")
    }

    /// Lets nobody write to the BPF file system.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn make_bpf_read_only(&self) -> Result<()> {
        mount_remount(self.bpf(), MountFlags::RDONLY, c"").context("make the BPF file system read-only")
    }

    /// Bytes of all files of the state.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn state_bytes(&self) -> Result<u64> {
        bytes_below(&self.state())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        unmount(self.bpf(), UnmountFlags::DETACH).ok();
        // Fails where no small disk was mounted.
        unmount(self.state(), UnmountFlags::DETACH).ok();
        fs::remove_dir_all(&self.root).ok();
    }
}

fn bytes_below(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}
