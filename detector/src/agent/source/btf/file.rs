//! The bytes of the kernel's BTF: mapped where the kernel allows it, else read.
//!
//! sysfs hands the file out in pieces of 4 KiB, which makes 1,400 system calls and a copy of 6 MB; a mapping (Linux 6.15
//! and later) needs neither.

use std::{
    fs::File,
    io::{self, Read},
    ops::Deref,
    os::fd::AsFd,
    path::Path,
    ptr::{self, NonNull},
    slice,
};

use rustix::{
    fs::{Mode, OFlags, fstatfs},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

/// Largest BTF that is read: five times what distributions ship.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// `SYSFS_MAGIC` (`include/uapi/linux/magic.h`).
const SYSFS_MAGIC: i64 = 0x6265_6572;

/// BTF in memory.
pub(in crate::agent::source) enum BtfFile {
    Mapped(Mapping),
    Read(Vec<u8>),
}

/// A private mapping for reading; unmapped when dropped.
pub(in crate::agent::source) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl BtfFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, or is larger than any kernel's.
    pub(in crate::agent::source) fn open(path: &Path) -> io::Result<Self> {
        // A FIFO in its place must not hold us up.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let length = about.len();
        if length > MAX_BYTES {
            return Err(too_large());
        }
        // Any refusal only means that the bytes must be read.
        match Mapping::of_sysfs(&file, length) {
            Ok(mapping) => Ok(Self::Mapped(mapping)),
            Err(_) => read_bounded(file, length).map(Self::Read),
        }
    }
}

impl Deref for BtfFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping.bytes(),
            Self::Read(bytes) => bytes,
        }
    }
}

impl Mapping {
    fn of_sysfs(file: &File, length: u64) -> io::Result<Self> {
        // A file elsewhere could be cut while it is mapped, and reading it would then end the process.
        let on_sysfs = fstatfs(file.as_fd())?.f_type as i64 == SYSFS_MAGIC;
        let length = usize::try_from(length).ok().filter(|length| on_sysfs && *length > 0);
        let length = length.ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: with a null address the kernel chooses a range that nothing else uses.
        let start = unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { start, length })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the range is mapped for reading until `self` is dropped, and holds the kernel's own BTF, which neither
        // changes nor shrinks while the kernel runs (`kernel/bpf/sysfs_btf.c`).
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

/// `length` is what the file says of itself; what it gives is bounded all the same.
fn read_bounded(file: File, length: u64) -> io::Result<Vec<u8>> {
    // One byte more, so that the end is found without growing.
    let mut bytes = Vec::with_capacity(length as usize + 1);
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES { Err(too_large()) } else { Ok(bytes) }
}

fn too_large() -> io::Error {
    io::Error::other(format!("it is larger than {MAX_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_on_sysfs_is_read() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), b"bytes").unwrap();
        let file = BtfFile::open(path.path()).unwrap();
        assert!(matches!(file, BtfFile::Read(_)));
        assert_eq!(*file, *b"bytes");
    }

    #[test]
    fn a_file_larger_than_any_kernels_is_refused() {
        let path = tempfile::NamedTempFile::new().unwrap();
        path.as_file().set_len(MAX_BYTES + 1).unwrap();
        assert!(BtfFile::open(path.path()).is_err());
    }

    #[test]
    fn the_kernels_own_file_is_the_same_mapped_and_read() {
        // Not every kernel has it.
        let path = Path::new("/sys/kernel/btf/vmlinux");
        let Ok(read) = std::fs::read(path) else { return };
        assert!(*BtfFile::open(path).unwrap() == *read);
    }
}
