//! A process starts a child; the child overruns the limit and dies; the process lives on. The everyday case in a
//! container, and the one that Kubernetes does not report.

use super::{APPETITE, EATER, INIT, Provoked, Victim, burst::spare_if_permitted};
use crate::{
    Cgroup, Error, Limits,
    memory::eat,
    process::{Child, Ending, fork, wait_for},
    stage::{NO_PLACE, Part, Stage},
};

/// The child of a surviving process in `leaf` is killed. The limit may be that of `leaf` or of any ancestor.
pub fn single_child(leaf: &Cgroup) -> Result<Provoked, Error> {
    let stage = Stage::new()?;
    let (parent, eater) = (Part::new(leaf, INIT), Part::new(leaf, EATER));
    let mut init = Child::fork(|| init_body(&stage, &parent, &eater))?;
    stage.expect(2, "the process and its child are in the cgroup")?;
    let victim = other_member(leaf, init.pid())?;
    stage.cue()?;
    stage.expect(1, "the process reports that the kernel killed its child")?;
    stage.cue()?;
    init.expect_success("the parent of the victim")?;
    let victims = vec![Victim::plain(victim, EATER, leaf)];
    Ok(Provoked { victims, survivors: vec![init.pid()], ..Provoked::default() })
}

/// A process in a cgroup `name` of its own without limit is killed for the limit of an ancestor, and its cgroup is
/// removed as soon as it is dead.
pub fn removed_at_once(hierarchy: &crate::Hierarchy, name: &str) -> Result<Provoked, Error> {
    let leaf = Cgroup::make(hierarchy, name, Limits::default())?;
    let stage = Stage::new()?;
    let part = Part::new(&leaf, EATER);
    let mut eater = Child::fork(|| stage.play(&part, || eat(APPETITE)))?;
    stage.expect(1, "the eater is in its cgroup")?;
    stage.cue()?;
    eater.expect_killed("the eater")?;
    let victims = vec![Victim::plain(eater.pid(), EATER, &leaf)];
    leaf.remove()?;
    Ok(Provoked { victims, ..Provoked::default() })
}

/// Starts the eater, waits for its death, reports, waits for the cue to go.
pub(super) fn init_body(stage: &Stage, parent: &Part, eater: &Part) -> i32 {
    if parent.enter().is_err() {
        return NO_PLACE;
    }
    let Some(child) = fork(|| stage.play(eater, || eat(APPETITE))) else {
        return NO_PLACE;
    };
    spare_if_permitted();
    if !stage.tell(true) {
        return NO_PLACE;
    }
    let killed = wait_for(child) == Some(Ending::Signalled(libc::SIGKILL));
    if stage.tell(killed) && stage.wait() && killed { 0 } else { NO_PLACE }
}

/// The one process in `leaf` besides `init`.
pub(super) fn other_member(leaf: &Cgroup, init: u32) -> Result<u32, Error> {
    let found = leaf.members()?;
    match found.as_slice() {
        [first, second] if *first == init => Ok(*second),
        [first, second] if *second == init => Ok(*first),
        _ => Err(Error::Members { cgroup: leaf.path(), found, expected: 2 }),
    }
}
