//! Hung tasks: who hangs, for how long, on which lock, and who holds it.
//!
//! `sched_process_hang(task)` fires in khungtaskd for each task that its scan found hung, again at each scan, and before
//! the kernel counts its warnings down (`check_hung_task`, `kernel/hung_task.c`).

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_task_stack, bpf_jiffies64};
use detector_common::{
    Kind,
    gate::Writer,
    hung_task::{HungTask, flags, known, lock_kind},
};

use crate::{
    emit, gate,
    offset::{
        MUTEX_OWNER, RWSEM_OWNER, SEMAPHORE_HOLDER, TASK_BLOCKER, TASK_LAST_SWITCH, TASK_NIVCSW, TASK_NVCSW, read,
    },
    task,
};

/// Bits of `task_struct.blocker` that tell the kind of the lock, and their values (`include/linux/hung_task.h`).
const BLOCKER_TYPE_MASK: u64 = 3;
const BLOCKER_TYPE_MUTEX: u64 = 0;
const BLOCKER_TYPE_SEMAPHORE: u64 = 1;
const BLOCKER_TYPE_RWSEM_READER: u64 = 2;

/// Lower bits of an owner that are flags, not address: three of a mutex (`MUTEX_FLAGS`, `kernel/locking/mutex.h`), two or
/// three of a rw_semaphore (`RWSEM_OWNER_FLAGS_MASK`, `kernel/locking/rwsem.c`). Tasks lie at multiples of 64 and more.
const OWNER_FLAGS: u64 = 7;

/// `RWSEM_READER_OWNED`: the owner is the last reader that took the lock, of maybe several.
const READER_OWNED: u64 = 1;

/// What of the holder must be known: all but its cgroup.
const HOLDER: u64 = known::TGID | known::PID | known::START | known::LEADER_START | known::COMM | known::LEADER_COMM;

/// Writes a record of a hung `struct task_struct`, with its stack. `task` must be the very argument that the verifier
/// gave a type: the helper takes no other.
#[inline(always)]
pub(crate) fn tell_with_stack(task: *const c_void) {
    if !gate::is_open(Writer::HungTask) {
        return;
    }
    emit::precious::<HungTask>(Kind::HUNG_TASK, |record| {
        let (stack, size) = (record.stack.as_mut_ptr(), size_of_val(&record.stack));
        // SAFETY: the stack has `size` bytes, and `task` is one that the kernel holds while the hook runs.
        let written = unsafe { bpf_get_task_stack(task.cast_mut().cast(), stack.cast(), size as u32, 0) };
        if written > 0 {
            record.frame_count = (written as u32) / size_of::<u64>() as u32;
            record.known |= known::STACK;
        }
        fill(record, task as u64);
    });
}

/// The same without stack, of a task whose address came without type.
#[inline(always)]
pub(crate) fn tell(task: u64) {
    if !gate::is_open(Writer::HungTask) {
        return;
    }
    emit::precious::<HungTask>(Kind::HUNG_TASK, |record| fill(record, task));
}

#[inline(always)]
fn fill(record: &mut HungTask, task: u64) {
    record.known |= task::name(&mut record.task, task);
    let (mut voluntary, mut involuntary, mut since) = (0u64, 0u64, 0u64);
    if read(&mut voluntary, task, &TASK_NVCSW) && read(&mut involuntary, task, &TASK_NIVCSW) {
        record.switches = voluntary.wrapping_add(involuntary);
        record.known |= known::SWITCHES;
    }
    if read(&mut since, task, &TASK_LAST_SWITCH) {
        // SAFETY: the helper has no preconditions. On 64-bit machines it counts what the field was taken from.
        record.hung_jiffies = unsafe { bpf_jiffies64() }.wrapping_sub(since);
        record.known |= known::HUNG;
    }
    lock(record, task);
}

/// What the task waits for, where the kernel keeps account of it (`CONFIG_DETECT_HUNG_TASK_BLOCKER`).
#[inline(always)]
fn lock(record: &mut HungTask, task: u64) {
    let mut blocker = 0u64;
    if !read(&mut blocker, task, &TASK_BLOCKER) {
        return;
    }
    if blocker == 0 {
        record.flags |= flags::NO_LOCK;
        return;
    }
    let address = blocker & !BLOCKER_TYPE_MASK;
    let mut owner = 0u64;
    let (kind, likely) = match blocker & BLOCKER_TYPE_MASK {
        BLOCKER_TYPE_MUTEX => {
            read(&mut owner, address, &MUTEX_OWNER);
            (lock_kind::MUTEX, false)
        }
        BLOCKER_TYPE_SEMAPHORE => {
            read(&mut owner, address, &SEMAPHORE_HOLDER);
            (lock_kind::SEMAPHORE, true)
        }
        kind => {
            read(&mut owner, address, &RWSEM_OWNER);
            let reads = kind == BLOCKER_TYPE_RWSEM_READER;
            let kind = if reads { lock_kind::RWSEM_READER } else { lock_kind::RWSEM_WRITER };
            (kind, owner & READER_OWNED != 0)
        }
    };
    record.lock_address = address;
    record.lock_kind = kind;
    record.known |= known::LOCK;
    holder(record, owner & !OWNER_FLAGS, likely);
}

#[inline(always)]
fn holder(record: &mut HungTask, task: u64, likely: bool) {
    if task == 0 {
        return;
    }
    let seen = task::name(&mut record.holder, task);
    if seen & HOLDER != HOLDER {
        return;
    }
    record.known |= known::HOLDER;
    record.known |= task::bit(known::HOLDER_CGROUP, seen & known::CGROUP != 0);
    if likely {
        record.flags |= flags::HOLDER_LIKELY;
    }
}
