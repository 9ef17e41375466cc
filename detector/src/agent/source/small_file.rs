//! Reads small files that others wrote: bounded, and never waiting on what is no regular file.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustix::fs::{Mode, OFlags};

/// A file read whole.
pub(crate) struct SmallFile {
    /// Its content.
    pub(crate) bytes: Vec<u8>,
    /// User that owns it.
    pub(crate) owner: u32,
}

/// Reads `path`, at most `limit` bytes; `Ok(None)` where there is no such file.
///
/// Some of these paths lie in directories that users write to: a FIFO must not hold us up (`O_NONBLOCK`), and only a
/// regular file is read.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<SmallFile>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(Some(SmallFile { bytes, owner: std::os::unix::fs::MetadataExt::uid(&about) }))
}

/// Joins an absolute path of the machine to the root under which the machine is seen.
pub(crate) fn under(root: &Path, absolute: &str) -> std::path::PathBuf {
    root.join(absolute.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_an_answer_and_a_directory_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(read(&root.path().join("absent"), 10).unwrap().is_none());
        assert!(read(root.path(), 10).is_err());
    }

    #[test]
    fn a_file_at_the_limit_is_read_and_one_byte_more_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path, 4).unwrap().unwrap().bytes, b"1234");
        let error = read(&path, 3).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_fifo_is_refused_without_waiting_for_a_writer() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(read(&path, 10).is_err());
    }
}
