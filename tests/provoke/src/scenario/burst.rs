//! Many kills, as fast as the kernel can.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    io::{read, write},
    pipe::pipe,
};

use super::{EATER, Provoked, Victim};
use crate::{
    Cgroup, Error,
    memory::eat,
    process::{Child, DEADLINE, Ending, fork, retry, until, wait_for},
    stage::{NO_PLACE, Part, Stage},
};

/// What each process takes: several times the limit that suits a burst (8 MiB), yet mapped quickly.
const APPETITE: usize = 64 << 20;

/// Most processes that eat at the same time.
const MOST_PARALLEL: usize = 64;

/// Name of the process that starts the eaters.
const SPAWNER: &str = "oom-spawner";

/// Starts `kills` processes in `leaf`, in rounds of `parallel`, each of which overruns the limit and is killed.
///
/// They are forked from within the cgroup, because moving each into it would cost more time than killing it. A round
/// eats only once all of it is ready: so an eater, never their parent, is what the kernel finds to kill.
pub fn burst(leaf: &Cgroup, kills: usize, parallel: usize) -> Result<Provoked, Error> {
    let (reader, writer) = pipe().map_err(Error::call("pipe"))?;
    let (spawner, eater) = (Part::new(leaf, SPAWNER), Part::new(leaf, EATER));
    let stage = Stage::new()?;
    let parallel = parallel.clamp(1, MOST_PARALLEL);
    let mut child = Child::fork(|| {
        let entered = spawner.enter().is_ok();
        spare_if_permitted();
        let played = entered
            && (0..kills).step_by(parallel).all(|done| {
                let count = parallel.min(kills - done);
                round(&stage, &eater, &writer, count).is_some()
            });
        if played { 0 } else { NO_PLACE }
    })?;
    drop(writer);
    let victims = read_pids(&reader)?.into_iter().map(|pid| Victim::plain(pid, EATER, leaf)).collect();
    child.expect_success("the parent of the eaters")?;
    Ok(Provoked { victims, survivors: vec![child.pid()], ..Provoked::default() })
}

/// In the spawner: starts `count` eaters, gives all their cue, and tells whom the kernel killed.
fn round(stage: &Stage, eater: &Part, writer: &OwnedFd, count: usize) -> Option<()> {
    let mut pids = [0; MOST_PARALLEL];
    let pids = &mut pids[..count];
    for pid in &mut *pids {
        // The dead give their memory back a moment later.
        until(DEADLINE, || spawn(stage, eater).map(|new| *pid = new).is_some()).then_some(())?;
    }
    stage.expect(count, "a round of eaters is ready").ok()?;
    for _ in 0..count {
        until(DEADLINE, || stage.cue().is_ok()).then_some(())?;
    }
    pids.iter().try_for_each(|pid| {
        let killed = wait_for(*pid) == Some(Ending::Signalled(libc::SIGKILL));
        (killed && until(DEADLINE, || tell(writer, *pid))).then_some(())
    })
}

fn spawn(stage: &Stage, eater: &Part) -> Option<i32> {
    fork(|| {
        let ready = eater.rename().is_ok() && volunteer().is_ok() && stage.tell(true) && stage.wait();
        if ready { eat(APPETITE) } else { NO_PLACE }
    })
}

/// Keeps the kernel from killing the parent of eaters, when it wants a page while they are dying but not yet gone. Needs
/// `CAP_SYS_RESOURCE`; without it a provocation on a busy machine may fail, and says so.
pub(super) fn spare_if_permitted() {
    std::fs::write("/proc/self/oom_score_adj", "-1000").ok();
}

/// Makes this process the kernel's first choice.
pub(super) fn volunteer() -> std::io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "1000")
}

fn tell(writer: impl AsFd, pid: i32) -> bool {
    retry(|| write(&writer, &pid.to_ne_bytes())) == Ok(size_of::<i32>())
}

/// Reads process ids until the spawner is done. Each is written at once and so arrives whole.
fn read_pids(reader: impl AsFd) -> Result<Vec<u32>, Error> {
    let mut pids = Vec::new();
    let mut bytes = [0; size_of::<u32>()];
    while retry(|| read(&reader, &mut bytes)).map_err(Error::call("read"))? == bytes.len() {
        pids.push(u32::from_ne_bytes(bytes));
    }
    Ok(pids)
}
