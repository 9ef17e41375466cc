//! Pinned maps: adopted if they have the shape that our object asks for, made anew if not.

use std::{
    borrow::BorrowMut,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf};
use aya_obj::Object;
use detector_common::{counter::Ring, gate::NOBODY};

use super::{
    PinError,
    links::Links,
    place::{self, Place},
};
use crate::clock;

/// Name of the directory of maps.
pub(super) const DIRECTORY: &str = "maps";

/// Name of the map that says which generation writes.
pub(super) const ACTIVE: &str = "ACTIVE";

/// Name of the map with the last number given to a record.
pub(in crate::agent::source) const SEQUENCES: &str = "SEQUENCES";

/// Name of the ring of what must not be lost.
pub(super) const PRECIOUS: &str = "PRECIOUS";

/// Begin of the name of a ring of another size that was in the place of [`PRECIOUS`]: the kernel's id of it follows.
const FORMER: &str = "PRECIOUS-";

/// A ring of kills of another size, in which records may be left. It stays pinned until they were read.
pub(in crate::agent::source) struct Former {
    path: PathBuf,
    ring: RingBuf<MapData>,
}

impl Former {
    /// What is left in it.
    pub(in crate::agent::source) const fn ring(&mut self) -> &mut RingBuf<MapData> {
        &mut self.ring
    }

    /// Nothing is left in it, and nobody writes to it any more. If its file cannot be removed, the next program finds an
    /// empty ring.
    pub(in crate::agent::source) fn remove(self) {
        place::remove(&self.path).ok();
    }
}

/// The maps that are kept.
pub(super) struct Maps {
    directory: PathBuf,
    /// Name → the kernel's id.
    ids: BTreeMap<String, u32>,
    /// Rings of kills of another size, the oldest first.
    former: Vec<Former>,
    /// Maps that could not be adopted.
    replaced: Vec<String>,
    adopted: bool,
}

impl Maps {
    /// Adopts or makes every map of `object` but constants.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn open(place: &Place, object: &[u8]) -> Result<Self, PinError> {
        let wanted = Object::parse(object).map_err(PinError::Object)?.maps;
        let directory = place.own().join(DIRECTORY);
        place::make(&directory)?;
        let former = left_rings(&directory)?;
        let mut maps = Self { directory, ids: BTreeMap::new(), former, replaced: Vec::new(), adopted: false };
        // Names of sections begin with a dot: constants, which belong to the programs.
        let wanted: BTreeMap<_, _> = wanted.into_iter().filter(|(name, _)| !name.starts_with('.')).collect();
        for (name, shape) in wanted {
            let id = match maps.adopt(&name, &shape) {
                Some(id) => id,
                None => maps.make(place, &name, shape)?,
            };
            maps.ids.insert(name, id);
        }
        Ok(maps)
    }

    /// Names of the maps.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.ids.keys().map(String::as_str)
    }

    /// File of the map `name`.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The kernel's ids of the maps.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.ids.values().copied()
    }

    /// Whether any was there already.
    pub(super) const fn adopted(&self) -> bool {
        self.adopted
    }

    /// Maps that were there in another shape, or as something else.
    pub(super) fn replaced(&self) -> &[String] {
        &self.replaced
    }

    /// Rings of kills of another size, the oldest first.
    pub(super) fn take_former(&mut self) -> Vec<Former> {
        std::mem::take(&mut self.former)
    }

    /// Removes maps that this object does not have, but rings that are to be read.
    pub(super) fn remove_others(&self) -> Result<(), PinError> {
        let others = place::entries(&self.directory).into_iter();
        let is_other = |name: String| !self.ids.contains_key(&name) && !name.starts_with(FORMER);
        let others = others.filter(|path| is_other(place::name(path)));
        others.into_iter().try_for_each(|path| place::remove(&path))
    }

    /// Id of the map that is there, if it has the shape.
    fn adopt(&mut self, name: &str, shape: &aya_obj::Map) -> Option<u32> {
        let map = MapData::from_pin(self.directory.join(name)).ok()?;
        let info = map.info().ok()?;
        // A number that the library does not know is another type, too.
        let kind = info.map_type().ok()? as u32;
        let there = (kind, info.key_size(), info.value_size(), info.max_entries(), info.map_flags());
        let wanted = (shape.map_type(), shape.key_size(), shape.value_size(), shape.max_entries(), shape.map_flags());
        if there == wanted {
            self.adopted = true;
            return Some(info.id());
        }
        None
    }

    /// Gives a ring of another size another name, if it is one: what is in it shall be told, also if this process ends
    /// before.
    fn set_aside(&mut self, path: &Path) {
        let Ok(map) = MapData::from_pin(path) else { return };
        let Ok(id) = map.info().map(|info| info.id()) else { return };
        let Ok(ring) = ring(map) else { return };
        let aside = self.directory.join(format!("{FORMER}{id:010}"));
        // If that is refused, it lasts as long as this process.
        fs::rename(path, &aside).ok();
        self.former.push(Former { path: aside, ring });
    }

    /// Makes a map in place of whatever is there.
    fn make(&mut self, place: &Place, name: &str, shape: aya_obj::Map) -> Result<u32, PinError> {
        let failed = |attempt| {
            let name = name.to_owned();
            move |source| PinError::Map { attempt, name, source }
        };
        let path = self.directory.join(name);
        if path.symlink_metadata().is_ok() {
            self.replaced.push(name.to_owned());
            if name == PRECIOUS {
                self.set_aside(&path);
            }
            place::remove(&path)?;
        }
        // What writes can be silenced through this map alone: without it they must go first.
        if name == ACTIVE {
            Links::remove_all_of(place)?;
        }
        let map = MapData::create(shape, name, None).map_err(failed("making"))?;
        let id = map.info().map_err(failed("asking about"))?.id();
        // Set before it is pinned: what is found there is complete, whenever this process ends.
        let mut map = Map::from_map_data(map).map_err(failed("asking about"))?;
        match name {
            SEQUENCES => begin_sequences(&mut map).map_err(failed("setting"))?,
            ACTIVE => close_all(&mut map).map_err(failed("setting"))?,
            _ => {}
        }
        map.pin(&path).map_err(|source| PinError::Pin { path: path.clone(), source })?;
        Ok(id)
    }
}

/// Makes a pinned ring readable.
pub(super) fn ring(map: MapData) -> Result<RingBuf<MapData>, MapError> {
    RingBuf::try_from(Map::from_map_data(map)?)
}

/// Opens a pinned ring.
pub(super) fn pinned_ring(path: &Path) -> Result<RingBuf<MapData>, MapError> {
    ring(MapData::from_pin(path)?)
}

/// Rings that an earlier process set aside and did not read to their end. What else has such a name goes.
fn left_rings(directory: &Path) -> Result<Vec<Former>, PinError> {
    let mut left = Vec::new();
    for path in place::entries(directory).into_iter().filter(|path| place::name(path).starts_with(FORMER)) {
        match pinned_ring(&path) {
            Ok(ring) => left.push(Former { path, ring }),
            Err(_) => place::remove(&path)?,
        }
    }
    Ok(left)
}

/// Numbers of records must rise in a boot also from maps that are lost, or could not be kept, to those that take their
/// place: time does.
pub(in crate::agent::source) fn begin_sequences(map: &mut Map) -> Result<(), MapError> {
    let mut sequences: PerCpuArray<_, u64> = map.try_into()?;
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
    for ring in 0..Ring::COUNT {
        let values = PerCpuValues::try_from(vec![clock::boot_ns(); cpus]).map_err(MapError::IoError)?;
        sequences.set(ring, values, 0)?;
    }
    Ok(())
}

/// Nobody writes yet.
fn close_all(map: &mut Map) -> Result<(), MapError> {
    close(&mut map.try_into()?)
}

/// Has nobody write, in whatever version of the records the slots were made. The first slot, that of kills, goes last: who
/// takes their place does so with the next system call.
pub(super) fn close<T: BorrowMut<MapData>>(active: &mut Array<T, u64>) -> Result<(), MapError> {
    (0..active.len()).rev().try_for_each(|slot| active.set(slot, NOBODY, 0))
}

/// Opens the pinned slots of those who write.
pub(super) fn pinned_active(path: &Path) -> Result<Array<MapData, u64>, MapError> {
    Map::from_map_data(MapData::from_pin(path)?)?.try_into()
}
