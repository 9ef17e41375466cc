//! Cgroups made, renamed and removed, in the one hierarchy that memory is accounted in.

use aya_ebpf::{Global, helpers::bpf_probe_read_kernel_str_bytes, macros::map, maps::PerCpuArray};
use detector_common::{
    Kind,
    cgroup::{CgroupLife, CgroupRef, PATH_CAPACITY},
    counter::Ring,
    gate::Writer,
    offset::ABSENT,
};

use crate::{cgroup, emit, gate};

/// Number of the hierarchy with the memory controller, set by user space. Every hierarchy reports its cgroups, on
/// cgroup v1 up to a dozen of them; the others are dropped here.
#[unsafe(no_mangle)]
pub(crate) static MEMORY_HIERARCHY: Global<u32> = Global::new(ABSENT);

/// A record under construction: too large for the 512 bytes of a program's stack.
#[repr(C)]
struct Draft {
    life: CgroupLife,
    path: [u8; PATH_CAPACITY],
}

#[map]
static DRAFT: PerCpuArray<Draft> = PerCpuArray::with_max_entries(1, 0);

/// Writes a record of what happened to `cgroup`, a `struct cgroup` whose path the kernel has printed to `path`.
#[inline(always)]
pub(crate) fn tell(kind: Kind, cgroup: u64, path: u64) {
    let mut identity = CgroupRef { id: 0, hierarchy: 0, level: 0 };
    if cgroup::identify(&mut identity, cgroup) {
        tell_path(kind, identity, path);
    }
}

/// The same of a cgroup whose identity is known. `path` is an address; 0 where there is none.
#[inline(always)]
pub(crate) fn tell_path(kind: Kind, identity: CgroupRef, path: u64) {
    if identity.hierarchy != MEMORY_HIERARCHY.load() || !gate::is_open(Writer::CgroupLife) {
        return;
    }
    let Some(draft) = DRAFT.get_ptr_mut(0) else { return };
    // SAFETY: the slot is this CPU's own, and the kernel calls these tracepoints one at a time, under
    // `trace_cgroup_path_lock` (`kernel/cgroup/cgroup-internal.h`).
    let draft = unsafe { &mut *draft };
    // SAFETY: the helper takes any address, checks it and fails instead of faulting.
    let length = match unsafe { bpf_probe_read_kernel_str_bytes(path as *const u8, &mut draft.path) } {
        // As long as the kernel's buffer: it was cut there.
        Ok(text) if text.len() >= PATH_CAPACITY - 1 => 0,
        Ok(text) => text.len() & (PATH_CAPACITY - 1),
        Err(_) => 0,
    };
    let total = (size_of::<CgroupLife>() + length).next_multiple_of(8).min(size_of::<Draft>());
    let header = emit::header(kind, total as u32, Ring::Bulk);
    let boot_ns = header.boot_ns;
    draft.life = CgroupLife { header, cgroup: identity, path_length: length as u32, padding: 0 };
    // SAFETY: `total` is at most the size of the draft, whose bytes are all initialised: map memory starts as zeros.
    let record = unsafe { core::slice::from_raw_parts(core::ptr::from_ref(draft).cast::<u8>(), total) };
    emit::bulk(kind, record, boot_ns);
}
