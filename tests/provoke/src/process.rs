//! Processes of a provocation: forked, waited for with a deadline, never left behind.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process, pidfd_open, waitpid},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

use crate::Error;

/// How long a step of a provocation may take; generous, because a guest without hardware help is slow.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Time between two looks at something that cannot be waited for otherwise.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Exit code of a child whose parent was gone before it began.
const ORPHAN: i32 = 96;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

/// A child process. Dropping it kills and reaps it.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    handle: OwnedFd,
    reaped: bool,
}

impl Child {
    /// Forks; the child runs `body` and exits with the code it returns. It dies with the parent.
    ///
    /// The child has only the forking thread. It may allocate (glibc takes care of that), but must not wait for a lock
    /// that another thread of the parent may have held.
    pub(crate) fn fork(body: impl FnOnce() -> i32) -> Result<Self, Error> {
        Self::adopt(fork(body).ok_or_else(|| Error::last("fork"))?)
    }

    /// The same in a new pid namespace, where the child is process 1. Needs `CAP_SYS_ADMIN`.
    ///
    /// By fork(3) and not by clone(2), of which the C library would not know: its locks would stay as other threads held
    /// them, and the next fork of the child could wait for ever.
    pub(crate) fn fork_namespace_init(body: impl FnOnce() -> i32) -> Result<Self, Error> {
        let own = File::open("/proc/self/ns/pid").map_err(|error| Error::Call { call: "open", source: error })?;
        // SAFETY: it changes only where this thread's next children live; memory and descriptors stay shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.map_err(Error::call("unshare"))?;
        let pid = fork_as(None, body);
        move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID)).map_err(Error::call("setns"))?;
        Self::adopt(pid.ok_or_else(|| Error::last("fork"))?)
    }

    fn adopt(pid: i32) -> Result<Self, Error> {
        let pid = Pid::from_raw(pid).ok_or(Error::Call { call: "fork", source: Errno::SRCH.into() })?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(Error::call("pidfd_open"))?;
        Ok(Self { pid, handle, reaped: false })
    }

    /// Its process id, as the caller's pid namespace numbers it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&self) -> Result<(), Error> {
        kill_process(self.pid, Signal::KILL).map_err(Error::call("kill"))
    }

    /// Waits for its end and reaps it.
    pub(crate) fn wait(&mut self) -> Result<Ending, Error> {
        self.wait_for_end()?;
        self.reap()
    }

    /// Waits for its end, and leaves it unreaped: the kernel still knows it.
    pub(crate) fn wait_for_end(&self) -> Result<(), Error> {
        let timeout = Timespec { tv_sec: DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
        let mut ready = [PollFd::new(&self.handle, PollFlags::IN)];
        let count = retry(|| poll(&mut ready, Some(&timeout))).map_err(Error::call("poll"))?;
        if count == 0 {
            let what = format!("process {} ended", self.pid());
            return Err(Error::Deadline { what, seconds: DEADLINE.as_secs() });
        }
        Ok(())
    }

    /// Waits and insists that the kernel killed it.
    pub(crate) fn expect_killed(&mut self, who: &'static str) -> Result<(), Error> {
        let ending = self.wait()?;
        let killed = ending == Ending::Signalled(libc::SIGKILL);
        if killed { Ok(()) } else { Err(self.wrong(who, "killed", ending)) }
    }

    /// Waits and insists that it ended by itself with code 0.
    pub(crate) fn expect_success(&mut self, who: &'static str) -> Result<(), Error> {
        let ending = self.wait()?;
        if ending == Ending::Exited(0) { Ok(()) } else { Err(self.wrong(who, "alive to the end", ending)) }
    }

    fn wrong(&self, who: &'static str, wanted: &'static str, ending: Ending) -> Error {
        Error::Ending { who, pid: self.pid(), wanted, found: format!("it ended as {ending:?}") }
    }

    fn reap(&mut self) -> Result<Ending, Error> {
        let status = retry(|| waitpid(Some(self.pid), WaitOptions::empty())).map_err(Error::call("waitpid"))?;
        self.reaped = true;
        Ok(status.map_or(Ending::Exited(-1), |(_, status)| ending(status)))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            // Both can only fail because the process is gone.
            self.kill().ok();
            self.reap().ok();
        }
    }
}

/// Waits for the child `pid` of a process that holds no [`Child`] for it.
pub(crate) fn wait_for(pid: i32) -> Option<Ending> {
    let status = retry(|| waitpid(Pid::from_raw(pid), WaitOptions::empty())).ok().flatten();
    status.map(|(_, status)| ending(status))
}

/// Looks at `condition` until it holds or `deadline` has passed; whether it held.
pub(crate) fn until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > deadline {
            return false;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// State letter of a process as in `/proc/PID/stat` (proc_pid_stat(5)): `D` waits uninterruptibly, `Z` is dead.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may itself contain some.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Waits until a process hangs in uninterruptible sleep, as one that writes to a frozen file system does.
pub(crate) fn wait_until_hung(pid: u32) -> Result<(), Error> {
    if until(DEADLINE, || state(pid) == Some('D')) {
        return Ok(());
    }
    Err(Error::Deadline { what: format!("process {pid} hangs"), seconds: DEADLINE.as_secs() })
}

/// Waits until a process hangs with such a stack; `wanted` says which one that is.
pub(crate) fn wait_until_hung_in(
    pid: u32,
    wanted: &'static str,
    is_wanted: impl Fn(&[String]) -> bool,
) -> Result<(), Error> {
    let mut found = Vec::new();
    let hangs = until(DEADLINE, || {
        let hung = state(pid) == Some('D');
        found = stack(pid).unwrap_or_default();
        hung && is_wanted(&found)
    });
    if hangs { Ok(()) } else { Err(Error::HangsElsewhere { pid, wanted, found }) }
}

/// Names of the functions that a task waits in, innermost first, from `/proc/PID/stack`, which needs `CAP_SYS_ADMIN`.
/// Those of the scheduler's section (`.sched.text`), such as `schedule` and `__mutex_lock`, are not among them.
pub fn stack(pid: u32) -> Result<Vec<String>, Error> {
    let path = std::path::PathBuf::from(format!("/proc/{pid}/stack"));
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
    Ok(functions(&text))
}

/// Names in lines such as `[<0>] percpu_rwsem_wait+0x10c/0x140`.
fn functions(stack: &str) -> Vec<String> {
    let name = |line: &str| Some(line.split_once("] ")?.1.split_once('+')?.0.to_owned());
    stack.lines().filter_map(name).collect()
}

/// Forks a child that runs `body` and returns its process id; `None` if the kernel refuses. See [`Child::fork`], which
/// also sees to its end.
pub(crate) fn fork(body: impl FnOnce() -> i32) -> Option<i32> {
    fork_as(Some(getpid()), body)
}

/// `parent`: whom the child must not outlive; unknown where it cannot see it, in a new pid namespace.
fn fork_as(parent: Option<Pid>, body: impl FnOnce() -> i32) -> Option<i32> {
    // SAFETY: the child only runs `run`, which never returns into the caller's frames.
    match unsafe { libc::fork() } {
        -1 => None,
        0 => run(parent, body),
        pid => Some(pid),
    }
}

/// Runs `body` in a new child and never comes back.
fn run(parent: Option<Pid>, body: impl FnOnce() -> i32) -> ! {
    // A child of a killed provoker must not stay behind. It only fails for an invalid signal.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
    // The parent may have died before the line above.
    let orphan = parent.is_some_and(|parent| getppid() != Some(parent));
    let code = if orphan { ORPHAN } else { body() };
    // SAFETY: `_exit` ends the process without running destructors or exit handlers that belong to the parent.
    unsafe { libc::_exit(code) }
}

/// Repeats a system call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

fn ending(status: WaitStatus) -> Ending {
    status.terminating_signal().map_or_else(|| Ending::Exited(status.exit_status().unwrap_or(-1)), Ending::Signalled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_ends_with_the_code_of_its_body() {
        let mut child = Child::fork(|| 7).expect("forked");
        assert_eq!(child.wait().expect("waited"), Ending::Exited(7));
    }

    #[test]
    fn names_of_functions_are_read_from_a_stack() {
        let stack = "[<0>] folio_wait_bit.constprop.0+0x2e/0x5f0\n[<0>] pipe_read+0x52/0x4e0\n[<0>] 0xffffffff\n";
        assert_eq!(functions(stack), ["folio_wait_bit.constprop.0", "pipe_read"]);
    }

    #[test]
    fn a_dropped_child_is_killed_and_reaped() {
        let child = Child::fork(|| {
            loop {
                rustix::event::pause();
            }
        })
        .expect("forked");
        let pid = child.pid();
        drop(child);
        assert_eq!(state(pid), None);
    }
}
