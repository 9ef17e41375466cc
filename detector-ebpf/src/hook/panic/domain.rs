//! Where memory ran out: in which domain, a memory cgroup or the machine, and who has most of it there.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_task, generated::bpf_probe_read_kernel},
    macros::map,
    maps::Array,
};
use detector_common::{last_words::Address, offset::ABSENT};

use super::{
    address,
    line::{Suspect, Work, append_text},
};
use crate::offset::{
    CGROUP_ANCESTORS, CGROUP_LEVEL, CSS_CGROUP, CSS_SET_MEMORY, MEMCG_CSS, MM_RSS, MM_RSS_STRIDE, OC_MEMCG,
    TASK_CGROUPS, TASK_LEADER, TASK_MM, TASK_TASKS, field, pointer, read, read_at,
};

/// Tasks that are looked at for the biggest consumer. The verifier follows each of them.
const TASKS: u32 = 512;

/// Who last ran out of memory: the task, and its `struct oom_control`, which lies on the task's stack.
#[repr(C)]
#[derive(Clone, Copy)]
struct OutOfMemory {
    task: u64,
    control: u64,
}

#[map]
static PANIC_DOMAIN: Array<OutOfMemory> = Array::with_max_entries(1, 0);

/// A domain, and the search in it.
#[repr(C)]
pub(super) struct Domain {
    walk: Walk,
    /// Memory cgroup that ran out, 0 for the machine; and whether that is known.
    css: u64,
    known: u64,
    /// What stands in the list of ancestors of each cgroup of the domain, at `level`.
    ancestor: u64,
    level: u64,
}

/// A walk through the list of processes.
#[repr(C)]
struct Walk {
    first: u64,
    task: u64,
    /// What was read last, on the way to a cgroup, and besides.
    link: u64,
    read: u64,
    /// Pages of the biggest consumer by now.
    most: u64,
    biggest: u64,
    /// 0 once it has come round.
    open: u64,
}

/// Remembers that the current task ran out of memory; the kernel lets one at a time (`oom_lock`).
#[inline(always)]
pub(crate) fn remember_domain(control: u64) {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    PANIC_DOMAIN.set(0, OutOfMemory { task, control }, 0).ok();
}

/// The biggest consumer of the domain that ran out, or of the machine.
#[inline(always)]
pub(super) fn out_of_memory(work: &mut Work, current: u64) -> Suspect {
    let domain = &mut work.domain;
    domain.walk.most = 0;
    domain.walk.biggest = 0;
    domain.walk.open = u64::MAX;
    find_domain(domain, current);
    find_biggest(domain, current);
    let (css, known) = (again(&domain.css), again(&domain.known) != 0);
    let came_round = again(&domain.walk.open) == 0;
    let countable = css == 0 || again(&domain.ancestor) != 0;
    let biggest = again(&domain.walk.biggest);
    let task = if countable { biggest } else { 0 };
    // The cgroup alone is certain; who is biggest in it, if all were looked at.
    if css != 0 && (came_round || task == 0) {
        append_text(work, b"role=oom-domain confidence=high ");
    } else if css != 0 || known && came_round {
        append_text(work, b"role=oom-domain confidence=medium ");
    } else {
        append_text(work, b"role=oom-domain confidence=low ");
    }
    Suspect { task, css }
}

/// The domain that the current task found empty: its memory cgroup, 0 for the machine.
#[inline(always)]
fn find_domain(domain: &mut Domain, current: u64) {
    let (mut task, mut control, mut memcg) = (0u64, 0u64, 0u64);
    if let Some(last) = PANIC_DOMAIN.get_ptr(0) {
        // SAFETY: numbers in memory of the map, valid at any time.
        unsafe { (task, control) = ((*last).task, (*last).control) };
    }
    let known = task == current && read(&mut memcg, control, &OC_MEMCG);
    domain.known = u64::from(known);
    domain.css = if memcg == 0 { 0 } else { field(memcg, &MEMCG_CSS) };
    domain.level = 0;
    domain.ancestor = 0;
    if domain.css != 0 {
        let cgroup = pointer(domain.css, &CSS_CGROUP);
        let mut level = 0u32;
        read(&mut level, cgroup, &CGROUP_LEVEL);
        domain.level = u64::from(level);
        domain.ancestor = ancestor(cgroup, level);
    }
}

/// Reads a number of which neither compiler nor verifier shall know anything.
#[inline(always)]
fn again(number: &u64) -> u64 {
    // SAFETY: a reference is valid.
    unsafe { core::ptr::from_ref(number).read_volatile() }
}

/// What `cgroup` has in its list of ancestors at `level`: an address, before Linux 6.1 an id. 0 if that is not known.
#[inline(always)]
fn ancestor(cgroup: u64, level: u32) -> u64 {
    let mut found = 0u64;
    let list = field(cgroup, &CGROUP_ANCESTORS);
    if list != 0 {
        read_at(&mut found, list + 8 * u64::from(level));
    }
    found
}

/// Walks the list of processes once around, the newest first: threads of the kernel are mostly old.
///
/// The verifier walks all of it, too, and of each branch both ways. So there is none: what cannot be read is 0 and goes on as
/// that, and all values lie in `walk`, of which the verifier keeps no account.
#[inline(always)]
fn find_biggest(domain: &mut Domain, current: u64) {
    let offsets = [&TASK_TASKS, &TASK_MM, &MM_RSS, &MM_RSS_STRIDE, &TASK_CGROUPS, &CSS_SET_MEMORY, &CSS_CGROUP];
    if offsets.iter().any(|offset| offset.load() == ABSENT) {
        return;
    }
    let init = address(Address::InitTask);
    let leader = if init == 0 { pointer(current, &TASK_LEADER) } else { init };
    let walk = core::ptr::from_mut(&mut domain.walk);
    let of = |offset: &Global<u32>| u64::from(offset.load());
    // SAFETY: the place is valid, and this CPU's own.
    let get = |place: *const u64| unsafe { place.read_volatile() };
    // SAFETY: as above.
    let set = |place: *mut u64, value| unsafe { place.write_volatile(value) };
    // SAFETY: as above; the helper takes any address, and writes zeros if it cannot be read.
    let fetch = |place: *mut u64, address: u64| unsafe {
        bpf_probe_read_kernel(place.cast(), size_of::<u64>() as u32, address as *const _);
    };
    // SAFETY: places in one structure.
    let (first, task, link, read, most, biggest, open) = unsafe {
        (
            &raw mut (*walk).first,
            &raw mut (*walk).task,
            &raw mut (*walk).link,
            &raw mut (*walk).read,
            &raw mut (*walk).most,
            &raw mut (*walk).biggest,
            &raw mut (*walk).open,
        )
    };
    set(first, leader);
    set(task, leader);
    let (ancestor, place) = (again(&domain.ancestor), of(&CGROUP_ANCESTORS) + 8 * again(&domain.level));
    for _ in 0..TASKS {
        let mut sum = 0u64;
        fetch(link, get(task) + of(&TASK_MM));
        let counts = get(link) + of(&MM_RSS);
        for counter in 0..4 {
            fetch(read, counts + counter * of(&MM_RSS_STRIDE));
            sum = sum.wrapping_add(get(read));
        }
        fetch(link, get(task) + of(&TASK_CGROUPS));
        fetch(link, get(link) + of(&CSS_SET_MEMORY));
        fetch(link, get(link) + of(&CSS_CGROUP));
        // A cgroup nearer to the root has a shorter list, behind which is nothing that looks like this ancestor.
        fetch(read, get(link) + place);
        let is_elsewhere = all_if_not_zero(ancestor) & all_if_not_zero(get(read) ^ ancestor);
        // Below 0 is an empty account that others of its parts make up for.
        let is_more = all_if_negative(get(most).wrapping_sub(sum));
        let chosen = is_more & !is_elsewhere;
        set(most, (sum & chosen) | (get(most) & !chosen));
        set(biggest, (get(task) & chosen) | (get(biggest) & !chosen));
        // `prev`, behind `next`.
        fetch(link, get(task) + of(&TASK_TASKS) + 8);
        set(task, get(link).wrapping_sub(of(&TASK_TASKS)));
        // Once around, it goes round again, and finds nothing bigger.
        set(open, get(open) & all_if_not_zero(get(task) ^ get(first)));
    }
}

/// All bits if the number is negative, else none.
#[inline(always)]
fn all_if_negative(number: u64) -> u64 {
    (number.cast_signed() >> 63).cast_unsigned()
}

/// All bits if the number is not 0, else none.
#[inline(always)]
fn all_if_not_zero(number: u64) -> u64 {
    all_if_negative(number | number.wrapping_neg())
}
