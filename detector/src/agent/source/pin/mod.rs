//! What of the kernel side outlives this program: its maps and links, pinned below a directory of a BPF file system.
//!
//! ```text
//! /sys/fs/bpf/detector/                locked (flock) while a program uses it
//!   abi-1/                             one directory per version of the records
//!     maps/PRECIOUS …                  all maps but constants: rings, counters, what is remembered
//!     maps/PRECIOUS-0000000012         a ring of another size, by the kernel's id, until it is read to its end
//!     0123456789abcdef/                one per generation, see below
//!       links/OWNER-PROGRAM-HOOK       attached as long as this file is there
//!       programs/PROGRAM               to recognise the program of a link by
//! ```
//!
//! A *generation* is a number made of the kernel object, all constants given to it, and the kernel's ids of the maps. What
//! lies in the directory of our own generation was attached by the same code, with the same settings, to the very maps that
//! are pinned here: it is adopted once the kernel confirms that it is a link, held, and to the program pinned beside it.
//! All else is of another time: it goes on until what replaces it is attached, then `ACTIVE` (`detector_common::gate`)
//! silences it, and then it is removed. So two generations never write at the same time, and nothing falls between them,
//! as long as both write records of one version. Two versions have an `ACTIVE` each: the other one is closed, ours is opened
//! with the next system call, and a kill between the two is in the kernel's own count alone.
//!
//! `keeper` is the whole of it for the loader; `place` makes and locks the directory, `maps` adopts or makes maps, `links`
//! does so with links, `foreign` empties directories of other versions, `kills` reads the kills counted meanwhile.

mod foreign;
mod keeper;
mod kills;
mod links;
mod maps;
mod place;

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::maps::MapError;
use thiserror::Error;

pub use foreign::{Abandoned, Removed, remove_all};
pub(in crate::agent::source) use keeper::{Fingerprint, Keeper};
pub use kills::{Counted, Counts, KillCounts, KillCountsError};
pub(in crate::agent::source) use links::{Owner, Pinned};
pub(in crate::agent::source) use maps::{Former, SEQUENCES, begin_sequences};

/// Where to keep the kernel side while no program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// Below `directory`, which is made if it is not there. It must lie on a BPF file system and hold nothing else.
    #[must_use]
    pub fn below(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Why nothing can be kept, or what was kept cannot be removed.
#[derive(Debug, Error)]
pub enum PinError {
    /// Another program holds the lock.
    #[error("locking {directory}: another detector uses it; there must be one of them on a machine")]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// Pins are possible on a BPF file system only.
    #[error("{directory} is not on a BPF file system; mount one with `mount -t bpf bpf /sys/fs/bpf`")]
    NotBpf {
        /// The directory, or the one above it that is there.
        directory: PathBuf,
    },
    /// A file or directory refused.
    #[error("{attempt} {path}")]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a map.
    #[error("{attempt} map {name}")]
    Map {
        /// What was attempted.
        attempt: &'static str,
        /// Name of the map.
        name: String,
        /// Why not.
        #[source]
        source: MapError,
    },
    /// The kernel refused to pin.
    #[error("pinning {path}")]
    Pin {
        /// The file that was to be made.
        path: PathBuf,
        /// Why not.
        #[source]
        source: aya::pin::PinError,
    },
    /// The kernel object tells nothing of its maps: it is damaged.
    #[error("reading the maps of the kernel object")]
    Object(#[source] aya_obj::ParseError),
}

impl PinError {
    fn file(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { attempt, path, source }
    }
}

/// How long an attached program lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// As long as this process: nothing is to be kept.
    Process,
    /// It was attached by an earlier process, and lasts until it is removed.
    Adopted,
    /// It lasts until it is removed.
    Kept,
    /// As long as this process, because the kernel cannot keep links of its kind: those of kprobes and classic tracepoints
    /// before Linux 5.15.
    NotKeepable,
}
