//! All that is kept of one kernel side, as the loader sees it.

use std::path::PathBuf;

use aya::{
    maps::{Array, MapData},
    programs::{Program, links::FdLink},
};
use detector_common::gate::{NOBODY, Writer};

use super::{
    Abandoned, Former, Owner, PinError, Pinned, Pins, foreign,
    links::Links,
    maps::{self, ACTIVE, Maps},
    place::{self, Place},
};
use crate::{agent::options::Detector, digest::Digest};

/// Fingerprint of what programs are made of: bytes after bytes. Whoever may pin BPF objects can do more than find two that
/// are alike.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent::source) struct Fingerprint(Digest);

impl Fingerprint {
    /// Of nothing.
    pub(in crate::agent::source) const EMPTY: Self = Self(Digest::EMPTY);

    /// With these bytes, too.
    #[must_use]
    pub(in crate::agent::source) fn with(self, bytes: &[u8]) -> Self {
        Self(self.0.with(bytes))
    }

    /// As the number of a generation: neither 0, which is that of programs that nothing outlives, nor that of nobody.
    fn generation(self) -> u64 {
        generation_of(self.0.value())
    }
}

fn generation_of(digest: u64) -> u64 {
    if matches!(digest, 0 | NOBODY) { Digest::EMPTY.value() } else { digest }
}

/// What is kept.
pub(in crate::agent::source) struct Keeper {
    maps: Maps,
    links: Links,
    active: Array<MapData, u64>,
    generation: u64,
    abandoned: Vec<Abandoned>,
    /// Holds the lock. Last, so that it goes last.
    place: Place,
}

impl Keeper {
    /// Locks the directory, and adopts or makes the maps of `object`. `fingerprint` is that of the object and its constants.
    /// What other versions of the records left goes on until it is [taken over](Self::take_over).
    ///
    /// # Errors
    /// If that is not possible, or another program does it: [`PinError::InUse`].
    pub(in crate::agent::source) fn open(
        pins: &Pins,
        object: &[u8],
        fingerprint: Fingerprint,
    ) -> Result<Self, PinError> {
        let place = Place::open(pins)?;
        let maps = Maps::open(&place, object)?;
        let ids = maps.ids().fold(fingerprint, |hash, id| hash.with(&id.to_le_bytes()));
        let generation = ids.generation();
        let links = Links::open(&place, generation)?;
        let failed = |source| PinError::Map { attempt: "opening", name: ACTIVE.to_owned(), source };
        let active = maps::pinned_active(&maps.file(ACTIVE)).map_err(failed)?;
        Ok(Self { maps, links, active, generation, abandoned: Vec::new(), place })
    }

    /// Number of the generation that our programs are of.
    pub(in crate::agent::source) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Names of the maps and their files.
    pub(in crate::agent::source) fn files(&self) -> impl Iterator<Item = (&str, PathBuf)> {
        self.maps.names().map(|name| (name, self.maps.file(name)))
    }

    /// What directories of other versions held, once that was taken over.
    pub(in crate::agent::source) fn abandoned(&self) -> &[Abandoned] {
        &self.abandoned
    }

    /// Maps that were there in another shape, or as something else.
    pub(in crate::agent::source) fn replaced(&self) -> &[String] {
        self.maps.replaced()
    }

    /// Whether any map was there already.
    pub(in crate::agent::source) const fn adopted_maps(&self) -> bool {
        self.maps.adopted()
    }

    /// Rings of kills of another size, in which records may be left, the oldest first.
    pub(in crate::agent::source) fn take_former(&mut self) -> Vec<Former> {
        self.maps.take_former()
    }

    /// The link pinned under that name, if there is one that is ours and holds.
    pub(in crate::agent::source) fn adopt(&self, pinned: &Pinned) -> Result<Option<FdLink>, PinError> {
        self.links.adopt(pinned, self.maps.ids())
    }

    /// Pins a link and its program. If that is refused, the link is gone.
    pub(in crate::agent::source) fn keep(
        &self,
        pinned: &Pinned,
        link: FdLink,
        program: Option<&mut Program>,
    ) -> Result<FdLink, PinError> {
        self.links.keep(pinned, link, program)
    }

    /// From now on programs of our generation write for `owner`, and no others. What else of it is attached goes. Programs
    /// of other versions of the records are silenced with the first kill that is ours, and all that they left is removed.
    pub(in crate::agent::source) fn take_over(&mut self, owner: Owner, kept: &[Pinned]) -> Result<(), PinError> {
        let is_first = owner == Some(Detector::Oom);
        // Between this and the next line nobody watches. If it fails, both watch: what the others write, nobody reads.
        let silenced = if is_first { foreign::silence(&self.place) } else { Ok(()) };
        self.set(owner, self.generation)?;
        if self.links.remove_others(owner, kept)? {
            place::wait_for_release();
        }
        silenced?;
        if is_first { self.abandon() } else { Ok(()) }
    }

    /// Has nobody write for `owner`, and removes these links. Whoever holds them lets go after this.
    pub(in crate::agent::source) fn give_up(&mut self, owner: Owner, held: &[Pinned]) -> Result<(), PinError> {
        self.set(owner, NOBODY)?;
        self.links.remove(held.iter())?;
        place::wait_for_release();
        Ok(())
    }

    /// Removes all but the maps and the links in use.
    pub(in crate::agent::source) fn settle(&mut self, used: &[Pinned]) -> Result<(), PinError> {
        // Where nobody watches kills.
        self.abandon()?;
        if self.links.settle(used)? {
            place::wait_for_release();
        }
        self.maps.remove_others()
    }

    fn abandon(&mut self) -> Result<(), PinError> {
        self.abandoned.extend(foreign::empty(&self.place)?);
        Ok(())
    }

    fn set(&mut self, owner: Owner, generation: u64) -> Result<(), PinError> {
        let writer = match owner {
            Some(Detector::Oom) => Writer::Oom,
            Some(Detector::HungTask) => Writer::HungTask,
            Some(Detector::Panic) => Writer::Panic,
            None => Writer::CgroupLife,
        };
        let failed = |source| PinError::Map { attempt: "setting", name: ACTIVE.to_owned(), source };
        self.active.set(writer as u32, generation, 0).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_that_of_the_published_algorithm() {
        assert_eq!(Fingerprint::EMPTY.with(b"foobar").generation(), 0x8594_4171_f739_67e8);
        assert_eq!(Fingerprint::EMPTY.with(b"foo").with(b"bar").generation(), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn no_generation_has_the_number_of_none_or_nobody() {
        for number in [0, NOBODY] {
            assert!(!matches!(generation_of(number), 0 | NOBODY));
        }
    }
}
