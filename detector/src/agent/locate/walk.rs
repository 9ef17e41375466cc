//! Reads the whole tree of memory cgroups once: id and path of each, and the counters that had risen before we looked.

use std::{fs, io, os::unix::fs::DirEntryExt, os::unix::fs::MetadataExt, path::Path, path::PathBuf};

use super::hierarchy::Hierarchy;
use crate::agent::{decode::event::CgroupKey, source::small_file};

/// Most cgroups that one walk reads.
pub(super) const WALK_LIMIT: usize = 65_536;

/// Deepest level that a walk descends to. The kernel has no limit by default; a path of this depth does not fit into a
/// record any more.
pub(super) const WALK_DEPTH: u32 = 256;

/// Largest counter file of a cgroup that is read, in bytes.
const EVENTS_LIMIT: u64 = 4096;

/// Counters of a cgroup from before the program started; only cgroups where one is not zero are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// The cgroup.
    pub key: CgroupKey,
    /// Its path.
    pub path: String,
    /// `oom` of `memory.events.local`: how often its own limit led to the OOM killer. `None` on cgroup v1.
    pub oom_events: Option<u64>,
    /// `oom_kill`: on v2 of `memory.events`, descendants included; on v1 of `memory.oom_control`, the cgroup's own.
    pub oom_kills: Option<u64>,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Id and path of each cgroup, parents before children.
    pub(super) cgroups: Vec<(u64, String)>,
    /// Counters that are not zero.
    pub(super) baselines: Vec<Baseline>,
    /// Directories that were removed while we read.
    pub(super) vanished: u64,
    /// Directories that could not be read for another reason.
    pub(super) unreadable: u64,
    /// Directories left out at a limit.
    pub(super) left_out: u64,
    /// The first directory that could not be read.
    pub(super) error: Option<WalkError>,
}

/// A directory of the cgroup tree could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read cgroup directory {path}")]
pub struct WalkError {
    /// The directory.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Walks the tree of `hierarchy`.
pub(super) fn walk(hierarchy: &Hierarchy) -> Walked {
    let mut walked = Walked::default();
    match fs::metadata(&hierarchy.mount) {
        Ok(about) => walked.visit(hierarchy, about.ino(), String::from("/")),
        Err(source) => walked.failed(hierarchy.mount.clone(), source),
    }
    let mut next = 0;
    while next < walked.cgroups.len() {
        let path = walked.cgroups[next].1.clone();
        next += 1;
        walked.read_children(hierarchy, &path);
    }
    walked
}

/// Directory of the cgroup `path` below a mount.
pub(super) fn directory(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

impl Walked {
    fn read_children(&mut self, hierarchy: &Hierarchy, path: &str) {
        let directory = directory(&hierarchy.mount, path);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(source) => return self.failed(directory, source),
        };
        let parent = path.trim_end_matches('/');
        let depth = parent.bytes().filter(|byte| *byte == b'/').count();
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(source) => return self.failed(directory, source),
            };
            // `d_type` and `d_ino` come with the directory: no stat per cgroup. Links are not followed.
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if self.cgroups.len() >= WALK_LIMIT || depth >= WALK_DEPTH as usize {
                self.left_out += 1;
                continue;
            }
            self.visit(hierarchy, entry.ino(), format!("{parent}/{}", entry.file_name().to_string_lossy()));
        }
    }

    fn visit(&mut self, hierarchy: &Hierarchy, id: u64, path: String) {
        let directory = directory(&hierarchy.mount, &path);
        let (oom_events, oom_kills) = match hierarchy.number {
            0 => (counter(&directory, "memory.events.local", "oom"), counter(&directory, "memory.events", "oom_kill")),
            _ => (None, counter(&directory, "memory.oom_control", "oom_kill")),
        };
        if oom_events.unwrap_or(0) > 0 || oom_kills.unwrap_or(0) > 0 {
            let key = CgroupKey { hierarchy: hierarchy.number, id };
            self.baselines.push(Baseline { key, path: path.clone(), oom_events, oom_kills });
        }
        self.cgroups.push((id, path));
    }

    fn failed(&mut self, path: PathBuf, source: io::Error) {
        // ENODEV: the directory was open while its cgroup was removed.
        if source.kind() == io::ErrorKind::NotFound
            || source.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
        {
            self.vanished += 1;
            return;
        }
        self.unreadable += 1;
        self.error.get_or_insert(WalkError { path, source });
    }
}

/// The value behind `key` in a file of lines `key value`; `None` where file or key is not there.
fn counter(directory: &Path, file: &str, key: &str) -> Option<u64> {
    let file = small_file::read(&directory.join(file), EVENTS_LIMIT).ok()??;
    let text = std::str::from_utf8(&file.bytes).ok()?;
    text.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key)?.1.trim().parse().ok())
}
