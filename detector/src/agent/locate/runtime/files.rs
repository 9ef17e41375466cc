//! The only way to the runtimes' files: below a root, bounded, and each announced before it is touched, so that it can be
//! told which one holds up its reader.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::agent::source::small_file::{self, SmallFile, under};

/// The files of a machine seen through a root directory.
pub struct Files<'a> {
    root: &'a Path,
    announce: Option<&'a dyn Fn(&Path)>,
}

impl fmt::Debug for Files<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Files").field("root", &self.root).finish_non_exhaustive()
    }
}

impl<'a> Files<'a> {
    /// The machine seen through `root` (`/` for this machine).
    #[must_use]
    pub fn under(root: &'a Path) -> Self {
        Self { root, announce: None }
    }

    /// The same; `announce` is told of each file and directory just before it is touched.
    #[must_use]
    pub fn noting(root: &'a Path, announce: &'a dyn Fn(&Path)) -> Self {
        Self { root, announce: Some(announce) }
    }

    /// Where the machine's `path` is found.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        under(self.root, path)
    }

    /// See [`small_file::read`].
    pub(super) fn read(&self, path: &Path, limit: u64) -> io::Result<Option<SmallFile>> {
        self.announced(path);
        small_file::read(path, limit)
    }

    /// The first `most` entries of a directory; none if it cannot be read.
    pub(super) fn list(&self, directory: &Path, most: usize) -> Vec<PathBuf> {
        self.announced(directory);
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        entries.flatten().take(most).map(|entry| entry.path()).collect()
    }

    /// Whether `path` is a directory that belongs to `user`.
    pub(super) fn is_directory_of(&self, path: &Path, user: u32) -> bool {
        self.announced(path);
        fs::metadata(path).is_ok_and(|about| about.is_dir() && about.uid() == user)
    }

    fn announced(&self, path: &Path) {
        if let Some(announce) = self.announce {
            announce(path);
        }
    }
}
