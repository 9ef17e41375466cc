//! How the boot before ended: what the dying kernel left, and what the agent itself wrote down.
//!
//! ```text
//! /sys/fs/pstore, /var/lib/systemd/pstore ─ pstore ─┐
//! /var/crash ────────────────────────────── kdump ──┤
//! /var/log/wtmp ─────────────────────────── wtmp ───┼─▶ judge ─▶ findings ─▶ boots (told once)
//! the agent's note of the last boot ─────── boots ──┘
//! ```
//!
//! Everything of others is read and nothing of it deleted. A file system may hang, so that all this belongs into a thread
//! of its own, and each place into one more: what does not answer in time is left out.

pub mod boots;
mod directory;
pub mod judge;
pub mod kdump;
pub mod lines;
pub mod piece;
pub mod pstore;
pub mod wtmp;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use jiff::Timestamp;

use super::small_file::{self, under};
use crate::digest::Digest;
use boots::{Boot, BootsError, BootsFile, Note, Owner};
use judge::Evidence;

/// What the agent knows of itself and of this boot.
#[derive(Clone, Debug)]
pub struct Present {
    /// Name of the Node.
    pub node: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// When this boot began.
    pub booted: Timestamp,
    /// The time.
    pub now: Timestamp,
}

/// What came of a look.
#[derive(Debug)]
pub struct Looked {
    /// The note as it is now to be written.
    pub note: Note,
    /// What could not be read, in sentences.
    pub failures: Vec<String>,
}

/// Failures of one place that are told.
const FAILURES: usize = 8;
/// How long a place may take: a disk is slow while a machine starts.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the firmware calls the machine (`drivers/firmware/dmi-id.c`); only root may read it.
const MACHINE: &str = "/sys/class/dmi/id/product_uuid";
/// Largest such name.
const MACHINE_BYTES: u64 = 256;

/// Looks below `root`, with the note in `file`. In a boot that the note is of already, nothing is looked for.
#[must_use]
pub fn look(root: &Path, file: Option<&BootsFile>, present: &Present) -> Looked {
    let mut failures = Vec::new();
    let owner = Owner { node: present.node.clone(), machine: machine(root) };
    let noted = file.map_or(Ok(None), |file| file.read(&owner)).unwrap_or_else(|error: BootsError| {
        failures.push(crate::cause::error_chain(&error));
        None
    });
    let (began, alive) = (present.booted, present.now);
    let boot = Boot { id: present.boot_id.clone(), began, alive, stopped: None };
    if let Some(mut note) = noted.clone().filter(|note| note.boot.id == present.boot_id) {
        note.boot = Boot { began: note.boot.began.min(began), ..boot };
        return Looked { note, failures };
    }
    let evidence = gather(root, &mut failures);
    let (last, known) = noted.as_ref().map_or((None, BTreeSet::new()), |note| (Some(&note.boot), note.known.clone()));
    let findings = judge::judge(last, &known, &evidence, present.booted);
    failures.extend(unreadable(&evidence, &known));
    let mut note = noted.unwrap_or_else(|| Note::new(owner.clone(), boot.clone()));
    note.owner = Owner { machine: owner.machine.or(note.owner.machine), ..owner };
    note.next_boot(boot, &findings, evidence.digests());
    Looked { note, failures }
}

/// Records of which nothing can be told but that they are there.
fn unreadable(evidence: &Evidence, known: &BTreeSet<u64>) -> Option<String> {
    let new = evidence.records.unreadable.iter().filter(|one| !known.contains(&one.digest)).count();
    (new > 0).then(|| format!("{new} new records in pstore cannot be read: packed by another kernel, or cut short"))
}

/// Digest of what the firmware calls the machine.
fn machine(root: &Path) -> Option<u64> {
    let file = small_file::read(&under(root, MACHINE), MACHINE_BYTES).ok().flatten()?;
    let name = file.bytes.trim_ascii();
    (!name.is_empty()).then(|| Digest::EMPTY.with(b"machine").with(name).value())
}

fn gather(root: &Path, failures: &mut Vec<String>) -> Evidence {
    // All at once: one that hangs does not hold up the others.
    let records = Place::ask("pstore", root, |root, failed| pstore::read(root, failed));
    let crashes = Place::ask(kdump::PLACE, root, |root, failed| kdump::read(root, failed));
    let shutdown = Place::ask(wtmp::PLACE, root, |root, failed| {
        wtmp::read(root).unwrap_or_else(|error| {
            failed(Path::new(wtmp::PLACE), error);
            None
        })
    });
    Evidence {
        records: records.answer(PATIENCE, failures),
        crashes: crashes.answer(PATIENCE, failures),
        shutdown: shutdown.answer(PATIENCE, failures),
    }
}

/// A place that is being read.
struct Place<T> {
    name: &'static str,
    answer: Receiver<(T, Vec<String>)>,
}

impl<T: Default + Send + 'static> Place<T> {
    /// Begins to read, on a thread of its own, which may wait for ever.
    fn ask(
        name: &'static str,
        root: &Path,
        read: impl FnOnce(&Path, &mut directory::Failed<'_>) -> T + Send + 'static,
    ) -> Self {
        let (found, answer) = mpsc::sync_channel(1);
        let root: PathBuf = root.to_owned();
        // If there can be no thread, nobody answers.
        let spawned = thread::Builder::new().name("previous-boot".to_owned()).spawn(move || {
            let mut failures = Vec::new();
            let mut failed = |path: &Path, error: io::Error| {
                if failures.len() < FAILURES {
                    failures.push(format!("reading {}: {error}", path.display()));
                }
            };
            let read = read(&root, &mut failed);
            // Nobody waits any more: it took too long.
            found.send((read, failures)).ok();
        });
        drop(spawned);
        Self { name, answer }
    }

    /// What was read; nothing, if it does not come in time.
    fn answer(self, patience: Duration, failures: &mut Vec<String>) -> T {
        match self.answer.recv_timeout(patience) {
            Ok((read, failed)) => {
                failures.extend(failed);
                read
            }
            Err(_) => {
                failures.push(format!("reading {}: no answer within {} s", self.name, patience.as_secs()));
                T::default()
            }
        }
    }
}

#[cfg(test)]
mod judge_tests;
#[cfg(test)]
mod pstore_tests;
#[cfg(test)]
mod tests;
