//! Life of cgroups: the record that teaches which path an id has, before anything can run there.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Header;

/// Longest path a record carries, in bytes. The kernel's own limit for these tracepoints is
/// `TRACE_CGROUP_PATH_LEN` = 1,024 with the closing NUL (`kernel/cgroup/cgroup-internal.h`).
pub const PATH_CAPACITY: usize = 1024;

/// Fixed part of a record of kind `CGROUP_MADE` or `CGROUP_REMOVED`; `path_length` bytes of path follow, without NUL,
/// padded with zeros to a multiple of 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CgroupLife {
    /// Common header.
    pub header: Header,
    /// Which cgroup.
    pub cgroup: CgroupRef,
    /// Length of the path in bytes, at most [`PATH_CAPACITY`] - 1. Zero: the kernel could not tell the path.
    pub path_length: u32,
    /// Always zero.
    pub padding: u32,
}

/// [`CgroupRef::level`] of a cgroup whose depth the kernel did not tell.
pub const UNKNOWN_LEVEL: u32 = u32::MAX;

/// A cgroup as the kernel names it. Ids are unique within one hierarchy only: on cgroup v1 each controller has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CgroupRef {
    /// kernfs id, equal to the inode number of the cgroup's directory (since Linux 5.5, 64-bit).
    pub id: u64,
    /// Number of the hierarchy as in `/proc/PID/cgroup`; 0 is cgroup v2.
    pub hierarchy: u32,
    /// Depth below the root of the hierarchy; the root has 0. May be [`UNKNOWN_LEVEL`].
    pub level: u32,
}

const _: () = assert!(size_of::<CgroupRef>() == 16 && align_of::<CgroupRef>() == 8);
const _: () = assert!(size_of::<CgroupLife>() == 56 && align_of::<CgroupLife>() == 8);
