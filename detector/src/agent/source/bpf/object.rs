//! The kernel object inside this program, and loading its maps.

use aya::{Ebpf, EbpfError, EbpfLoader};
use detector_common::offset::ABSENT;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use super::offsets::Offsets;

/// The object, aligned as the ELF reader wants it; empty in a build without the kernel side.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/detector-ebpf.o"));

/// Why the object could not be loaded.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// A plain `cargo build` has no kernel side to embed.
    #[error("this binary was built without its kernel side; build one that can watch with `cargo xtask build`")]
    Stub,
    /// The kernel refused a map, or the object is damaged.
    #[error("loading the maps of the kernel object")]
    Load(#[source] EbpfError),
}

/// Whether this build has its kernel side.
#[must_use]
pub fn is_embedded() -> bool {
    !OBJECT.is_empty()
}

/// Creates the maps and places `offsets` and the number of the hierarchy that memory is accounted in. No program is
/// loaded yet.
///
/// # Errors
/// If this build has no kernel side, or the kernel refuses a map.
pub fn load(offsets: &Offsets, memory_hierarchy: u32) -> Result<Ebpf, ObjectError> {
    if !is_embedded() {
        return Err(ObjectError::Stub);
    }
    let mut loader = loader();
    for (name, value) in offsets.values() {
        debug_assert_ne!(*value, ABSENT, "{name}");
        loader.override_global(name, value, true);
    }
    loader.override_global("MEMORY_HIERARCHY", &memory_hierarchy, true);
    loader.load(OBJECT).map_err(ObjectError::Load)
}

/// A loader that knows no BTF of the kernel, which it would need for CO-RE relocations alone: the object has none.
///
/// `EbpfLoader::new` of aya 0.14 parses the 120,000 types of the kernel before it can be told not to (80 ms and 40 MB;
/// later versions parse when needed). It goes on without them if the file cannot be opened, and so it is given no
/// descriptor to open it with. Nothing else runs in this process yet.
fn loader() -> EbpfLoader<'static> {
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
