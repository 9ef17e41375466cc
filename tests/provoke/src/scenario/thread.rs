//! Victims with more than one thread.

use std::{sync::Barrier, thread};

use super::{APPETITE, EATER, Provoked, THREAD, Victim};
use crate::{
    Cgroup, Error,
    memory::eat,
    process::{Child, DEADLINE, state, until},
    stage::{NO_PLACE, Part, Stage},
};

/// How many threads eat together.
const THREADS: usize = 4;

/// The leading thread of a process has exited; another one overruns the limit. The kernel marks that thread, but the
/// process is what dies.
pub fn leader_gone(leaf: &Cgroup) -> Result<Provoked, Error> {
    let stage = Stage::new()?;
    let part = Part::new(leaf, EATER);
    let mut process = Child::fork(|| leave_thread(&stage, &part))?;
    stage.expect(1, "the thread runs")?;
    let pid = process.pid();
    if !until(DEADLINE, || state(pid) == Some('Z')) {
        let what = "the leading thread has exited".to_owned();
        return Err(Error::Deadline { what, seconds: DEADLINE.as_secs() });
    }
    stage.cue()?;
    process.expect_killed("the process without leader")?;
    Ok(Provoked { victims: vec![Victim::plain(pid, THREAD, leaf)], ..Provoked::default() })
}

/// Four threads of one process overrun the limit together.
pub fn four_threads(leaf: &Cgroup) -> Result<Provoked, Error> {
    let stage = Stage::new()?;
    let part = Part::new(leaf, EATER);
    let mut process = Child::fork(|| stage.play(&part, eat_together))?;
    stage.expect(1, "the process is in its cgroup")?;
    stage.cue()?;
    process.expect_killed("the process with threads")?;
    Ok(Provoked { victims: vec![Victim::plain(process.pid(), EATER, leaf)], ..Provoked::default() })
}

/// Starts the thread and ends the leader alone.
fn leave_thread(stage: &Stage, part: &Part) -> i32 {
    if part.enter().is_err() {
        return NO_PLACE;
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let named = rustix::thread::set_name(c"oom-thread").is_ok();
            let code = if named && stage.tell(true) && stage.wait() { eat(APPETITE) } else { NO_PLACE };
            // SAFETY: ends the process at once; nothing of it is needed any more.
            unsafe { libc::_exit(code) }
        });
        // SAFETY: the bare system call ends this thread alone. Its stack, which the other thread borrows from, stays
        // mapped, because the leader's stack belongs to the process.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    });
    NO_PLACE
}

fn eat_together() -> i32 {
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 1..THREADS {
            scope.spawn(|| {
                barrier.wait();
                eat(APPETITE)
            });
        }
        barrier.wait();
        eat(APPETITE)
    })
}
