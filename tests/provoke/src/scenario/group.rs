//! A whole cgroup is killed at once (`memory.oom.group`).

use super::{APPETITE, BYSTANDER, EATER, Provoked, Victim};
use crate::{
    Cgroup, Error,
    memory::eat,
    process::Child,
    stage::{Part, Stage},
};

/// One process in `eater` overruns the limit; one bystander in each of `bystanders` dies with it. The group flag must be
/// set on `eater` or on an ancestor that all of them share.
pub fn group(eater: &Cgroup, bystanders: &[&Cgroup]) -> Result<Provoked, Error> {
    let stage = Stage::new()?;
    let idle = Stage::new()?;
    let mut others = Vec::with_capacity(bystanders.len());
    for cgroup in bystanders {
        let part = Part::new(cgroup, BYSTANDER);
        // No cue ever comes on `idle`.
        let body = || if part.enter().is_ok() && stage.tell(true) { i32::from(idle.wait()) } else { 1 };
        others.push((Child::fork(body)?, *cgroup));
    }
    let part = Part::new(eater, EATER);
    let mut eating = Child::fork(|| stage.play(&part, || eat(APPETITE)))?;
    stage.expect(bystanders.len() + 1, "all processes are in their cgroups")?;
    stage.cue()?;
    eating.expect_killed("the eater")?;
    let mut victims = vec![Victim::plain(eating.pid(), EATER, eater)];
    for (mut child, cgroup) in others {
        child.expect_killed("the bystander")?;
        victims.push(Victim::plain(child.pid(), BYSTANDER, cgroup));
    }
    Ok(Provoked { victims, ..Provoked::default() })
}
