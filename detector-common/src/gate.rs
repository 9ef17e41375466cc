//! Who may write: one slot per family of programs, so that two generations of them never write at the same time.
//!
//! The programs of one generation carry its number. They write only while the slot of their family, in the array `ACTIVE`,
//! holds that number. So a new generation can be attached beside an old one, and takes over with a single store.
//!
//! This array is the one thing that all versions of the records share, so that one version can silence another: its name,
//! its shape and the number that nobody has stay as they are, whatever else changes.

/// A family of programs of which one generation writes at a time: an index of the array `ACTIVE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// Marks of the OOM killer, and the count of kills.
    Oom = 0,
    /// Hung tasks.
    HungTask = 1,
    /// Life of cgroups.
    CgroupLife = 2,
    /// Last words of the kernel.
    Panic = 3,
}

impl Writer {
    /// Number of entries of `ACTIVE`: room for families to come.
    pub const SLOTS: u32 = 16;
    /// All families that there are.
    pub const ALL: [Self; 4] = [Self::Oom, Self::HungTask, Self::CgroupLife, Self::Panic];
}

/// Slot value that no generation has: nobody of the family writes.
pub const NOBODY: u64 = u64::MAX;

const _: () = assert!(Writer::ALL.len() <= Writer::SLOTS as usize);
