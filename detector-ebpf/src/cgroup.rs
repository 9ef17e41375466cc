//! Identity of cgroups and the way from a memory cgroup to the root.

use detector_common::{
    cgroup::CgroupRef,
    oom::{Level, OomMark, flags, known},
};

use crate::offset::{
    CGROUP_KN, CGROUP_LEVEL, CGROUP_ROOT, CSS_CGROUP, CSS_PARENT, KN_ID, MEMCG_CSS, MEMCG_LIMIT, MEMCG_OOM_EVENTS,
    MEMCG_OOM_GROUP, MEMCG_USAGE, ROOT_HIERARCHY, field, pointer, read,
};

/// Writes the identity of a `struct cgroup`.
#[inline(always)]
pub(crate) fn identify(target: &mut CgroupRef, cgroup: u64) -> bool {
    read(&mut target.id, pointer(cgroup, &CGROUP_KN), &KN_ID)
        && read(&mut target.hierarchy, pointer(cgroup, &CGROUP_ROOT), &ROOT_HIERARCHY)
        && read(&mut target.level, cgroup, &CGROUP_LEVEL)
}

/// Writes the identity of the cgroup of a `struct cgroup_subsys_state`.
#[inline(always)]
pub(crate) fn identify_css(target: &mut CgroupRef, css: u64) -> bool {
    identify(target, pointer(css, &CSS_CGROUP))
}

/// Writes the identity of the cgroup of a `struct mem_cgroup`.
#[inline(always)]
pub(crate) fn identify_memcg(target: &mut CgroupRef, memcg: u64) -> bool {
    identify_css(target, field(memcg, &MEMCG_CSS))
}

/// Walks from the memory cgroup `css` to the root and writes each level into `record`.
#[inline(always)]
pub(crate) fn walk(record: &mut OomMark, css: u64) {
    let memcg_css = MEMCG_CSS.load();
    let mut css = css;
    let mut seen = known::LEVELS | known::LEVEL_OOM_EVENTS | known::LEVEL_LIMITS | known::LEVEL_OOM_GROUP;
    let mut count = 0;
    for level in &mut record.levels {
        let filled = fill(level, css, css.wrapping_sub(u64::from(memcg_css)));
        if filled == 0 {
            break;
        }
        seen &= filled;
        count += 1;
        css = pointer(css, &CSS_PARENT);
        if css == 0 {
            break;
        }
    }
    if count == 0 {
        return;
    }
    record.level_count = count;
    record.known |= seen;
    if css != 0 {
        record.flags |= flags::LEVELS_CUT;
    }
}

/// Fills one level and returns what of it is known: nothing, if not even its identity could be read.
#[inline(always)]
fn fill(level: &mut Level, css: u64, memcg: u64) -> u64 {
    let cgroup = pointer(css, &CSS_CGROUP);
    if !read(&mut level.id, pointer(cgroup, &CGROUP_KN), &KN_ID) || !read(&mut level.level, cgroup, &CGROUP_LEVEL) {
        return 0;
    }
    let mut seen = known::LEVELS;
    if read(&mut level.oom_events, memcg, &MEMCG_OOM_EVENTS) {
        seen |= known::LEVEL_OOM_EVENTS;
    }
    if read(&mut level.limit_pages, memcg, &MEMCG_LIMIT) && read(&mut level.usage_pages, memcg, &MEMCG_USAGE) {
        seen |= known::LEVEL_LIMITS;
    }
    let mut group = 0u8;
    if read(&mut group, memcg, &MEMCG_OOM_GROUP) {
        level.oom_group = u32::from(group != 0);
        seen |= known::LEVEL_OOM_GROUP;
    }
    seen
}
