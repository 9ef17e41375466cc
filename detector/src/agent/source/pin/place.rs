//! The directory that pins lie in: made, locked, emptied.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use detector_common::ABI;
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat, statfs},
    io::Errno,
    thread::{MembarrierCommand, membarrier},
};

use super::{PinError, Pins};

/// Type of a BPF file system (`BPF_FS_MAGIC`, `include/uapi/linux/magic.h`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Begin of the name of a directory of one version of the records.
const ABI_PREFIX: &str = "abi-";

/// Entries of one directory that are looked at. There are about 40 of ours.
pub(super) const ENTRIES: usize = 4096;

/// The directory of the version of the records that this program speaks, locked.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    own: PathBuf,
    _lock: OwnedFd,
}

impl Place {
    /// Makes the directories that are not there, and locks them.
    ///
    /// # Errors
    /// If that is not possible, or somebody else has the lock.
    pub(super) fn open(pins: &Pins) -> Result<Self, PinError> {
        let root = pins.directory().to_owned();
        require_bpf(&root)?;
        make(&root)?;
        let lock = lock(&root)?;
        let own = root.join(format!("{ABI_PREFIX}{ABI}"));
        make(&own)?;
        Ok(Self { root, own, _lock: lock })
    }

    /// Directory of our own version of the records.
    pub(super) fn own(&self) -> &Path {
        &self.own
    }

    /// Directories of other versions.
    pub(super) fn foreign(&self) -> Vec<PathBuf> {
        let is_foreign = |path: &PathBuf| {
            path != &self.own && path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"abi-"))
        };
        entries(&self.root).into_iter().filter(is_foreign).collect()
    }
}

/// Entries of a directory in the order of their names; none if it cannot be read.
pub(super) fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<_> = entries.take(ENTRIES).filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// Name of the last part of `path`, as text.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Makes a directory for root alone, with those above it.
pub(super) fn make(directory: &Path) -> Result<(), PinError> {
    // What lies in the way is no directory of ours.
    if fs::symlink_metadata(directory).is_ok_and(|about| !about.is_dir()) {
        remove(directory)?;
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(PinError::file("making the directory", directory))
}

/// Removes a file, or a directory with all that is in it. Nothing there is no error.
pub(super) fn remove(path: &Path) -> Result<(), PinError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PinError::file("removing", path)(error)),
        _ => Ok(()),
    }
}

/// Waits until files that were removed hold nothing any more. Up to some 6.x the kernel lets go of what was pinned only
/// after an RCU grace period (`bpf_free_inode`, `kernel/bpf/inode.c`), which this command waits for; the second one is for
/// what the first let begin (membarrier(2)).
pub(super) fn wait_for_release() {
    for _ in 0..2 {
        // Refused on kernels with full dynticks. There two programs may be attached for some milliseconds.
        if membarrier(MembarrierCommand::Global).is_err() {
            return;
        }
    }
}

/// Refuses a directory that does not, or would not, lie on a BPF file system.
pub(super) fn require_bpf(directory: &Path) -> Result<(), PinError> {
    for above in directory.ancestors().filter(|above| !above.as_os_str().is_empty()) {
        match statfs(above) {
            Ok(about) if about.f_type.cast_unsigned() & 0xffff_ffff == BPF_FS_MAGIC => return Ok(()),
            Ok(_) => return Err(PinError::NotBpf { directory: above.to_owned() }),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(PinError::file("looking at the file system of", above)(error.into())),
        }
    }
    Err(PinError::NotBpf { directory: directory.to_owned() })
}

/// Takes the one lock of the directory; goes with its descriptor. A BPF file system knows flock(2) as any other does.
pub(super) fn lock(directory: &Path) -> Result<OwnedFd, PinError> {
    let failed = |error: Errno| PinError::file("locking", directory)(error.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let descriptor = open(directory, flags, Mode::empty()).map_err(failed)?;
    match flock(&descriptor, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Err(PinError::InUse { directory: directory.to_owned() }),
        other => other.map_err(failed)?,
    }
    // Somebody may have removed the directory before we had its lock.
    let (locked, there) = (fstat(&descriptor).map_err(failed)?, stat(directory).map_err(failed)?);
    if locked.st_ino != there.st_ino {
        return Err(PinError::InUse { directory: directory.to_owned() });
    }
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_elsewhere_is_refused_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let wanted = root.path().join("a/b");
        let error = Place::open(&Pins::below(&wanted)).unwrap_err();
        assert!(matches!(&error, PinError::NotBpf { directory } if directory == root.path()), "{error}");
        assert!(!root.path().join("a").exists());
    }

    #[test]
    fn a_directory_is_locked_once() {
        let root = tempfile::tempdir().unwrap();
        let first = lock(root.path()).unwrap();
        let error = lock(root.path()).unwrap_err();
        assert!(matches!(error, PinError::InUse { .. }), "{error}");
        drop(first);
        lock(root.path()).unwrap();
    }

    #[test]
    fn removing_is_safe_to_repeat() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a");
        fs::create_dir_all(directory.join("b")).unwrap();
        fs::write(directory.join("b/c"), "x").unwrap();
        remove(&directory).unwrap();
        remove(&directory).unwrap();
        assert!(entries(root.path()).is_empty());
    }

    #[test]
    fn a_file_in_the_way_of_a_directory_goes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fs::write(&path, "x").unwrap();
        make(&path).unwrap();
        assert!(path.is_dir());
    }
}
