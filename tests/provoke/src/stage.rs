//! Where the processes of a provocation meet: each joins its cgroup, says that it is there, and waits for its cue. So no
//! provocation depends on who is faster.

use std::{fs, os::fd::OwnedFd, path::PathBuf};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{read, write},
    pipe::pipe,
};

use crate::{
    Cgroup, Error,
    process::{DEADLINE, retry},
};

/// Exit code of a process that could not take its place.
pub(crate) const NO_PLACE: i32 = 97;

/// Two pipes: one on which processes report, one on which they get their cue.
pub(crate) struct Stage {
    report: (OwnedFd, OwnedFd),
    cue: (OwnedFd, OwnedFd),
}

/// What a process is called and where it lives. Made before the fork, so that the child needs little.
pub(crate) struct Part {
    procs: PathBuf,
    name: std::ffi::CString,
}

impl Part {
    /// A process called `name` (at most 15 bytes, without NUL) in `cgroup`.
    pub(crate) fn new(cgroup: &Cgroup, name: &'static str) -> Self {
        Self { procs: cgroup.procs(), name: std::ffi::CString::new(name).unwrap_or_default() }
    }

    /// In the child: takes the name and joins the cgroup.
    pub(crate) fn enter(&self) -> Result<(), std::io::Error> {
        self.rename()?;
        fs::write(&self.procs, "0")
    }

    /// In the child: takes the name alone; its parent is in the cgroup already.
    pub(crate) fn rename(&self) -> Result<(), std::io::Error> {
        Ok(rustix::thread::set_name(&self.name)?)
    }
}

impl Stage {
    /// An empty stage.
    pub(crate) fn new() -> Result<Self, Error> {
        let make = || pipe().map_err(Error::call("pipe"));
        Ok(Self { report: make()?, cue: make()? })
    }

    /// In a child: takes its part, reports, and waits for the cue; then plays `act`.
    pub(crate) fn play(&self, part: &Part, act: impl FnOnce() -> i32) -> i32 {
        if part.enter().is_err() || !self.tell(true) || !self.wait() {
            return NO_PLACE;
        }
        act()
    }

    /// In a child: reports how something went.
    pub(crate) fn tell(&self, good: bool) -> bool {
        retry(|| write(&self.report.1, &[u8::from(good)])) == Ok(1)
    }

    /// In a child: waits for its cue.
    pub(crate) fn wait(&self) -> bool {
        let mut cue = [0];
        retry(|| read(&self.cue.0, &mut cue)) == Ok(1)
    }

    /// Waits until `count` reports have come; an error if one was bad or late.
    pub(crate) fn expect(&self, count: usize, what: &str) -> Result<(), Error> {
        let timeout = Timespec { tv_sec: DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
        for _ in 0..count {
            let mut ready = [PollFd::new(&self.report.0, PollFlags::IN)];
            let some = retry(|| poll(&mut ready, Some(&timeout))).map_err(Error::call("poll"))?;
            let mut good = [0];
            if some == 0 || retry(|| read(&self.report.0, &mut good)) != Ok(1) || good != [1] {
                return Err(Error::Deadline { what: what.to_owned(), seconds: DEADLINE.as_secs() });
            }
        }
        Ok(())
    }

    /// Gives one waiting process its cue.
    pub(crate) fn cue(&self) -> Result<(), Error> {
        retry(|| write(&self.cue.1, &[1])).map(drop).map_err(Error::call("write"))
    }
}
