//! Victims in a pid namespace of their own, as in a container: its first process, or a child of that.

use super::{
    APPETITE, EATER, INIT, Provoked, Role, Victim,
    child::{init_body, other_member},
};
use crate::{
    Cgroup, Error,
    memory::eat,
    process::Child,
    stage::{Part, Stage},
};

/// Process 2 of a new pid namespace is killed; process 1 lives on. Needs `CAP_SYS_ADMIN`.
pub fn child_in_namespace(leaf: &Cgroup) -> Result<Provoked, Error> {
    let stage = Stage::new()?;
    let (parent, eater) = (Part::new(leaf, INIT), Part::new(leaf, EATER));
    let mut init = Child::fork_namespace_init(|| init_body(&stage, &parent, &eater))?;
    stage.expect(2, "both processes of the namespace are in the cgroup")?;
    let pid = other_member(leaf, init.pid())?;
    stage.cue()?;
    stage.expect(1, "process 1 reports that the kernel killed its child")?;
    stage.cue()?;
    init.expect_success("process 1 of the namespace")?;
    let victim = Victim { namespace_pid: Some(2), role: Role::Child, ..Victim::plain(pid, EATER, leaf) };
    Ok(Provoked { victims: vec![victim], survivors: vec![init.pid()], ..Provoked::default() })
}

/// Process 1 of a new pid namespace is killed. Needs `CAP_SYS_ADMIN`.
pub fn init_in_namespace(leaf: &Cgroup) -> Result<Provoked, Error> {
    let stage = Stage::new()?;
    let part = Part::new(leaf, EATER);
    let mut init = Child::fork_namespace_init(|| stage.play(&part, || eat(APPETITE)))?;
    stage.expect(1, "process 1 of the namespace is in the cgroup")?;
    stage.cue()?;
    init.expect_killed("process 1 of the namespace")?;
    let victim = Victim { namespace_pid: Some(1), role: Role::Init, ..Victim::plain(init.pid(), EATER, leaf) };
    Ok(Provoked { victims: vec![victim], ..Provoked::default() })
}
