//! The secret of this boot: made once, kept for the next start of the program, told to nobody but netconsole's receivers.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    rand::{GetRandomFlags, getrandom},
};
use thiserror::Error;

use crate::contract::netconsole::SECRET_BYTES;

/// The file, in the directory of the state.
const FILE: &str = "netconsole-secret";

/// What is written before it takes the place of [`FILE`].
const NEW_FILE: &str = "netconsole-secret.new";

/// Held while a program looks after the targets.
const LOCK: &str = "netconsole-lock";

/// Names of all files that are made in the directory of the state.
pub const STATE_FILES: [&str; 3] = [FILE, NEW_FILE, LOCK];

/// Bytes of the file that are read: a boot id, a secret and two ends of lines are some 70.
const MAX_FILE: u64 = 256;

/// Only its owner may read it.
const MODE: u32 = 0o600;

/// Why there is no secret.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file.
    #[error("{attempt} {}", path.display())]
    File {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel gives no random bytes.
    #[error("get random bytes")]
    Random(#[source] io::Error),
    /// Another program looks after the targets.
    #[error("another `detector netconsole` runs on this machine: it holds {}", .0.display())]
    Locked(PathBuf),
}

/// Keeps another instance from the targets as long as it lives.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held open")] File);

/// Makes `directory` if need be, and takes the lock in it.
///
/// # Errors
/// If another has it.
pub fn lock(directory: &Path) -> Result<Lock, SecretError> {
    let path = directory.join(LOCK);
    let failed = |attempt| {
        let path = path.clone();
        move |source| SecretError::File { attempt, path, source }
    };
    fs::create_dir_all(directory).map_err(failed("make the directory of"))?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(&path);
    let file = file.map_err(failed("open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SecretError::Locked(path)),
        Err(errno) => Err(failed("lock")(errno.into())),
    }
}

/// The secret of boot `boot`, in hexadecimal: that which is kept in `directory`, or else a new one that is kept from now on.
///
/// # Errors
/// As [`SecretError`] tells.
pub fn of_boot(directory: &Path, boot: &str) -> Result<String, SecretError> {
    if let Some(secret) = read(&directory.join(FILE), boot) {
        return Ok(secret);
    }
    let secret = make()?;
    let (path, new) = (directory.join(FILE), directory.join(NEW_FILE));
    let written = || {
        fs::remove_file(&new)
            .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new)?;
        file.write_all(format!("{boot}\n{secret}\n").as_bytes())?;
        fs::rename(&new, &path)
    };
    written().map_err(|source| SecretError::File { attempt: "write", path: path.clone(), source })?;
    Ok(secret)
}

/// Whether a program that makes targets ran with its state in `directory`, which a boot empties.
#[must_use]
pub fn was_made(directory: &Path) -> bool {
    directory.join(FILE).exists()
}

/// Random bytes in hexadecimal.
///
/// # Errors
/// If the kernel gives none.
pub fn make() -> Result<String, SecretError> {
    let mut bytes = [0; SECRET_BYTES];
    let mut filled = 0;
    while filled < bytes.len() {
        let count = getrandom(&mut bytes[filled..], GetRandomFlags::empty());
        filled += count.map_err(|errno| SecretError::Random(errno.into()))?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The secret in the file, if it is of this boot and nobody else could read it.
fn read(path: &Path, boot: &str) -> Option<String> {
    let file = File::open(path).ok()?;
    let private = file.metadata().ok()?.mode() & 0o077 == 0;
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).ok()?;
    let (of_boot, secret) = text.strip_suffix('\n')?.split_once('\n')?;
    let whole = secret.len() == 2 * SECRET_BYTES && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
    (private && of_boot == boot && whole).then(|| secret.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_boot_has_one_secret_and_the_next_another() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = of_boot(directory.path(), "boot-1").expect("a secret");
        assert_eq!(first.len(), 32);
        assert_eq!(of_boot(directory.path(), "boot-1").expect("a secret"), first);
        assert_ne!(of_boot(directory.path(), "boot-2").expect("a secret"), first);
    }

    #[test]
    fn the_file_is_its_owners_alone_and_what_others_could_read_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        let first = of_boot(directory.path(), "b").expect("a secret");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert_ne!(of_boot(directory.path(), "b").expect("a secret"), first);
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        for text in ["", "b", "b\n", "b\nxyz\n", "\n\n\n"] {
            fs::write(directory.path().join(FILE), text).expect("written");
            assert_eq!(of_boot(directory.path(), "b").expect("a secret").len(), 32, "{text:?}");
        }
    }

    #[test]
    fn only_one_looks_after_the_targets() {
        let directory = tempfile::tempdir().expect("a directory");
        let held = lock(directory.path()).expect("free");
        assert!(matches!(lock(directory.path()), Err(SecretError::Locked(_))));
        drop(held);
        assert!(lock(directory.path()).is_ok());
    }
}
