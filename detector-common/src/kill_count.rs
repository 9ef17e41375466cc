//! Kills of the OOM killer per cgroup, counted in the kernel: what must survive a full ring or a dead reader.

/// Key of the hash `OOM_KILLS`: id and number of the hierarchy of the victim's memory cgroup, as in
/// [`crate::cgroup::CgroupRef`]. Its value is a number of kills, as `u64`.
pub type KillKey = [u64; 2];

/// Key of kills whose cgroup could not be told. No cgroup has the id 0 (kernfs begins at 1).
pub const UNKNOWN_CGROUP: KillKey = [0, 0];

/// Cgroups of which kills are counted at the same time. Those removed since are among them until user space has them
/// forgotten, which it does some minutes later.
pub const CGROUPS: u32 = 8192;
