//! Counts real kills per cgroup, before the ring is tried: a full ring or a dead reader costs the details of a kill, never
//! the kill.

use aya_ebpf::{macros::map, maps::HashMap};
use detector_common::{
    cgroup::CgroupRef,
    counter::UNCOUNTED_KILLS,
    kill_count::{CGROUPS, KillKey, UNKNOWN_CGROUP},
};

use crate::{cgroup, emit, task};

/// Memory cgroup → kills. Room is made by user space alone, when it remembers a removed cgroup no longer.
#[map]
static OOM_KILLS: HashMap<KillKey, u64> = HashMap::with_max_entries(CGROUPS, 0);

/// Counts the kill of a `struct task_struct`.
#[inline(always)]
pub(crate) fn of_task(task: u64) {
    let mut cgroup = CgroupRef { id: 0, hierarchy: 0, level: 0 };
    let known = cgroup::identify_css(&mut cgroup, task::memory_css(task));
    of_cgroup(&cgroup, known);
}

/// Counts a kill in `cgroup`, if that is `known`.
#[inline(always)]
pub(crate) fn of_cgroup(cgroup: &CgroupRef, known: bool) {
    let key = if known { [cgroup.id, u64::from(cgroup.hierarchy)] } else { UNKNOWN_CGROUP };
    match OOM_KILLS.get_ptr_mut(key) {
        // SAFETY: the number lies in memory of the map as long as this program runs, and marks come one at a time, under
        // `oom_lock`; user space only reads and removes. What it removes is of a cgroup that was removed some minutes ago,
        // in which nothing is killed any more.
        Some(count) => unsafe { *count += 1 },
        None => {
            if OOM_KILLS.insert(key, 1u64, 0).is_err() {
                emit::count(UNCOUNTED_KILLS);
            }
        }
    }
}
