//! A tree of small files, as configfs is one.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

/// Where netconsole's targets are.
pub const NETCONSOLE: &str = "/sys/kernel/config/netconsole";

/// Bytes of an attribute: a page at most (`SIMPLE_ATTR_SIZE`, `fs/configfs/file.c`).
const ATTRIBUTE: u64 = 4096;

/// What configfs offers. Paths are relative to netconsole's directory.
pub trait Tree {
    /// Names of the directories in a directory, at most `most`.
    ///
    /// # Errors
    /// If there is no such directory.
    fn list(&self, path: &str, most: usize) -> io::Result<Vec<String>>;

    /// An attribute, without the end of its line.
    ///
    /// # Errors
    /// If there is none.
    fn read(&self, path: &str) -> io::Result<String>;

    /// Sets an attribute.
    ///
    /// # Errors
    /// If there is none, or the kernel refuses.
    fn write(&self, path: &str, value: &str) -> io::Result<()>;

    /// Makes a directory, which the kernel fills.
    ///
    /// # Errors
    /// If it is there already, or the kernel refuses.
    fn make(&self, path: &str) -> io::Result<()>;

    /// Removes a directory that somebody made.
    ///
    /// # Errors
    /// If it is not there, or holds one that somebody made.
    fn remove(&self, path: &str) -> io::Result<()>;
}

/// A real directory.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// That at `path`.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_dir()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(Path::new(path))
    }
}

impl Tree for Directory {
    fn list(&self, path: &str, most: usize) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(path))?.take(most) {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let mut text = String::new();
        fs::File::open(self.path(path))?.take(ATTRIBUTE).read_to_string(&mut text)?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    fn write(&self, path: &str, value: &str) -> io::Result<()> {
        // One write is one value. A file is never made: where there is none, the kernel has no such attribute.
        fs::OpenOptions::new().write(true).open(self.path(path))?.write_all(value.as_bytes())
    }

    fn make(&self, path: &str) -> io::Result<()> {
        fs::create_dir(self.path(path))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_dir(self.path(path))
    }
}
