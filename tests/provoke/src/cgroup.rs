//! Memory cgroups of the provocation's own: made with limits, read, and removed whatever happens.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, Hierarchy, Version, process};

/// How long a removed cgroup's processes may take to be gone.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(20);

/// How long processes of a killed run may take to leave the cgroup that it left behind.
const LEFTOVER_DEADLINE: Duration = Duration::from_secs(1);

/// Limits of a cgroup.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Most bytes of memory; swap is off in any case.
    pub bytes: Option<u64>,
    /// Whether the kernel kills all its processes together (`memory.oom.group`, cgroup v2 only).
    pub group: bool,
}

impl Limits {
    /// A limit of `mib` MiB.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self { bytes: Some(mib << 20), group: false }
    }

    /// The same, killed as a group.
    #[must_use]
    pub const fn grouped(self) -> Self {
        Self { group: true, ..self }
    }
}

/// A memory cgroup that this process made. Dropping it kills what lives in it and removes it.
#[derive(Debug)]
pub struct Cgroup {
    hierarchy: Hierarchy,
    directory: PathBuf,
    /// Directories that did not exist before, outermost first.
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes cgroup `name` (a relative path; missing parents are made too) with `limits`. One of that name that is in
    /// use is left alone and refused.
    pub fn make(hierarchy: &Hierarchy, name: &str, limits: Limits) -> Result<Self, Error> {
        let relative = Path::new(name);
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !plain {
            return Err(Error::Name { name: name.to_owned() });
        }
        if limits.group && hierarchy.version == Version::V1 {
            return Err(Error::NeedsVersion2 { what: "memory.oom.group" });
        }
        let directory = hierarchy.mount.join(relative);
        let mut cgroup = Self { hierarchy: hierarchy.clone(), directory, made: Vec::new() };
        cgroup.make_directories(relative)?;
        cgroup.limit(limits)?;
        Ok(cgroup)
    }

    /// Absolute path in the hierarchy, such as `/detector-demo`.
    #[must_use]
    pub fn path(&self) -> String {
        self.hierarchy.path_of(&self.directory)
    }

    /// Inode number of the directory: the id by which the kernel names the cgroup.
    pub fn id(&self) -> Result<u64, Error> {
        let made = fs::metadata(&self.directory);
        let made = made.map_err(|source| Error::Read { path: self.directory.clone(), source })?;
        Ok(std::os::unix::fs::MetadataExt::ino(&made))
    }

    /// Kills that the kernel counted: on v2 in this cgroup and all below it, also those removed since (`memory.events`);
    /// on v1 in this cgroup alone (`memory.oom_control`).
    pub fn kills(&self) -> Result<u64, Error> {
        let file = match self.hierarchy.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        entry(&self.directory.join(file), "oom_kill")
    }

    /// Kills of processes in this cgroup itself (`memory.events.local`, Linux 5.2); `None` on v1.
    pub fn local_kills(&self) -> Result<Option<u64>, Error> {
        match self.hierarchy.version {
            Version::V1 => Ok(None),
            Version::V2 => entry(&self.directory.join("memory.events.local"), "oom_kill").map(Some),
        }
    }

    /// Processes in it.
    pub fn members(&self) -> Result<Vec<u32>, Error> {
        members(&self.directory)
    }

    /// File to write a process id to, `0` for the writer's own.
    pub(crate) fn procs(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// Kills what lives in it and removes it with all below it, and those of its parents that were made with it.
    pub fn remove(mut self) -> Result<(), Error> {
        self.clear()
    }

    fn clear(&mut self) -> Result<(), Error> {
        while let Some(directory) = self.made.pop() {
            remove_tree(&directory)?;
        }
        Ok(())
    }

    fn make_directories(&mut self, relative: &Path) -> Result<(), Error> {
        let mut directory = self.hierarchy.mount.clone();
        for part in relative.components() {
            if self.hierarchy.version == Version::V2 {
                write(&directory.join("cgroup.subtree_control"), "+memory")?;
            }
            directory.push(part);
            if directory == self.directory {
                // A run that was killed may have left it; if anything lives in it, it is somebody else's and stays.
                process::until(LEFTOVER_DEADLINE, || remove_if_empty(&directory));
            }
            match fs::create_dir(&directory) {
                Ok(()) => self.made.push(directory.clone()),
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && directory != self.directory => {}
                Err(source) => return Err(Error::Make { path: directory, source }),
            }
        }
        Ok(())
    }

    fn limit(&self, limits: Limits) -> Result<(), Error> {
        let (limit, swap) = match self.hierarchy.version {
            Version::V1 => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
            Version::V2 => ("memory.max", "memory.swap.max"),
        };
        let Some(bytes) = limits.bytes else {
            return self.set_group(limits.group);
        };
        write(&self.directory.join(limit), &bytes.to_string())?;
        // Both files are missing where the kernel counts no swap.
        let swap = self.directory.join(swap);
        if swap.exists() {
            let most = if self.hierarchy.version == Version::V1 { bytes } else { 0 };
            write(&swap, &most.to_string())?;
        }
        self.set_group(limits.group)
    }

    fn set_group(&self, group: bool) -> Result<(), Error> {
        if group { write(&self.directory.join("memory.oom.group"), "1") } else { Ok(()) }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(cause) = self.clear() {
            eprintln!("{cause}: {}", std::error::Error::source(&cause).map(ToString::to_string).unwrap_or_default());
        }
    }
}

/// Processes that the OOM killer killed since boot, on the whole machine (`oom_kill` in `/proc/vmstat`). The chosen
/// victim of a group kill counts twice.
pub fn vmstat_kills() -> Result<u64, Error> {
    entry(Path::new("/proc/vmstat"), "oom_kill")
}

/// Pages of the machine that nobody uses (`nr_free_pages` in `/proc/vmstat`).
pub(crate) fn free_pages() -> Result<u64, Error> {
    entry(Path::new("/proc/vmstat"), "nr_free_pages")
}

fn entry(path: &Path, key: &'static str) -> Result<u64, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
    number(&text, key).ok_or_else(|| Error::NoEntry { path: path.into(), key })
}

/// The number behind `key` in a file of lines `key number`.
fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn write(path: &Path, value: &str) -> Result<(), Error> {
    fs::write(path, value).map_err(|source| Error::Write { path: path.into(), value: value.to_owned(), source })
}

fn members(directory: &Path) -> Result<Vec<u32>, Error> {
    let path = directory.join("cgroup.procs");
    let text = fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Removes a cgroup and all below it; repeats the attempt, because killed processes need a moment to leave.
fn remove_tree(directory: &Path) -> Result<(), Error> {
    let mut last = None;
    let gone = process::until(REMOVAL_DEADLINE, || {
        last = try_remove(directory).err();
        last.is_none()
    });
    match last {
        Some(source) if !gone => Err(Error::Remove { path: directory.into(), source }),
        _ => Ok(()),
    }
}

/// Whether there is no such cgroup, any more or at all.
fn remove_if_empty(directory: &Path) -> bool {
    fs::remove_dir(directory).map_or_else(|cause| cause.kind() == io::ErrorKind::NotFound, |()| true)
}

fn try_remove(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            try_remove(&entry.path())?;
        }
    }
    for pid in members(directory).unwrap_or_default() {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may be gone already.
            kill_process(pid, Signal::KILL).ok();
        }
    }
    fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_behind_a_key_is_not_that_of_a_longer_key() {
        let events = "low 0\noom 12\noom_kill 3\noom_group_kill 1\n";
        assert_eq!(number(events, "oom_kill"), Some(3));
        assert_eq!(number(events, "oom"), Some(12));
        assert_eq!(number("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", "oom_kill"), Some(7));
        assert_eq!(number(events, "max"), None);
    }

    #[test]
    fn a_name_that_leads_out_of_the_hierarchy_is_refused() {
        let hierarchy = Hierarchy { version: Version::V2, mount: "/nonexistent".into(), root: "/".into() };
        for name in ["", "/a", "../a", "a/../b"] {
            let refused = Cgroup::make(&hierarchy, name, Limits::default());
            assert!(matches!(refused, Err(Error::Name { .. })), "{name:?}");
        }
    }
}
