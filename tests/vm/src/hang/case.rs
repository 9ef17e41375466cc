//! The table of hangs: what is provoked.

use std::path::Path;

use anyhow::Result;
use detector_provoke::{Cgroup, Ending, Hanging, Limits, scenario};

use crate::{init::DISK, kube::Pod, run::Rig};

/// No limit.
const NONE: Limits = Limits { bytes: None, group: false };

/// Hangs at once: three times what the kernel warns of.
const MANY: usize = 30;

/// What hangs, and where.
pub(crate) struct Hung {
    // Dropped in this order: tasks that hang cannot be killed, and cgroups with tasks not be removed.
    pub(crate) hanging: Hanging,
    _cgroups: Vec<Cgroup>,
    _pod: Option<Pod>,
}

/// A case.
pub(crate) struct Case {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// Provokes it.
    pub(crate) provoke: fn(&Rig) -> Result<Hung>,
}

/// All cases.
pub(crate) const CASES: [Case; 3] = [
    Case { name: "hang", provoke: hang },
    Case { name: "hang-lock", provoke: lock },
    Case { name: "hang-many", provoke: many },
];

/// Two tasks: one in a container, which lives on, and one that is gone at once.
pub(crate) fn hang(rig: &Rig) -> Result<Hung> {
    let pod = Pod::make(&rig.hierarchy, NONE, NONE, NONE)?;
    let leaf = rig.make("hang", NONE)?;
    let hanging = scenario::hang(&[(&pod.container, Ending::Runs), (&leaf, Ending::Exits)], Path::new(DISK))?;
    Ok(Hung { hanging, _cgroups: vec![leaf], _pod: Some(pod) })
}

/// One task in a container holds the lock that another one outside waits for.
fn lock(rig: &Rig) -> Result<Hung> {
    let pod = Pod::make(&rig.hierarchy, NONE, NONE, NONE)?;
    let leaf = rig.make("hang-waits", NONE)?;
    let hanging = scenario::hang_on_lock(&pod.container, &leaf, Path::new(DISK))?;
    Ok(Hung { hanging, _cgroups: vec![leaf], _pod: Some(pod) })
}

/// More hangs than the kernel warns of; half of the tasks live on.
fn many(rig: &Rig) -> Result<Hung> {
    let leaf = rig.make("hang-many", NONE)?;
    let ending = |number: usize| if number.is_multiple_of(2) { Ending::Runs } else { Ending::Exits };
    let tasks: Vec<_> = (0..MANY).map(|number| (&leaf, ending(number))).collect();
    let hanging = scenario::hang(&tasks, Path::new(DISK))?;
    Ok(Hung { hanging, _cgroups: vec![leaf], _pod: None })
}
