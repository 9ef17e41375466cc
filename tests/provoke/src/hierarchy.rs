//! Finds the cgroup hierarchy that has the memory controller: v1, v2, or both mounted side by side ("hybrid").

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Error;

/// Version of the cgroup interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// The hierarchy with the memory controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its version.
    pub version: Version,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Which cgroup is mounted there: `/`, or deeper inside a container.
    pub root: String,
}

impl Hierarchy {
    /// Reads `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
    pub fn find() -> Result<Self, Error> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let has_memory = |mount: &Path| {
            fs::read_to_string(mount.join("cgroup.controllers"))
                .is_ok_and(|list| list.split_ascii_whitespace().any(|name| name == "memory"))
        };
        Self::among(&text, has_memory).ok_or(Error::NoHierarchy)
    }

    /// Absolute path in the hierarchy of the cgroup in directory `directory` below the mount.
    #[must_use]
    pub fn path_of(&self, directory: &Path) -> String {
        let relative = directory.strip_prefix(&self.mount).unwrap_or(directory).to_string_lossy();
        format!("{}/{relative}", self.root.trim_end_matches('/'))
    }

    fn among(mountinfo: &str, has_memory: impl Fn(&Path) -> bool) -> Option<Self> {
        let mounts = || mountinfo.lines().filter_map(Mount::parse);
        let version1 = mounts().find(|mount| mount.kind == "cgroup" && mount.options.split(',').any(|o| o == "memory"));
        let chosen = version1.map(|mount| (Version::V1, mount)).or_else(|| {
            mounts().find(|m| m.kind == "cgroup2" && has_memory(Path::new(m.point))).map(|m| (Version::V2, m))
        });
        chosen.map(|(version, mount)| Self { version, mount: mount.point.into(), root: mount.root.into() })
    }
}

/// The fields of one line of mountinfo that matter here.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut filesystem = filesystem.split(' ');
        Some(Self {
            root: mount.next()?,
            point: mount.next()?,
            kind: filesystem.next()?,
            options: filesystem.nth(1).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const UNIFIED: &str = "29 22 0:25 /docker/abc /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn a_hybrid_machine_has_its_memory_controller_on_v1() {
        let found = Hierarchy::among(HYBRID, |_| false).expect("found");
        assert_eq!(found.version, Version::V1);
        assert_eq!(found.mount, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(found.path_of(Path::new("/sys/fs/cgroup/memory/a/b")), "/a/b");
    }

    #[test]
    fn inside_a_container_the_path_begins_with_the_mounts_root() {
        let found = Hierarchy::among(UNIFIED, |_| true).expect("found");
        assert_eq!(found.version, Version::V2);
        assert_eq!(found.path_of(Path::new("/sys/fs/cgroup/a")), "/docker/abc/a");
    }

    #[test]
    fn a_unified_hierarchy_without_memory_is_not_taken() {
        assert_eq!(Hierarchy::among(UNIFIED, |_| false), None);
    }
}
