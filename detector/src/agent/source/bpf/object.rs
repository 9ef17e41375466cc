//! The kernel object inside this program, and loading its maps.

use std::io;

use aya::{Ebpf, EbpfError, EbpfLoader, maps::MapError};
use detector_common::offset::ABSENT;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use super::{event_fields::EventFields, offsets::Offsets};
use crate::agent::source::pin::{Fingerprint, Keeper, PinError, Pins};

/// The object, aligned as the ELF reader wants it; empty in a build without the kernel side.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/detector-ebpf.o"));

/// Why the object could not be loaded.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// A plain `cargo build` has no kernel side to embed.
    #[error("this binary was built without its kernel side; build one that can watch with `cargo xtask build`")]
    Stub,
    /// The kernel refused a map. Which one comes first differs from run to run.
    #[error("creating the maps of the kernel object")]
    Maps(#[source] io::Error),
    /// The kernel refused it otherwise, or the object is damaged.
    #[error("loading the maps of the kernel object")]
    Load(#[source] EbpfError),
}

/// Whether this build has its kernel side.
#[must_use]
pub fn is_embedded() -> bool {
    !OBJECT.is_empty()
}

/// Bytes of a kilobyte as the kernel counts it, as a power of 2.
const KILOBYTE_SHIFT: u32 = 10;

/// What the programs are made of: constants by the name of the global that takes them.
pub struct Constants(Vec<(&'static str, u32)>);

impl Constants {
    /// `offsets`, `fields`, the size of a page, and the number of the hierarchy that memory is accounted in.
    #[must_use]
    pub fn of(offsets: &Offsets, fields: &EventFields, memory_hierarchy: u32) -> Self {
        let page_shift = rustix::param::page_size().trailing_zeros().saturating_sub(KILOBYTE_SHIFT);
        let mut all = offsets.values().to_vec();
        debug_assert!(all.iter().all(|(_, value)| *value != ABSENT), "{all:?}");
        all.extend(fields.values());
        all.extend([("PAGE_KILOBYTES_SHIFT", page_shift), ("MEMORY_HIERARCHY", memory_hierarchy)]);
        Self(all)
    }

    /// Fingerprint of the object with these constants.
    fn fingerprint(&self) -> Fingerprint {
        let of_constant = |hash: Fingerprint, (name, value): &(&str, u32)| {
            hash.with(name.as_bytes()).with(&[0]).with(&value.to_le_bytes())
        };
        self.0.iter().fold(Fingerprint::EMPTY.with(OBJECT), of_constant)
    }
}

/// Adopts or makes what `pins` keeps.
///
/// # Errors
/// If this build has no kernel side, or nothing can be kept there.
pub(super) fn keep(pins: &Pins, constants: &Constants) -> Result<Keeper, KeepError> {
    if !is_embedded() {
        return Err(ObjectError::Stub.into());
    }
    Ok(Keeper::open(pins, OBJECT, constants.fingerprint())?)
}

/// Why nothing can be kept.
#[derive(Debug, Error)]
pub(super) enum KeepError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// Creates the maps, but takes those of `keeper`, and places the constants. No program is loaded yet.
///
/// # Errors
/// If this build has no kernel side, or the kernel refuses a map.
pub(super) fn load(constants: &Constants, keeper: Option<&Keeper>) -> Result<Ebpf, ObjectError> {
    if !is_embedded() {
        return Err(ObjectError::Stub);
    }
    let generation = keeper.map(Keeper::generation);
    let mut loader = loader();
    for (name, value) in &constants.0 {
        loader.override_global(name, value, true);
    }
    if let Some(generation) = &generation {
        loader.override_global("GENERATION", generation, true);
    }
    for (name, path) in keeper.iter().flat_map(|keeper| keeper.files()) {
        loader.map_pin_path(name, path);
    }
    loader.load(OBJECT).map_err(|error| match error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) => ObjectError::Maps(io_error),
        other => ObjectError::Load(other),
    })
}

/// A loader that knows no BTF of the kernel, which it would need for CO-RE relocations alone: the object has none.
///
/// `EbpfLoader::new` of aya 0.14 parses the 120,000 types of the kernel before it can be told not to (80 ms and 40 MB;
/// later versions parse when needed). It goes on without them if the file cannot be opened, and so it is given no
/// descriptor to open it with. Nothing else runs in this process yet: the thread that reads containers' names starts with
/// the first of them, after the probes.
fn loader<'a>() -> EbpfLoader<'a> {
    let limits = getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(0), maximum: limits.maximum };
    let lowered = setrlimit(Resource::Nofile, none).is_ok();
    let mut loader = EbpfLoader::new();
    if lowered {
        // Raising a soft limit to where it was cannot be refused (getrlimit(2)).
        setrlimit(Resource::Nofile, limits).ok();
    }
    loader.btf(None);
    loader
}
