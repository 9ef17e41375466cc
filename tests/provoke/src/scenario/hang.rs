//! Tasks that hang in uninterruptible sleep until somebody ends it. In a test guest only, because a file system is
//! frozen.

use std::{fs::File, path::Path};

use super::WRITER;
use crate::{
    Cgroup, Error,
    frozen::Frozen,
    guest,
    process::{Child, wait_until_hung},
    stage::{NO_PLACE, Part, Stage},
};

/// A task that hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HungTask {
    /// Process id, as the caller's pid namespace numbers it; the task is its only thread.
    pub pid: u32,
    /// Its name.
    pub comm: &'static str,
    /// Path of its memory cgroup.
    pub cgroup: String,
    /// What becomes of it after the thaw.
    pub ending: Ending,
    /// Process id of the task that holds the mutex that this one waits for.
    pub waits_for: Option<u32>,
}

/// What becomes of a task that hung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It runs, and lives on.
    Runs,
    /// It is gone at once.
    Exits,
}

/// Tasks that hang. Dropping it ends the hang and them.
pub struct Hanging {
    // Dropped in this order: a task that hangs cannot be killed.
    frozen: Option<Frozen>,
    members: Vec<(Child, HungTask)>,
    /// On which tasks report once they run again.
    report: Stage,
    /// On which they wait before they end.
    leave: Stage,
}

/// In each of `cgroups` a process hangs, because it makes a file in a frozen file system on `directory`; after the thaw
/// it ends as said.
pub fn hang(cgroups: &[(&Cgroup, Ending)], directory: &Path) -> Result<Hanging, Error> {
    guest::require("freezing a file system")?;
    let (start, report, leave) = (Stage::new()?, Stage::new()?, Stage::new()?);
    let mut members = Vec::with_capacity(cgroups.len());
    for (number, (cgroup, ending)) in cgroups.iter().enumerate() {
        let part = Part::new(cgroup, WRITER);
        let file = directory.join(format!("written-while-frozen-{number}"));
        let child = Child::fork(|| start.play(&part, || write(&file, *ending, &report, &leave)))?;
        let task = HungTask { pid: child.pid(), comm: WRITER, cgroup: cgroup.path(), ending: *ending, waits_for: None };
        members.push((child, task));
    }
    start.expect(members.len(), "all that are to hang are in their cgroups")?;
    let mut hanging = Hanging { frozen: Some(Frozen::freeze(directory)?), members, report, leave };
    for _ in &hanging.members {
        start.cue()?;
    }
    for (child, _) in &mut hanging.members {
        wait_until_hung(child.pid())?;
    }
    Ok(hanging)
}

impl Hanging {
    /// Takes over what was made to hang: `report` and `leave` are those of [`run_on`].
    pub(super) fn new(frozen: Frozen, members: Vec<(Child, HungTask)>, report: Stage, leave: Stage) -> Self {
        Self { frozen: Some(frozen), members, report, leave }
    }

    /// Who hangs.
    pub fn tasks(&self) -> impl Iterator<Item = &HungTask> {
        self.members.iter().map(|(_, task)| task)
    }

    /// Ends the hang, and returns once each task has run or is gone.
    pub fn thaw(&mut self) -> Result<(), Error> {
        self.frozen = None;
        let runs = self.members.iter().filter(|(_, task)| task.ending == Ending::Runs).count();
        for (child, task) in &mut self.members {
            if task.ending == Ending::Exits {
                child.expect_success("the task that was to end after the thaw")?;
            }
        }
        self.report.expect(runs, "all tasks that hung run again")
    }

    /// Ends those that live on. The hang must be over.
    pub fn finish(mut self) -> Result<(), Error> {
        let living = || self.members.iter().filter(|(_, task)| task.ending == Ending::Runs);
        for _ in living() {
            self.leave.cue()?;
        }
        for (child, task) in &mut self.members {
            if task.ending == Ending::Runs {
                child.expect_success("the task that was to live on after the thaw")?;
            }
        }
        Ok(())
    }
}

fn write(file: &Path, ending: Ending, report: &Stage, leave: &Stage) -> i32 {
    if File::create(file).is_err() {
        return NO_PLACE;
    }
    match ending {
        Ending::Runs => run_on(report, leave),
        Ending::Exits => 0,
    }
}

/// In a task that hung: says that it runs again, and waits, not hanging, until it may end.
pub(super) fn run_on(report: &Stage, leave: &Stage) -> i32 {
    if report.tell(true) && leave.wait() { 0 } else { NO_PLACE }
}
