//! The last resort for a cgroup whose making was missed: ask a process that lives in it.

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
    let file = small_file::read(&under(root, "/proc").join(pid.to_string()).join("cgroup"), LIMIT).ok()??;
    let text = String::from_utf8_lossy(&file.bytes);
    let path = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let number: u32 = fields.next()?.parse().ok()?;
        fields.nth(1).filter(|_| number == hierarchy.number)
    })?;
    // `/../x`: outside of the cgroup namespace that we look from.
    if components(path).any(|component| component == "..") {
        return None;
    }
    let depth = u32::try_from(components(path).count()).ok()?;
    (0..=depth)
        .rev()
        .map(|level| path_of_level(path, level))
        .find(|path| fs::metadata(directory(&hierarchy.mount, path)).is_ok_and(|about| about.ino() == id))
        .map(str::to_owned)
}
