//! What the probe on panic must have at hand when the kernel dies: names of containers, and addresses of the kernel's
//! symbols. And the kernel's own setting that prints its line.
//!
//! ```text
//! containers seen and gone ─▶ book ─▶ map LAST_WORDS        cgroup → names
//! /proc/kallsyms ─ addresses ───────▶ map PANIC_ADDRESSES
//! lastWords.printByKernel ─ setting ▶ kernel.ftrace_dump_on_oops
//! ```

mod addresses;
mod book;
pub mod setting;

use std::{io, path::Path};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
};
use detector_common::last_words::{CONTAINERS, Cgroup, Names};
use thiserror::Error;

use self::book::{Book, Write};
use super::bpf::offsets::Offsets;

/// What became known of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// It has these names.
    Named {
        /// Its id.
        container: String,
        /// Id of its memory cgroup.
        cgroup: u64,
        /// As `contract::last_words::names` makes them.
        names: String,
    },
    /// It is gone.
    Gone {
        /// Its id.
        container: String,
    },
}

/// The maps of the probe on panic.
pub struct Prepared {
    names: HashMap<MapData, Cgroup, Names>,
    addresses: Array<MapData, u64>,
    book: Book,
}

/// Why last words will say less.
#[derive(Debug, Error)]
pub enum LastWordsError {
    /// The object has no such map: kernel side and user side are not of one build.
    #[error("the kernel object has no map {0}")]
    Missing(&'static str),
    /// The kernel refused.
    #[error("{attempt} what the kernel says when it dies")]
    Map {
        /// What was attempted.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: MapError,
    },
    /// The file of symbols cannot be read.
    #[error("reading /proc/kallsyms")]
    Symbols(#[source] io::Error),
    /// It shows no address of these.
    #[error("/proc/kallsyms shows no address of {0}; without CAP_SYSLOG kernel.kptr_restrict hides them")]
    Hidden(String),
    /// More containers than there is room for.
    #[error("{0} names of containers found no room among {CONTAINERS}")]
    Full(u64),
}

impl Prepared {
    /// Takes the maps out of the loaded object. What an earlier program wrote there stays until its room is needed.
    ///
    /// # Errors
    /// If the object lacks one.
    pub fn of(ebpf: &mut Ebpf) -> Result<Self, LastWordsError> {
        let mut take = |name| ebpf.take_map(name).ok_or(LastWordsError::Missing(name));
        let names: HashMap<MapData, Cgroup, Names> =
            HashMap::try_from(take("LAST_WORDS")?).map_err(failed("opening"))?;
        let addresses = Array::try_from(take("PANIC_ADDRESSES")?).map_err(failed("opening"))?;
        // One that is removed under our feet has the kernel begin anew; that must have an end.
        let left = names.keys().take(2 * CONTAINERS as usize).filter_map(Result::ok);
        let book = Book::with(left);
        Ok(Self { names, addresses, book })
    }

    /// Tells the probe where the kernel has what it looks at, of the machine seen through `root`.
    ///
    /// # Errors
    /// If some of it is not to be known; the rest is told.
    pub fn find_symbols(&mut self, root: &Path, offsets: &Offsets) -> Result<(), LastWordsError> {
        let found = addresses::read(root).map_err(LastWordsError::Symbols)?;
        let mut hidden = Vec::new();
        for (address, value, name) in found.of_probe(offsets) {
            match value {
                Some(value) => self.addresses.set(address as u32, value, 0).map_err(failed("setting"))?,
                None => hidden.push(name),
            }
        }
        if hidden.is_empty() { Ok(()) } else { Err(LastWordsError::Hidden(hidden.join(", "))) }
    }

    /// Takes in what became known of containers.
    ///
    /// # Errors
    /// The first refusal of the kernel, or that there was no room; the rest is taken in.
    pub fn hear(&mut self, namings: Vec<Naming>) -> Result<(), LastWordsError> {
        let mut outcome = Ok(());
        for write in namings.into_iter().flat_map(|naming| self.book.hear(naming)) {
            let written = match write {
                Write::Put(cgroup, names) => self.names.insert(cgroup, *names, 0),
                Write::Remove(cgroup) => match self.names.remove(&cgroup) {
                    Err(MapError::KeyNotFound) => Ok(()),
                    other => other,
                },
            };
            outcome = outcome.and(written.map_err(failed("writing")));
        }
        match self.book.take_refused() {
            0 => outcome,
            refused => outcome.and(Err(LastWordsError::Full(refused))),
        }
    }
}

fn failed(attempt: &'static str) -> impl FnOnce(MapError) -> LastWordsError {
    move |source| LastWordsError::Map { attempt, source }
}
