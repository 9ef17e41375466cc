//! A task hangs while it holds a lock, and another one hangs for that lock. In a test guest only, because a file system
//! is frozen.

use std::{fs::File, os::fd::AsFd, path::Path, ptr};

use rustix::{
    io::{read, write},
    mm::{MapFlags, ProtFlags, mmap},
    pipe::pipe,
};

use super::{
    HOLDER, WAITER,
    hang::{Ending, Hanging, HungTask, run_on},
};
use crate::{
    Cgroup, Error,
    frozen::Frozen,
    guest,
    process::{Child, retry, wait_until_hung_in},
    stage::{NO_PLACE, Part, Stage},
};

/// Length of the mapping: one page.
const LENGTH: usize = 4096;

/// End of the name of the function that holds the mutex while it copies to the reader: `pipe_read`, and `anon_pipe_read`
/// since Linux 6.16.
const READ: &str = "pipe_read";

/// Part of the name of every function in which a file system allows a page to be written to.
const FAULT: &str = "page_mkwrite";

/// In `holder` a process reads a pipe into a page of a frozen file system on `directory`: it hangs in the page fault, with
/// the pipe's mutex held (`pipe_read`, `fs/pipe.c`). In `waiter` another one reads the same pipe and hangs for the mutex.
/// Both run on after the thaw.
pub fn hang_on_lock(holder: &Cgroup, waiter: &Cgroup, directory: &Path) -> Result<Hanging, Error> {
    guest::require("freezing a file system")?;
    let path = directory.join("mapped-while-frozen");
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.and_then(|file| file.set_len(LENGTH as u64).map(|()| file));
    let file = file.map_err(|source| Error::Make { path, source })?;
    let (reader, writer) = pipe().map_err(Error::call("pipe"))?;
    retry(|| write(&writer, &[1, 2])).map_err(Error::call("write"))?;
    let (first, second, report, leave) = (Stage::new()?, Stage::new()?, Stage::new()?, Stage::new()?);
    let (holding, waiting) = (Part::new(holder, HOLDER), Part::new(waiter, WAITER));
    let run = |read: bool| if read { run_on(&report, &leave) } else { NO_PLACE };
    let holds = Child::fork(|| first.play(&holding, || run(read_into_page(&reader, &file))))?;
    let waits = Child::fork(|| second.play(&waiting, || run(retry(|| read(&reader, &mut [0])) == Ok(1))))?;
    first.expect(1, "the task that is to hold the lock is in its cgroup")?;
    second.expect(1, "the task that is to wait for the lock is in its cgroup")?;
    let task = |child: &Child, comm, cgroup: &Cgroup, waits_for| HungTask {
        pid: child.pid(),
        comm,
        cgroup: cgroup.path(),
        ending: Ending::Runs,
        waits_for,
    };
    let tasks = [task(&holds, HOLDER, holder, None), task(&waits, WAITER, waiter, Some(holds.pid()))];
    let frozen = Frozen::freeze(directory)?;
    let hanging = Hanging::new(frozen, [holds, waits].into_iter().zip(tasks).collect(), report, leave);
    let pids: Vec<u32> = hanging.tasks().map(|task| task.pid).collect();
    first.cue()?;
    let reads = |name: &String| name.ends_with(READ);
    let in_fault = |stack: &[String]| stack.iter().any(|name| name.contains(FAULT)) && stack.iter().any(reads);
    wait_until_hung_in(pids[0], "a page fault of pipe_read", in_fault)?;
    second.cue()?;
    // The functions of mutexes are left out of a stack; nothing else has `pipe_read` itself wait uninterruptibly.
    let for_mutex = |stack: &[String]| stack.first().is_some_and(reads);
    wait_until_hung_in(pids[1], "pipe_read itself", for_mutex)?;
    Ok(hanging)
}

/// Reads one byte into the first page of `file`, mapped and not touched before. Whether it could.
fn read_into_page(reader: impl AsFd, file: &File) -> bool {
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let page = unsafe { mmap(ptr::null_mut(), LENGTH, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0) };
    let Ok(page) = page else { return false };
    // SAFETY: the mapping has LENGTH bytes, the file as many, and nobody else in this process refers to them.
    let byte = unsafe { std::slice::from_raw_parts_mut(page.cast::<u8>(), 1) };
    retry(|| read(&reader, &mut *byte)) == Ok(1)
}
