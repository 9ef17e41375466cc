//! Two processes that share one memory: a parent and its child between vfork and exec.

use std::ffi::c_void;

use super::{APPETITE, EATER, Provoked, Victim};
use crate::{
    Cgroup, Error,
    memory::{REFUSED, UNHARMED, map, touch},
    process::Child,
    stage::{NO_PLACE, Part, Stage},
};

/// Stack of the child, which shares the parent's memory but must not share its frames.
const STACK: usize = 64 << 10;

/// The child of a vfork takes memory in its parent's address space. The kernel kills both and counts one: the parent,
/// because it passes over a process in vfork (`in_vfork` in `mm/oom_kill.c`).
pub fn vfork_pair(leaf: &Cgroup) -> Result<Provoked, Error> {
    let stage = Stage::new()?;
    let part = Part::new(leaf, EATER);
    let mut parent = Child::fork(|| stage.play(&part, fork_sharing))?;
    stage.expect(1, "the process is in its cgroup")?;
    stage.cue()?;
    parent.expect_killed("the parent that shares its memory")?;
    Ok(Provoked { victims: vec![Victim::plain(parent.pid(), EATER, leaf)], ..Provoked::default() })
}

fn fork_sharing() -> i32 {
    let (Ok(memory), Ok(stack)) = (map(APPETITE), map(STACK)) else {
        return REFUSED;
    };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: `stack` has STACK writable bytes, of which the child gets the end; stacks grow downwards. CLONE_VFORK
    // stops this thread until the child has ended, so that nobody else uses `memory` meanwhile.
    let child = unsafe { libc::clone(eat_shared, stack.add(STACK).cast(), flags, memory.cast()) };
    if child < 0 { NO_PLACE } else { UNHARMED }
}

extern "C" fn eat_shared(memory: *mut c_void) -> i32 {
    // SAFETY: `fork_sharing` mapped APPETITE bytes there, and waits.
    unsafe { touch(memory.cast(), APPETITE) };
    UNHARMED
}
