//! The rings, when they wake their reader, and counters that the kernel side keeps: what was written and what did not fit,
//! per kind.

use crate::Kind;

/// The two ring buffers. What must not be lost never shares one with what comes in masses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ring {
    /// OOM kills, hung tasks, later panics.
    Precious = 0,
    /// Life of cgroups.
    Bulk = 1,
}

impl Ring {
    /// Number of rings.
    pub const COUNT: u32 = 2;
}

/// The bulk ring wakes the reader at most once in so many milliseconds, unless it fills up.
pub const BULK_WAKE_INTERVAL_MS: u64 = 50;

/// Milliseconds after a wake-up at which the reader must look at the bulk ring again: what was written within
/// [`BULK_WAKE_INTERVAL_MS`] of that wake-up did not wake it.
pub const BULK_LOOK_AGAIN_MS: u64 = 100;

/// Index of the counter of records of `kind` that reached their ring, in the per-CPU array `COUNTERS`.
#[must_use]
pub const fn written(kind: Kind) -> u32 {
    kind.0 as u32 * 2
}

/// Index of the counter of records of `kind` that found their ring full.
#[must_use]
pub const fn dropped(kind: Kind) -> u32 {
    kind.0 as u32 * 2 + 1
}

/// Index of the counter of kills that found no room in `OOM_KILLS`. No kind has the number 0.
pub const UNCOUNTED_KILLS: u32 = 0;

/// Number of entries of `COUNTERS`: room for kinds 1 to 31.
pub const COUNTERS: u32 = 64;

const _: () = assert!(BULK_LOOK_AGAIN_MS > BULK_WAKE_INTERVAL_MS);
const _: () = assert!(dropped(Kind::ALL[Kind::ALL.len() - 1]) < COUNTERS);
