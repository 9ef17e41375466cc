//! Dumps of dead kernels' logs in pstore and in systemd's archive of it, put together from their parts.
//!
//! ```text
//! /sys/fs/pstore/dmesg-erst-ID …                          until somebody deletes them
//! /var/lib/systemd/pstore/[NUMBER/[COUNT/]]dmesg-… …      moved there by systemd-pstore.service, and kept for ever
//! ```
//!
//! The archive also has `dmesg.txt`, which systemd puts together from the same parts; it is not needed. Nothing is deleted.

use std::{collections::BTreeSet, io, path::Path};

use jiff::{SignedDuration, Timestamp};

use super::{
    directory::{self, Entry, Failed},
    piece::{Header, Kind, Piece, Reason},
};
use crate::{agent::source::small_file::under, digest::Digest};

/// Where the kernel shows it.
pub const LIVE: &str = "/sys/fs/pstore";
/// Where systemd moves it to.
pub const ARCHIVE: &str = "/var/lib/systemd/pstore";

/// Entries of one directory that are read, the newest first.
const ENTRIES: usize = 256;
/// Files that are read in all, of the newest directories first.
const FILES: usize = 1024;
/// Bytes of one file that are read: a part has some KiB, a console as much as was configured.
const FILE_BYTES: u64 = 256 << 10;
/// Bytes that are read in all: what a machine left long ago is in nobody's way.
const BYTES: u64 = 4 << 20;
/// Directories below each other in the archive.
const DEPTH: usize = 2;
/// Parts of a dump are stored within this time of each other.
const APART: SignedDuration = SignedDuration::from_secs(60);

/// A dump, put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// Backend that kept it.
    pub backend: String,
    /// What for.
    pub reason: Reason,
    /// Number of the dump since the boot that made it.
    pub count: u32,
    /// When it began, if that is known.
    pub at: Option<Timestamp>,
    /// Lines of the log, the oldest first; parts that are missing are missing.
    pub text: String,
    /// Tells it from all others, also after it was moved.
    pub digest: u64,
}

/// The console of the boot before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// Backend that kept it.
    pub backend: String,
    /// When it was shown as a file: in the boot after. The kernel does not keep its time.
    pub shown: Option<Timestamp>,
    /// Its last lines.
    pub text: String,
    /// Tells it from all others.
    pub digest: u64,
}

/// A record of which no more is known than that a kernel made it: packed in a way that this kernel does not know
/// (`.enc.z`), cut short while the machine died, or in a form of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Backend that kept it.
    pub backend: String,
    /// When it was stored, if that is known.
    pub at: Option<Timestamp>,
    /// Tells it from all others.
    pub digest: u64,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Dumps, the oldest first.
    pub dumps: Vec<Dump>,
    /// Consoles, the oldest first.
    pub consoles: Vec<Console>,
    /// Parts that cannot be read.
    pub unreadable: Vec<Unreadable>,
}

/// Reads both places below `root`; what cannot be read is told to `failed` and left out. First the one that files are moved
/// away from, so that none is missed on its way.
pub fn read(root: &Path, failed: &mut Failed<'_>) -> Records {
    let mut walk = Walk { pieces: Vec::new(), bytes_left: BYTES };
    for place in [LIVE, ARCHIVE] {
        let place = under(root, place);
        match directory::owner(&place) {
            Ok(Some(owner)) => walk.through(&place, owner, DEPTH, failed),
            Ok(None) => {}
            Err(error) => failed(&place, error),
        }
    }
    assemble(walk.pieces)
}

/// What was read so far.
struct Walk {
    pieces: Vec<Piece>,
    bytes_left: u64,
}

impl Walk {
    fn through(&mut self, directory: &Path, owner: u32, depth: usize, failed: &mut Failed<'_>) {
        for Entry { path, name, is_directory, .. } in directory::newest(directory, owner, ENTRIES, failed) {
            if self.pieces.len() >= FILES || self.bytes_left < FILE_BYTES {
                return;
            }
            if is_directory && depth > 0 {
                self.through(&path, owner, depth - 1, failed);
            } else if !is_directory && super::piece::Name::parse(&name).is_some() {
                match directory::tail(&path, owner, FILE_BYTES) {
                    Ok((bytes, changed)) => {
                        self.bytes_left -= bytes.len() as u64;
                        self.pieces.extend(Piece::read(&name, changed, &bytes));
                    }
                    // It was moved meanwhile: it will be found where it is now.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => failed(&path, error),
                }
            }
        }
    }
}

/// Puts pieces together that belong to one dump. Pure.
#[must_use]
pub fn assemble(pieces: Vec<Piece>) -> Records {
    let mut records = Records::default();
    let mut parts: Vec<(Header, Piece)> = Vec::new();
    for piece in pieces {
        match (piece.name.kind, piece.header) {
            (Kind::Dump, Some(header)) => parts.push((header, piece)),
            (Kind::Console, _) if piece.name.readable => add_console(&mut records.consoles, piece),
            _ => add_unreadable(&mut records.unreadable, piece),
        }
    }
    // The kernel stores part 1 first, and numbers and times only rise.
    let of_one_dump = |(header, piece): &(Header, Piece)| (piece.name.backend.clone(), header.reason, header.count);
    parts.sort_by(|a, b| {
        let order = |(header, piece): &(Header, Piece)| (piece.at, piece.name.id, header.part);
        let by_dump = of_one_dump(a).cmp(&of_one_dump(b));
        by_dump.then_with(|| order(a).cmp(&order(b))).then_with(|| a.1.text.cmp(&b.1.text))
    });
    // A file that was moved is found in both places, if we look while it is.
    parts.dedup_by(|a, b| a.0 == b.0 && a.1.name == b.1.name && a.1.text == b.1.text);
    for group in parts.chunk_by(|a, b| of_one_dump(a) == of_one_dump(b) && follows(a, b)) {
        records.dumps.extend(dump(group));
    }
    records.dumps.sort_by_key(|dump| (dump.at, dump.count));
    // The same one with another time, where whoever moved it did not keep that.
    let mut known = BTreeSet::new();
    records.dumps.retain(|dump| known.insert(dump.digest));
    records.consoles.sort_by_key(|console| console.shown);
    records
}

fn add_console(consoles: &mut Vec<Console>, piece: Piece) {
    let digest = Digest::EMPTY.with(b"console").with(piece.text.as_bytes()).value();
    if consoles.iter().all(|known| known.digest != digest) {
        let Piece { name, at: shown, text, .. } = piece;
        consoles.push(Console { backend: name.backend, shown, text, digest });
    }
}

fn add_unreadable(unreadable: &mut Vec<Unreadable>, piece: Piece) {
    let digest =
        Digest::EMPTY.with(b"unreadable").with(&piece.name.id.to_le_bytes()).with(piece.text.as_bytes()).value();
    if unreadable.iter().all(|known| known.digest != digest) {
        unreadable.push(Unreadable { backend: piece.name.backend, at: piece.at, digest });
    }
}

/// Whether `b` goes on with the dump that `a` is of.
fn follows(a: &(Header, Piece), b: &(Header, Piece)) -> bool {
    let near = match (a.1.at, b.1.at) {
        (Some(a), Some(b)) => a.duration_until(b).abs() <= APART,
        (None, None) => true,
        _ => false,
    };
    near && b.0.part > a.0.part
}

fn dump(parts: &[(Header, Piece)]) -> Option<Dump> {
    let (header, newest) = parts.first()?;
    let text: String = parts.iter().rev().map(|(_, piece)| piece.text.as_str()).collect();
    let digest = Digest::EMPTY
        .with(newest.name.backend.as_bytes())
        .with(&newest.name.unique_id().unwrap_or_default().to_le_bytes())
        .with(&[header.reason as u8])
        .with(&header.count.to_le_bytes())
        .with(newest.text.as_bytes())
        .value();
    let backend = newest.name.backend.clone();
    Some(Dump { backend, reason: header.reason, count: header.count, at: newest.at, text, digest })
}
