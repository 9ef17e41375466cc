//! The agent's note of the boot that it saw last: the only file of ours that outlives the machine.
//!
//! It lies apart from the state, which is on a file system in memory on purpose. It is small, and written when the agent
//! starts, when it is told to stop, and now and then in between; each time flushed to the disk, because it is there to be
//! read after a crash.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    mem,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::judge::Finding;
use crate::{
    agent::source::small_file,
    contract::problem::previous_boot::{End, PreviousBoot},
};

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 256 << 10;
/// Digests that are kept: of what is there, and of what was told lately.
const KNOWN: usize = 2048;
/// Findings that are kept.
const FINDINGS: usize = 8;
/// Version of the form; another one is not read.
const VERSION: u32 = 1;

/// Why the note cannot be read or written. None of these keeps the agent from its work.
#[derive(Debug, Error)]
pub enum BootsError {
    /// It cannot be read.
    #[error("state.boots: reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not to be understood.
    #[error("state.boots: understanding {path}")]
    Form {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is of another version.
    #[error("state.boots: {path} has version {version}, this program reads {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It cannot be written.
    #[error("state.boots: writing {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A boot, as the agent saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// `/proc/sys/kernel/random/boot_id`.
    pub id: String,
    /// When it began, by the earliest that the clock said of that: clocks are set.
    pub began: Timestamp,
    /// When the agent was seen last.
    pub alive: Timestamp,
    /// When the agent was told to stop, if it was: the machine was shut down, or the agent only, as for an upgrade.
    pub stopped: Option<Timestamp>,
}

/// A finding, and whom it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Tells it from all others.
    pub id: u64,
    /// Boot in which it was found.
    pub found_in: String,
    /// What was found, in the words of the condition.
    pub message: String,
    /// Whether its event was written.
    pub told: bool,
}

impl Kept {
    /// What was found.
    #[must_use]
    pub fn found(&self) -> Option<PreviousBoot> {
        PreviousBoot::read(&self.message)
    }
}

/// How many boots of this node ended so, since the file was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// In a panic.
    pub panic: u64,
    /// Without a shutdown.
    pub unclean: u64,
}

/// Whose note it is: a copy or an image of a node's disk is not the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name of the Node.
    pub node: String,
    /// Digest of what the machine's firmware calls it; `None`: it has no name, or does not tell it. `/etc/machine-id` would be
    /// copied with the disk.
    #[serde(default)]
    pub machine: Option<u64>,
}

impl Owner {
    /// Whether both are the same, as far as both are known.
    fn is(&self, other: &Self) -> bool {
        self.node == other.node && self.machine.zip(other.machine).is_none_or(|(one, other)| one == other)
    }
}

/// The note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    version: u32,
    /// Whose it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// The boot seen last.
    pub boot: Boot,
    /// Digests of records that were there.
    pub known: BTreeSet<u64>,
    /// What was found, the oldest first.
    pub findings: Vec<Kept>,
    /// Counts.
    pub totals: Totals,
}

impl Note {
    /// The first note of `owner`, in `boot`.
    #[must_use]
    pub fn new(owner: Owner, boot: Boot) -> Self {
        let (known, findings, totals) = (BTreeSet::new(), Vec::new(), Totals::default());
        Self { version: VERSION, owner, boot, known, findings, totals }
    }

    /// The next boot has begun, and this was found.
    pub fn next_boot(&mut self, boot: Boot, findings: &[Finding], known: impl Iterator<Item = u64>) {
        self.boot = boot;
        self.findings.retain(|kept| !kept.told);
        for Finding { id, found } in findings {
            match found.end {
                End::Panic => self.totals.panic += 1,
                End::Unclean => self.totals.unclean += 1,
                End::Clean => {}
            }
            let message = found.message(usize::MAX);
            // Of an end in order there is no event.
            let told = found.end == End::Clean;
            self.findings.push(Kept { id: *id, found_in: self.boot.id.clone(), message, told });
        }
        let surplus = self.findings.len().saturating_sub(FINDINGS);
        self.findings.drain(..surplus);
        // What is there, what was told, and what was there once: it may be hidden only for now.
        let before = mem::take(&mut self.known);
        self.known = known.chain(findings.iter().map(|finding| finding.id)).chain(before).take(KNOWN).collect();
    }

    /// What is known of the boot before the present one.
    #[must_use]
    pub fn latest(&self) -> Option<&Kept> {
        self.findings.last().filter(|kept| kept.found_in == self.boot.id)
    }
}

/// Where a note is written before it takes the place of the file at `path`.
#[must_use]
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// The file.
#[derive(Clone, Debug)]
pub struct BootsFile {
    path: PathBuf,
}

impl BootsFile {
    /// The file at `path`.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Reads the note of `owner`; `Ok(None)`: there is none.
    ///
    /// # Errors
    /// If it cannot be read or understood. Then the next one takes its place.
    pub fn read(&self, owner: &Owner) -> Result<Option<Note>, BootsError> {
        let path = || self.path.clone();
        let file = small_file::read(&self.path, MAX_BYTES);
        let Some(file) = file.map_err(|source| BootsError::Read { path: path(), source })? else { return Ok(None) };
        let note: Note =
            serde_json::from_slice(&file.bytes).map_err(|source| BootsError::Form { path: path(), source })?;
        if note.version != VERSION {
            return Err(BootsError::Version { path: path(), version: note.version });
        }
        Ok(Some(note).filter(|note| note.owner.is(owner)))
    }

    /// Replaces the note, and waits until it is on the disk.
    ///
    /// # Errors
    /// If it cannot be written; the former one stays.
    pub fn write(&self, note: &Note) -> Result<(), BootsError> {
        self.replace(note).map_err(|source| BootsError::Write { path: self.path.clone(), source })
    }

    fn replace(&self, note: &Note) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let beside = beside(&self.path);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        let written = serde_json::to_vec(note).map_err(io::Error::from);
        let written = written.and_then(|bytes| file.write_all(&bytes)).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&beside, &self.path)) {
            fs::remove_file(&beside).ok();
            return Err(error);
        }
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_763_812_800 + second).unwrap()
    }

    fn boot(id: &str) -> Boot {
        Boot { id: id.to_owned(), began: time(0), alive: time(9), stopped: None }
    }

    fn owner(node: &str, machine: Option<u64>) -> Owner {
        Owner { node: node.to_owned(), machine }
    }

    fn a() -> Owner {
        owner("node-a", Some(1))
    }

    fn finding(id: u64, end: End) -> Finding {
        let found = PreviousBoot { end, boot_id: None, at: Some(time(5)), witness: "x".to_owned(), lines: Vec::new() };
        Finding { id, found }
    }

    #[test]
    fn a_note_is_read_as_it_was_written_by_its_own_node_only() {
        let root = tempfile::tempdir().unwrap();
        let file = BootsFile::at(&root.path().join("detector/boot.json"));
        assert_eq!(file.read(&a()).unwrap(), None);
        let mut note = Note::new(a(), boot("b1"));
        note.next_boot(boot("b2"), &[finding(7, End::Panic)], [7, 8].into_iter());
        file.write(&note).unwrap();
        assert_eq!(file.read(&a()).unwrap().as_ref(), Some(&note));
        assert_eq!(file.read(&owner("node-b", Some(1))).unwrap(), None, "a disk that was copied");
        assert_eq!(
            file.read(&owner("node-a", Some(2))).unwrap(),
            None,
            "a name that another machine got, with the disk"
        );
        assert!(file.read(&owner("node-a", None)).unwrap().is_some(), "a machine that does not tell its name any more");
        assert_eq!(note.latest().and_then(Kept::found).map(|found| found.end), Some(End::Panic));
        assert_eq!(fs::read_dir(root.path().join("detector")).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_not_to_be_understood_is_an_error_and_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("boot.json");
        let file = BootsFile::at(&path);
        let note = Note::new(a(), boot("b1"));
        for (bytes, error) in [("", "understanding"), ("{\"version\":1}", "understanding"), ("\u{0}", "understanding")]
        {
            fs::write(&path, bytes).unwrap();
            assert!(file.read(&a()).unwrap_err().to_string().contains(error));
        }
        let later = serde_json::to_string(&Note { version: 2, ..note.clone() }).unwrap();
        fs::write(&path, later).unwrap();
        assert!(file.read(&a()).unwrap_err().to_string().contains("version 2"));
        file.write(&note).unwrap();
        assert_eq!(file.read(&a()).unwrap(), Some(note));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let error = BootsFile::at(&root.path().join("file/boot.json")).write(&Note::new(a(), boot("b"))).unwrap_err();
        assert!(matches!(error, BootsError::Write { .. }), "{error}");
    }

    #[test]
    fn only_what_was_not_told_is_carried_into_the_next_boot() {
        let mut note = Note::new(a(), boot("b1"));
        note.next_boot(boot("b2"), &[finding(1, End::Panic), finding(2, End::Unclean)], std::iter::empty());
        note.findings[0].told = true;
        note.next_boot(boot("b3"), &[finding(3, End::Clean)], std::iter::empty());
        assert_eq!(note.findings.iter().map(|kept| (kept.id, kept.told)).collect::<Vec<_>>(), [(2, false), (3, true)]);
        assert_eq!(note.totals, Totals { panic: 1, unclean: 1 });
        assert_eq!(note.latest().map(|kept| kept.id), Some(3));
        note.next_boot(boot("b4"), &[], std::iter::empty());
        assert_eq!(note.latest(), None, "of the boot before this one nothing is known");
    }

    #[test]
    fn the_note_is_bounded() {
        let mut note = Note::new(a(), boot("b1"));
        let many: Vec<Finding> = (0..100).map(|id| finding(id, End::Panic)).collect();
        note.next_boot(boot("b2"), &many, 0..1_000_000);
        assert_eq!((note.findings.len(), note.known.len(), note.totals.panic), (FINDINGS, KNOWN, 100));
        let bytes = serde_json::to_vec(&note).unwrap().len() as u64;
        assert!(bytes < MAX_BYTES, "{bytes}");
    }
}
