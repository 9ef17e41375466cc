//! What others left: directories of other versions of the records are emptied and removed, and `detector cleanup` removes
//! all there is.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use detector_common::Kind;

use super::{
    Counts, PinError, Pins, kills, maps,
    place::{self, Place, entries, name},
};

/// Most records that one ring is asked for: more than fit into any that we ever had.
const RECORDS: usize = 1 << 20;

/// Deepest directory below the one of the pins.
const DEPTH: usize = 8;

/// Kind of a record that nothing is known of.
const UNKNOWN: &str = "unknown";

/// What a directory of another version of the records held. Its records cannot be read: they are lost, with this number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// Name of the directory, such as `abi-2`.
    pub name: String,
    /// Records in its ring of kills and hung tasks, by kind, in the order of the kinds' names.
    pub records: Vec<(&'static str, u64)>,
    /// Why its ring could not be read, if so: then the numbers are unknown.
    pub unreadable: Option<String>,
    /// The kills that it counted, also those of the lost records, if its counts can be read.
    pub kills: Option<Counts>,
}

impl Abandoned {
    /// All records together.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.records.iter().map(|(_, count)| count).sum()
    }
}

/// Has programs of other versions write no more, as fast as that can be done.
pub(super) fn silence(place: &Place) -> Result<(), PinError> {
    for directory in place.foreign() {
        let active = maps::pinned_active(&directory.join(maps::DIRECTORY).join(maps::ACTIVE));
        if active.and_then(|mut active| maps::close(&mut active)).is_err() {
            detach(&directory)?;
        }
    }
    Ok(())
}

/// Detaches, counts and removes what directories of other versions hold.
pub(super) fn empty(place: &Place) -> Result<Vec<Abandoned>, PinError> {
    place.foreign().iter().map(|directory| abandon(directory)).collect()
}

fn detach(directory: &Path) -> Result<(), PinError> {
    for other in entries(directory).into_iter().filter(|path| name(path) != maps::DIRECTORY) {
        place::remove(&other)?;
    }
    place::wait_for_release();
    Ok(())
}

fn abandon(directory: &Path) -> Result<Abandoned, PinError> {
    let pinned = directory.join(maps::DIRECTORY);
    let ring = maps::pinned_ring(&pinned.join(maps::PRECIOUS));
    // Detached first, so that ring and counts stand still when they are read.
    detach(directory)?;
    let kills = kills::pinned(&pinned).ok();
    let mut records = BTreeMap::new();
    let unreadable = match ring {
        Ok(mut ring) => {
            for _ in 0..RECORDS {
                let Some(record) = ring.next() else { break };
                *records.entry(kind(&record)).or_default() += 1;
            }
            None
        }
        Err(error) => Some(error.to_string()),
    };
    place::remove(directory)?;
    Ok(Abandoned { name: name(directory), records: records.into_iter().collect(), unreadable, kills })
}

/// The kind of a record of any version: the second 16 bits, as long as there is a version.
fn kind(record: &[u8]) -> &'static str {
    let number = record.get(2..4).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    number.and_then(|number| Kind(number).name()).unwrap_or(UNKNOWN)
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files and directories below that of the pins, with their paths from there, in the order of their removal.
    pub paths: Vec<PathBuf>,
    /// Links among them: programs that were attached to a hook.
    pub links: usize,
}

/// Detaches and removes all that is kept, and the directory itself. Nothing there is no error.
///
/// # Errors
/// If the directory is not on a BPF file system, or a detector is running on it.
pub fn remove_all(pins: &Pins) -> Result<Removed, PinError> {
    let root = pins.directory();
    if fs::symlink_metadata(root).is_err() {
        return Ok(Removed::default());
    }
    place::require_bpf(root)?;
    let _lock = place::lock(root)?;
    let mut removed = Removed::default();
    remove_below(root, root, 0, &mut removed)?;
    place::remove(root)?;
    place::wait_for_release();
    Ok(removed)
}

/// Maps go last: as long as a program is attached, its counts are.
fn remove_below(root: &Path, directory: &Path, depth: usize, removed: &mut Removed) -> Result<(), PinError> {
    let mut paths = entries(directory);
    paths.sort_by_key(|path| name(path) == maps::DIRECTORY);
    for path in paths {
        let is_directory = fs::symlink_metadata(&path).is_ok_and(|about| about.is_dir());
        if is_directory && depth < DEPTH {
            remove_below(root, &path, depth + 1, removed)?;
        }
        place::remove(&path)?;
        let is_link = path.parent().is_some_and(|parent| name(parent) == "links") && !is_directory;
        removed.links += usize::from(is_link);
        removed.paths.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_record_of_any_version_is_told_and_foreign_bytes_are_unknown() {
        assert_eq!(kind(&[[9, 0], Kind::OOM_MARK.0.to_ne_bytes()].concat()), "oom_mark");
        assert_eq!(kind(&[9, 0, 0xff, 0xff, 1]), UNKNOWN);
        assert_eq!(kind(&[9, 0, 1]), UNKNOWN);
        assert_eq!(kind(&[]), UNKNOWN);
    }

    #[test]
    fn cleaning_up_touches_no_other_file_system() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("precious"), "x").unwrap();
        let error = remove_all(&Pins::below(root.path())).unwrap_err();
        assert!(matches!(error, PinError::NotBpf { .. }), "{error}");
        assert!(root.path().join("precious").exists());
    }

    #[test]
    fn where_nothing_is_nothing_is_removed() {
        assert_eq!(remove_all(&Pins::below("/nowhere/at/all")).unwrap(), Removed::default());
    }
}
