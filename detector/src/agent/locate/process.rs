//! Asks a process which memory cgroup it lives in: the last resort for a cgroup whose making was missed, and the way of
//! sources that tell a pid alone.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::{
    cgroup_path::{components, path_of_level},
    hierarchy::Hierarchy,
    walk::directory,
};
use crate::agent::source::small_file::{self, under};

/// Largest `/proc/PID/cgroup` that is read, in bytes.
const LIMIT: u64 = 64 << 10;

/// The path of cgroup `id`, if process `pid` lives in it or below it. The answer is checked against the directory's
/// inode number: the process may have moved or its pid be another's by now, and on cgroup v2 it may sit below the
/// cgroup that its memory is charged to (no memory controller there). A cgroup that is gone cannot be checked, and so
/// is not told.
pub(super) fn cgroup_path(root: &Path, pid: u32, hierarchy: &Hierarchy, id: u64) -> Option<String> {
    let path = listed_path(root, pid, hierarchy)?;
    let found = ancestors(&path)?
        .find(|path| fs::metadata(directory(&hierarchy.mount, path)).is_ok_and(|about| about.ino() == id));
    found.map(str::to_owned)
}

/// The path of the cgroup that the memory of process `pid` is charged to now, if it can be seen from here.
///
/// On cgroup v2 that is the nearest one with the memory controller: it has `memory.events`, as only the root has not
/// (`CFTYPE_NOT_ON_ROOT`, mm/memcontrol.c). One that is gone says nothing, and counts as having been it.
pub(super) fn memory_cgroup(root: &Path, pid: u32, hierarchy: &Hierarchy) -> Option<String> {
    let path = listed_path(root, pid, hierarchy)?;
    // kernel/cgroup/cgroup.c, proc_cgroup_show: a task that has not been reaped may sit in a cgroup that is gone.
    if let Some(gone) = path.strip_suffix(" (deleted)") {
        return ancestors(gone).map(|_| gone.to_owned());
    }
    if hierarchy.number != 0 {
        return Some(ancestors(&path)?.next()?.to_owned());
    }
    let charged = ancestors(&path)?.find(|path| directory(&hierarchy.mount, path).join("memory.events").exists());
    Some(charged.unwrap_or("/").to_owned())
}

/// The path in the memory hierarchy's line of `/proc/PID/cgroup`.
fn listed_path(root: &Path, pid: u32, hierarchy: &Hierarchy) -> Option<String> {
    let file = small_file::read(&under(root, "/proc").join(pid.to_string()).join("cgroup"), LIMIT).ok()??;
    let text = String::from_utf8_lossy(&file.bytes);
    let path = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let number: u32 = fields.next()?.parse().ok()?;
        fields.nth(1).filter(|_| number == hierarchy.number)
    })?;
    Some(path.to_owned())
}

/// The path and those above it; `None` for `/../x`: outside of the cgroup namespace that we look from.
fn ancestors(path: &str) -> Option<impl Iterator<Item = &str>> {
    if components(path).any(|component| component == "..") {
        return None;
    }
    let depth = u32::try_from(components(path).count()).ok()?;
    Some((0..=depth).rev().map(move |level| path_of_level(path, level)))
}
