//! One file of state that survives a restart of the agent, SIGKILL included.
//!
//! ```text
//! DIRECTORY/lock        held while the agent runs, so that two never write one state
//! DIRECTORY/state.json  one line about the file (version, boot, length), then the state
//! ```
//!
//! The file is replaced as a whole: written beside, then renamed. What was written is the kernel's once `write` returns,
//! so that SIGKILL costs nothing. It is not flushed to the disk (`fsync`): that waits for a disk as long as it hangs, and
//! a disk that hangs is what this program is to tell of. So after a crash of the *machine* the file may be an older one
//! or, on file systems that do not flush before such a rename (ext4 and btrfs do), empty: then it counts as damaged, is
//! set aside, and the state begins anew.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    marker::PhantomData,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::contract::metric::StateFailure;

/// Name of the file.
pub const STATE: &str = "state.json";

/// Name of the file that is written beside it and then takes its place.
pub const NEW: &str = "state.json.new";

/// Name under which one is set aside that cannot be understood.
pub const DAMAGED: &str = "state.json.damaged";

/// Name of the file that is locked while the agent runs.
pub const LOCK: &str = "lock";

/// Version of the form of the file; another one is not read.
const VERSION: u32 = 1;

/// Largest state, in bytes. The counts of 10,000 containers take some 2 MB.
pub const MAX_BYTES: u64 = 16 << 20;

/// Longest first line, in bytes.
const MAX_HEADER: usize = 1024;

/// Why state cannot be read or written. None of these keeps the agent from its work.
#[derive(Debug, Error)]
pub enum StateError {
    /// There is no directory for it.
    #[error("state.directory: making the directory {path}: must be one that can be made and written")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent uses it.
    #[error("state.directory: locking {path}: another agent uses this directory, and two must not")]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("reading the state in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written. The file that was there is as it was.
    #[error("saving the state to {path}: {}", sentence(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be made into text.
    #[error("saving the state to {path}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It has outgrown its bound.
    #[error("saving the state to {path}: it has {bytes} bytes and may have {MAX_BYTES}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

impl StateError {
    /// The word for it in metrics.
    #[must_use]
    pub fn reason(&self) -> StateFailure {
        match self {
            Self::Directory { source, .. } | Self::Read { source, .. } | Self::Write { source, .. } => failure(source),
            Self::TooLarge { .. } => StateFailure::TooLarge,
            Self::Locked { .. } | Self::Encode { .. } => StateFailure::Other,
        }
    }
}

/// The word in metrics for what keeps a file from being written.
pub(in crate::agent) fn failure(error: &io::Error) -> StateFailure {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StateFailure::DiskFull,
        io::ErrorKind::ReadOnlyFilesystem => StateFailure::ReadOnly,
        io::ErrorKind::PermissionDenied => StateFailure::Permission,
        _ => StateFailure::Other,
    }
}

fn sentence(error: &io::Error) -> &'static str {
    match failure(error) {
        StateFailure::DiskFull => "the disk or a quota is full",
        StateFailure::ReadOnly => "the file system is read-only",
        StateFailure::Permission => "this process has no right to",
        StateFailure::TooLarge | StateFailure::Other => "the kernel refused",
    }
}

/// What an earlier run left.
#[derive(Clone, Debug, PartialEq)]
pub enum Loaded<T> {
    /// Nothing.
    Fresh,
    /// Its state.
    Restored {
        /// The state.
        value: T,
        /// Whether the machine runs since as it ran then. If not, times since boot in it mean nothing.
        same_boot: bool,
    },
    /// A file that is not to be understood.
    Unusable {
        /// What is wrong with it, in a sentence.
        reason: String,
        /// Where it lies now, for somebody to look at; `None`: it could not be moved and will be overwritten.
        set_aside: Option<PathBuf>,
    },
}

/// The file. While this lives, no other agent has it.
#[derive(Debug)]
pub struct StateFile<T> {
    path: PathBuf,
    boot_id: String,
    /// Closing it gives the lock back.
    _lock: File,
    state: PhantomData<fn(T) -> T>,
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    boot_id: String,
    /// Bytes after this line.
    bytes: u64,
}

impl<T: Serialize + DeserializeOwned> StateFile<T> {
    /// Takes the file in `directory`, which is made if it is missing, in the boot `boot_id`.
    ///
    /// # Errors
    /// If the directory cannot be made or written, or another agent has it.
    pub fn open(directory: &Path, boot_id: &str) -> Result<Self, StateError> {
        // Names of pods are nobody else's business.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| StateError::Directory { path: directory.to_owned(), source })?;
        let path = directory.join(LOCK);
        let lock = private(&path).map_err(|source| StateError::Directory { path: directory.to_owned(), source })?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StateError::Locked { path }),
            Err(error) => return Err(StateError::Directory { path, source: error.into() }),
        }
        let path = directory.join(STATE);
        Ok(Self { path, boot_id: boot_id.to_owned(), _lock: lock, state: PhantomData })
    }

    /// Reads what an earlier run left. What is not to be understood is set aside.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn load(&self) -> Result<Loaded<T>, StateError> {
        let failed = |source| StateError::Read { path: self.path.clone(), source };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Fresh),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        Ok(match self.parse(&bytes) {
            Ok((value, same_boot)) => Loaded::Restored { value, same_boot },
            Err(reason) => Loaded::Unusable { reason, set_aside: self.set_aside() },
        })
    }

    /// Replaces the file. Waits for no disk.
    ///
    /// # Errors
    /// If it cannot be written; the former file stays.
    pub fn save(&self, value: &T) -> Result<(), StateError> {
        let encoded = |source| StateError::Encode { path: self.path.clone(), source };
        let body = serde_json::to_vec(value).map_err(encoded)?;
        let bytes = body.len() as u64;
        let header = Header { version: VERSION, boot_id: self.boot_id.clone(), bytes };
        let mut header = serde_json::to_vec(&header).map_err(encoded)?;
        header.push(b'\n');
        if bytes + header.len() as u64 > MAX_BYTES {
            return Err(StateError::TooLarge { path: self.path.clone(), bytes });
        }
        let beside = self.path.with_file_name(NEW);
        let saved = write(&beside, &header, &body).and_then(|()| fs::rename(&beside, &self.path));
        saved.map_err(|source| {
            // Half a file would take room on a disk that has none.
            fs::remove_file(&beside).ok();
            StateError::Write { path: self.path.clone(), source }
        })
    }

    /// The state, and whether it is of this boot; or what is wrong with the file.
    fn parse(&self, bytes: &[u8]) -> Result<(T, bool), String> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("it is larger than {MAX_BYTES} bytes"));
        }
        let end = bytes.iter().take(MAX_HEADER).position(|byte| *byte == b'\n').ok_or("it has no first line")?;
        let (header, body) = (&bytes[..end], &bytes[end + 1..]);
        let header: Header =
            serde_json::from_slice(header).map_err(|error| format!("its first line is not understood: {error}"))?;
        if header.version != VERSION {
            return Err(format!("it has version {}, this program reads {VERSION}", header.version));
        }
        if header.bytes != body.len() as u64 {
            return Err(format!("it has {} bytes of state and should have {}", body.len(), header.bytes));
        }
        let value = serde_json::from_slice(body).map_err(|error| format!("its state is not understood: {error}"))?;
        Ok((value, header.boot_id == self.boot_id))
    }

    /// Moves the file away. Only the last such file is kept.
    fn set_aside(&self) -> Option<PathBuf> {
        let aside = self.path.with_file_name(DAMAGED);
        fs::rename(&self.path, &aside).ok().map(|()| aside)
    }
}

/// Opens a file for writing that no other user may read, never through a symbolic link.
fn private(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).custom_flags(flags).open(path)
}

fn write(path: &Path, header: &[u8], body: &[u8]) -> io::Result<()> {
    let mut file = private(path)?;
    file.write_all(header)?;
    file.write_all(body)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

    use super::*;

    type State = BTreeMap<String, u64>;

    fn open(directory: &Path, boot_id: &str) -> StateFile<State> {
        StateFile::open(directory, boot_id).unwrap()
    }

    fn state() -> State {
        BTreeMap::from([("kills".to_owned(), 7)])
    }

    /// Loads a file with this content: what is said, and whether it was set aside.
    fn load(content: &[u8]) -> String {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("state.json"), content).unwrap();
        let file = open(root.path(), "b0");
        let Loaded::Unusable { reason, set_aside } = file.load().unwrap() else { panic!("it was understood") };
        assert_eq!(fs::read(set_aside.unwrap()).unwrap(), content);
        assert_eq!(file.load().unwrap(), Loaded::Fresh);
        file.save(&state()).unwrap();
        reason
    }

    #[test]
    fn a_missing_directory_is_made_and_its_state_is_fresh() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a/b");
        assert_eq!(open(&directory, "b0").load().unwrap(), Loaded::Fresh);
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_was_saved_is_restored_and_another_boot_is_told() {
        let root = tempfile::tempdir().unwrap();
        open(root.path(), "b0").save(&state()).unwrap();
        assert_eq!(open(root.path(), "b0").load().unwrap(), Loaded::Restored { value: state(), same_boot: true });
        assert_eq!(open(root.path(), "b1").load().unwrap(), Loaded::Restored { value: state(), same_boot: false });
        let mode = fs::metadata(root.path().join("state.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_told_and_set_aside() {
        assert_eq!(load(b""), "it has no first line");
        assert_eq!(load(&[0; 5000]), "it has no first line");
        assert!(load(b"{}\n{}").starts_with("its first line is not understood"));
        let cut = b"{\"version\":1,\"boot_id\":\"b0\",\"bytes\":11}\n{\"kills\"";
        assert_eq!(load(cut), "it has 8 bytes of state and should have 11");
        let foreign = b"{\"version\":1,\"boot_id\":\"b0\",\"bytes\":2}\n[]";
        assert!(load(foreign).starts_with("its state is not understood"));
    }

    #[test]
    fn a_file_of_another_version_is_told_and_set_aside() {
        let newer = b"{\"version\":2,\"boot_id\":\"b0\",\"bytes\":2}\n{}";
        assert_eq!(load(newer), "it has version 2, this program reads 1");
    }

    #[test]
    fn a_file_beyond_the_bound_is_not_read_whole() {
        assert_eq!(load(&vec![b'x'; MAX_BYTES as usize + 9]), "it is larger than 16777216 bytes");
    }

    #[test]
    fn a_state_beyond_the_bound_is_refused_and_the_former_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let file = open(root.path(), "b0");
        file.save(&state()).unwrap();
        let huge = BTreeMap::from([("k".repeat(MAX_BYTES as usize), 1)]);
        let error = file.save(&huge).unwrap_err();
        assert_eq!(error.reason(), StateFailure::TooLarge);
        assert_eq!(file.load().unwrap(), Loaded::Restored { value: state(), same_boot: true });
    }

    #[test]
    fn two_agents_do_not_share_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let first = open(root.path(), "b0");
        let error = StateFile::<State>::open(root.path(), "b0").map(|_| ()).unwrap_err();
        assert!(matches!(error, StateError::Locked { .. }), "{error}");
        drop(first);
        open(root.path(), "b0");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        fs::write(&path, "").unwrap();
        let error = StateFile::<State>::open(&path, "b0").map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    }

    #[test]
    fn a_state_that_cannot_be_replaced_is_an_error_and_leaves_nothing_beside() {
        let root = tempfile::tempdir().unwrap();
        let file = open(root.path(), "b0");
        // A directory with something in it is not replaced by a file.
        fs::create_dir_all(root.path().join("state.json/x")).unwrap();
        let error = file.save(&state()).unwrap_err();
        assert_eq!(error.reason(), StateFailure::Other);
        assert!(!root.path().join("state.json.new").exists());
        assert!(matches!(file.load(), Err(StateError::Read { .. })));
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let source = write(Path::new("/dev/full"), b"a", b"b").unwrap_err();
        let error = StateError::Write { path: "/x/state.json".into(), source };
        assert_eq!(error.reason(), StateFailure::DiskFull);
        assert_eq!(error.to_string(), "saving the state to /x/state.json: the disk or a quota is full");
    }

    #[test]
    fn a_read_only_file_system_and_a_missing_right_are_told_apart() {
        use rustix::io::Errno;
        for (errno, reason) in [
            (Errno::ROFS, StateFailure::ReadOnly),
            (Errno::ACCESS, StateFailure::Permission),
            (Errno::PERM, StateFailure::Permission),
            (Errno::DQUOT, StateFailure::DiskFull),
            (Errno::NOSPC, StateFailure::DiskFull),
            (Errno::IO, StateFailure::Other),
        ] {
            assert_eq!(failure(&errno.into()), reason, "{errno}");
        }
    }
}
