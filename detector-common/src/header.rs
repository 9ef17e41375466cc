//! The header that every record begins with.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of all record layouts in this crate, and of what the maps hold that outlive a program. Records of another
/// version are refused, never guessed at; maps of another version are emptied and removed.
pub const ABI: u16 = 1;

/// What a record tells of. An integer on the wire, because a foreign byte must not become an invalid enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Kind(pub u16);

impl Kind {
    /// A task was marked as victim of the OOM killer: [`crate::oom::OomMark`].
    pub const OOM_MARK: Self = Self(1);
    /// A cgroup was made, or has a new path: [`crate::cgroup::CgroupLife`].
    pub const CGROUP_MADE: Self = Self(2);
    /// A cgroup was removed: [`crate::cgroup::CgroupLife`].
    pub const CGROUP_REMOVED: Self = Self(3);

    /// The kernel's own watch found a task hung: [`crate::hung_task::HungTask`].
    pub const HUNG_TASK: Self = Self(4);

    /// All kinds of this ABI, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::OOM_MARK, Self::CGROUP_MADE, Self::CGROUP_REMOVED, Self::HUNG_TASK];

    /// The name that logs, metrics and command line use, or `None` for a number that this ABI does not have.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::OOM_MARK => Some("oom_mark"),
            Self::CGROUP_MADE => Some("cgroup_made"),
            Self::CGROUP_REMOVED => Some("cgroup_removed"),
            Self::HUNG_TASK => Some("hung_task"),
            _ => None,
        }
    }
}

/// First bytes of every record: 32 bytes, 8-byte aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`ABI`] of the side that wrote the record.
    pub abi: u16,
    /// What the record tells of.
    pub kind: Kind,
    /// Length of the whole record in bytes, header included.
    pub length: u32,
    /// Time of the happening, nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`).
    pub boot_ns: u64,
    /// Counts the records that this CPU tried to write to this ring. A gap is a loss. Together with boot id, `ring` and
    /// `cpu` it names one record. The first has one more than the nanoseconds since boot at which the maps were made: so
    /// numbers rise also when maps are made anew. Only maps from the time before last, which could not be used meanwhile, go
    /// on below; who compares records of one CPU takes `boot_ns` first.
    pub sequence: u64,
    /// CPU that wrote the record.
    pub cpu: u32,
    /// Ring that the record was written to: index of [`crate::counter::Ring`].
    pub ring: u32,
}

const _: () = assert!(size_of::<Header>() == 32 && align_of::<Header>() == 8);
