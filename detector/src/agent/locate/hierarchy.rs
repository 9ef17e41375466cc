//! Finds the hierarchy that memory cgroups live in: its number, where it is mounted, and whether all of it is seen.
//!
//! Sources: `/proc/self/cgroup` (cgroups(7)) has one line `number:controllers:path` per hierarchy, cgroup v2 with number
//! 0 and no controllers; `/proc/self/mountinfo` (proc_pid_mountinfo(5)) has the mounts.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::agent::source::small_file::{self, under};

/// Largest `/proc` file that is read, in bytes. A machine with thousands of containers has thousands of mounts.
const PROC_LIMIT: u64 = 16 << 20;

/// Where memory cgroups live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Number as in `/proc/PID/cgroup`; 0 is cgroup v2.
    pub number: u32,
    /// Which versions the machine has mounted.
    pub version: Version,
    /// Mount point, under the root that the machine is seen through.
    pub mount: PathBuf,
    /// How much of the hierarchy the mount shows.
    pub view: View,
}

/// Versions of cgroups in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// Version 1 alone.
    V1,
    /// Version 2 alone.
    V2,
    /// Both are mounted; [`Hierarchy::number`] tells which of them has the memory controller.
    Hybrid,
}

/// How much of the hierarchy a mount shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    /// All, from its root.
    Whole,
    /// A part, as in a container with a cgroup namespace of its own. Paths below it are not those that the kernel's
    /// records carry, so that the tree is not walked: cgroups become known as they are made.
    Part,
}

/// Why the hierarchy could not be found.
#[derive(Debug, thiserror::Error)]
pub enum HierarchyError {
    /// A file of `/proc` could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither version has a memory controller.
    #[error("find the memory controller: neither a cgroup v1 hierarchy nor {path} lists it (cgroup_disable=memory?)")]
    NoMemory {
        /// `cgroup.controllers` of cgroup v2, or where it would be.
        path: PathBuf,
    },
    /// The hierarchy exists but is not mounted here.
    #[error(
        "find the mount of cgroup hierarchy {number}: {path} has none; mount it, or give a container the host's /sys/fs/cgroup"
    )]
    NotMounted {
        /// Number of the hierarchy.
        number: u32,
        /// The file that was searched.
        path: PathBuf,
    },
}

impl Hierarchy {
    /// Finds the hierarchy of the machine seen through `root` (`/` for this machine).
    ///
    /// # Errors
    /// `/proc` cannot be read, or there is no memory controller, or its hierarchy is not mounted.
    pub fn find(root: &Path) -> Result<Self, HierarchyError> {
        let cgroup = read(&under(root, "/proc/self/cgroup"))?;
        let mountinfo_path = under(root, "/proc/self/mountinfo");
        let mountinfo = read(&mountinfo_path)?;
        let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();

        let number = memory_v1(&cgroup).unwrap_or(0);
        let candidates: Vec<PathBuf> = mounts
            .iter()
            .filter(|mount| if number == 0 { mount.is_v2() } else { mount.has_memory_v1() })
            .map(|mount| under(root, &unescape(mount.point)))
            .collect();
        // Several mounts: a pod sees its own part at /sys/fs/cgroup, and perhaps the whole at a host path.
        let whole = candidates.iter().find(|mount| is_root(mount, number)).cloned();
        let (view, mount) = match (whole, candidates.into_iter().next()) {
            (Some(mount), _) => (View::Whole, mount),
            (None, Some(mount)) => (View::Part, mount),
            (None, None) => return Err(HierarchyError::NotMounted { number, path: mountinfo_path }),
        };
        if number == 0 && view == View::Whole {
            check_v2_memory(&mount)?;
        }
        let version = match (mounts.iter().any(Mount::is_v1), mounts.iter().any(Mount::is_v2)) {
            (true, true) => Version::Hybrid,
            (false, true) => Version::V2,
            _ => Version::V1,
        };
        Ok(Self { number, version, mount, view })
    }
}

struct Mount<'a> {
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `36 35 98:0 /root /point options optional… - type source super-options`.
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        let mut after = after.split(' ');
        Some(Self { point, kind: after.next()?, options: after.nth(1)? })
    }

    fn is_v1(&self) -> bool {
        self.kind == "cgroup"
    }

    fn is_v2(&self) -> bool {
        self.kind == "cgroup2"
    }

    fn has_memory_v1(&self) -> bool {
        self.is_v1() && self.options.split(',').any(|option| option == "memory")
    }
}

/// Number of the v1 hierarchy with the memory controller.
fn memory_v1(cgroup: &str) -> Option<u32> {
    cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let number = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|name| name == "memory").then_some(number)
    })
}

/// Whether a mount shows the hierarchy's root: `cgroup.sane_behavior` is `CFTYPE_ONLY_ON_ROOT` (kernel/cgroup/cgroup-v1.c),
/// `cgroup.events` is `CFTYPE_NOT_ON_ROOT` (kernel/cgroup/cgroup.c).
fn is_root(mount: &Path, number: u32) -> bool {
    match number {
        0 => mount.join("cgroup.controllers").exists() && !mount.join("cgroup.events").exists(),
        _ => mount.join("cgroup.sane_behavior").exists(),
    }
}

fn check_v2_memory(mount: &Path) -> Result<(), HierarchyError> {
    let path = mount.join("cgroup.controllers");
    if read(&path)?.split_whitespace().any(|name| name == "memory") {
        return Ok(());
    }
    Err(HierarchyError::NoMemory { path })
}

fn read(path: &Path) -> Result<String, HierarchyError> {
    let failed = |source| HierarchyError::Read { path: path.to_owned(), source };
    let file = small_file::read(path, PROC_LIMIT).map_err(failed)?;
    let file = file.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    Ok(String::from_utf8_lossy(&file.bytes).into_owned())
}

/// Undoes the octal escapes of mountinfo: `\040` is a space.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if byte == b'\\' => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
";
    const V2: &str = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn machine(cgroup: &str, mountinfo: &str, files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let own = [("/proc/self/cgroup", cgroup), ("/proc/self/mountinfo", mountinfo)];
        for (path, content) in own.iter().chain(files) {
            let path = under(root.path(), path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn version_1_is_found_by_its_number() {
        let files = [("/sys/fs/cgroup/memory/cgroup.sane_behavior", "0\n")];
        let root = machine("8:pids:/\n4:memory:/a:b\n1:name=systemd:/\n", V1, &files);
        let found = Hierarchy::find(root.path()).unwrap();
        let mount = under(root.path(), "/sys/fs/cgroup/memory");
        assert_eq!(found, Hierarchy { number: 4, version: Version::V1, mount, view: View::Whole });
    }

    #[test]
    fn version_2_has_number_0() {
        let root = machine("0::/init.scope\n", V2, &[("/sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n")]);
        let found = Hierarchy::find(root.path()).unwrap();
        let mount = under(root.path(), "/sys/fs/cgroup");
        assert_eq!(found, Hierarchy { number: 0, version: Version::V2, mount, view: View::Whole });
    }

    #[test]
    fn a_hybrid_machine_has_memory_in_either_version() {
        let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let files = [
            ("/sys/fs/cgroup/memory/cgroup.sane_behavior", "0\n"),
            ("/sys/fs/cgroup/unified/cgroup.controllers", "memory\n"),
        ];
        let mounts = format!("{V1}{unified}");
        let old = Hierarchy::find(machine("4:memory:/\n0::/\n", &mounts, &files).path()).unwrap();
        assert_eq!((old.number, old.version), (4, Version::Hybrid));
        let new = Hierarchy::find(machine("2:cpu,cpuacct:/\n0::/\n", &mounts, &files).path()).unwrap();
        assert_eq!((new.number, new.version), (0, Version::Hybrid));
        assert!(new.mount.ends_with("unified"));
    }

    #[test]
    fn a_container_sees_only_a_part_unless_the_whole_is_mounted_too() {
        let part = [("/sys/fs/cgroup/cgroup.controllers", "memory\n"), ("/sys/fs/cgroup/cgroup.events", "")];
        let found = Hierarchy::find(machine("0::/\n", V2, &part).path()).unwrap();
        assert_eq!(found.view, View::Part);

        let host = "30 22 0:26 /../.. /host/sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        let both = [part[0], part[1], ("/host/sys/fs/cgroup/cgroup.controllers", "memory\n")];
        let found = Hierarchy::find(machine("0::/\n", &format!("{V2}{host}"), &both).path()).unwrap();
        assert_eq!(found.view, View::Whole);
        assert!(found.mount.ends_with("host/sys/fs/cgroup"));
    }

    #[test]
    fn a_machine_without_memory_controller_or_mount_says_so() {
        let off = machine("0::/\n", V2, &[("/sys/fs/cgroup/cgroup.controllers", "cpu pids\n")]);
        assert!(matches!(Hierarchy::find(off.path()), Err(HierarchyError::NoMemory { .. })));
        let unmounted = machine("4:memory:/\n", "22 1 0:1 / / rw - ext4 /dev/vda rw\n", &[]);
        assert!(matches!(Hierarchy::find(unmounted.path()), Err(HierarchyError::NotMounted { number: 4, .. })));
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(Hierarchy::find(empty.path()), Err(HierarchyError::Read { .. })));
    }

    #[test]
    fn a_mount_point_with_a_space_is_found() {
        let mounts = "29 22 0:26 / /my\\040cgroups rw - cgroup2 cgroup2 rw\n";
        let root = machine("0::/\n", mounts, &[("/my cgroups/cgroup.controllers", "memory\n")]);
        assert!(Hierarchy::find(root.path()).unwrap().mount.ends_with("my cgroups"));
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        let mounts = format!("garbage\n - \n1 2 3 - cgroup2\n{V2}");
        let root = machine("x:memory\n::\n0::/\n", &mounts, &[("/sys/fs/cgroup/cgroup.controllers", "memory\n")]);
        assert_eq!(Hierarchy::find(root.path()).unwrap().number, 0);
    }
}
