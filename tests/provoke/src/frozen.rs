//! A frozen file system: whoever writes to it hangs until it is thawed. In a test guest only.

use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use crate::{Error, guest};

/// `FIFREEZE` and `FITHAW` (`include/uapi/linux/fs.h`): `_IOWR('X', 119, int)`, `_IOWR('X', 120, int)`.
const FIFREEZE: u32 = 0xC004_5877;
const FITHAW: u32 = 0xC004_5878;

/// A frozen file system; thawed when dropped.
#[derive(Debug)]
pub(crate) struct Frozen {
    root: OwnedFd,
}

impl Frozen {
    /// Freezes the file system that `directory` is on.
    pub(crate) fn freeze(directory: &Path) -> Result<Self, Error> {
        guest::require("freezing a file system")?;
        let root = File::open(directory).map_err(|source| Error::Read { path: directory.into(), source })?;
        // SAFETY: FIFREEZE ignores its argument and the descriptor is open.
        if unsafe { libc::ioctl(root.as_raw_fd(), FIFREEZE as _, 0) } != 0 {
            return Err(Error::last("ioctl FIFREEZE"));
        }
        Ok(Self { root: root.into() })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // SAFETY: FITHAW ignores its argument and the descriptor is open.
        if unsafe { libc::ioctl(self.root.as_raw_fd(), FITHAW as _, 0) } != 0 {
            eprintln!("ioctl FITHAW: {}", std::io::Error::last_os_error());
        }
    }
}
