//! The hung task of the wire becomes one whose unknowns are `None`.

use detector_common::hung_task::{HungTask as Raw, Task as RawTask, flags, known, lock_kind};

use super::{
    event::{CgroupKey, Comm, Holder, HungTask, Lock, LockKind, Task},
    record::stamp,
};

/// Converts a record whose `frame_count` was checked.
pub(super) fn convert(raw: &Raw) -> HungTask {
    let knows = |bit: u64| raw.known & bit != 0;
    let frames = if knows(known::STACK) { raw.frame_count as usize } else { 0 };
    HungTask {
        stamp: stamp(&raw.header),
        task: Task {
            tgid: knows(known::TGID).then_some(raw.task.tgid),
            pid: knows(known::PID).then_some(raw.task.pid),
            start_ns: knows(known::START).then_some(raw.task.start_ns),
            leader_start_ns: knows(known::LEADER_START).then_some(raw.task.leader_start_ns),
            comm: knows(known::COMM).then_some(Comm(raw.task.comm)),
            leader_comm: knows(known::LEADER_COMM).then_some(Comm(raw.task.leader_comm)),
            cgroup: knows(known::CGROUP).then_some(cgroup(&raw.task)),
        },
        switches: knows(known::SWITCHES).then_some(raw.switches),
        hung_jiffies: knows(known::HUNG).then_some(raw.hung_jiffies),
        lock: lock(raw),
        // A frame of zero ends the stack: the kernel side hands over what the helper left untouched.
        stack: raw.stack.iter().copied().take(frames).take_while(|frame| *frame != 0).collect(),
    }
}

fn lock(raw: &Raw) -> Option<Option<Lock>> {
    if raw.flags & flags::NO_LOCK != 0 {
        return Some(None);
    }
    if raw.known & known::LOCK == 0 {
        return None;
    }
    let kind = match raw.lock_kind {
        lock_kind::MUTEX => LockKind::Mutex,
        lock_kind::SEMAPHORE => LockKind::Semaphore,
        lock_kind::RWSEM_READER => LockKind::RwsemReader,
        lock_kind::RWSEM_WRITER => LockKind::RwsemWriter,
        // One that this version does not know.
        _ => return None,
    };
    let holder = (raw.known & known::HOLDER != 0).then(|| Holder {
        task: Task {
            tgid: Some(raw.holder.tgid),
            pid: Some(raw.holder.pid),
            start_ns: Some(raw.holder.start_ns),
            leader_start_ns: Some(raw.holder.leader_start_ns),
            comm: Some(Comm(raw.holder.comm)),
            leader_comm: Some(Comm(raw.holder.leader_comm)),
            cgroup: (raw.known & known::HOLDER_CGROUP != 0).then_some(cgroup(&raw.holder)),
        },
        likely: raw.flags & flags::HOLDER_LIKELY != 0,
    });
    Some(Some(Lock { kind, holder }))
}

fn cgroup(task: &RawTask) -> CgroupKey {
    CgroupKey { hierarchy: task.cgroup.hierarchy, id: task.cgroup.id }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn what_the_kernel_side_could_not_read_is_none_and_never_zero() {
        let hung = convert(&Raw::new_zeroed());
        assert_eq!((hung.task.pid, hung.task.comm, hung.task.cgroup), (None, None, None));
        assert_eq!((hung.switches, hung.hung_jiffies, hung.lock), (None, None, None));
        assert!(hung.stack.is_empty());
    }

    #[test]
    fn no_lock_is_known_while_a_lock_of_an_unknown_kind_is_not() {
        let mut raw = Raw::new_zeroed();
        raw.flags = flags::NO_LOCK;
        assert_eq!(convert(&raw).lock, Some(None));
        raw.flags = 0;
        raw.known = known::LOCK;
        raw.lock_kind = 9;
        assert_eq!(convert(&raw).lock, None);
        raw.lock_kind = lock_kind::MUTEX;
        assert_eq!(convert(&raw).lock, Some(Some(Lock { kind: LockKind::Mutex, holder: None })));
    }

    #[test]
    fn a_stack_ends_at_its_first_empty_frame() {
        let mut raw = Raw::new_zeroed();
        raw.known = known::STACK;
        raw.frame_count = 3;
        raw.stack[..2].copy_from_slice(&[0xffff_ffff_8100_0000, 0]);
        assert_eq!(convert(&raw).stack.as_slice(), [0xffff_ffff_8100_0000]);
    }
}
