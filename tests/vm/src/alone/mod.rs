//! Cases with a watcher of their own, which nobody tells what method to use.

mod detached;
mod doctor;
#[cfg(target_arch = "x86_64")]
mod link;
mod pins;
mod privilege;
mod rights;

use anyhow::Result;
use detector_provoke::{Limits, Provoked, Victim, scenario};

use crate::{
    complaint::Complaints,
    container,
    kube::{self, Pod},
    line::{Line, OomKill, Owner},
    run::Rig,
};

#[cfg(not(target_arch = "x86_64"))]
mod link {
    //! Registers are named otherwise on other machines, and no guest is one.

    pub(super) fn close(_owner: u32, _hook: &str) -> anyhow::Result<usize> {
        anyhow::bail!("detaching a program is written for x86_64 only")
    }
}

/// A case.
pub(crate) struct Case {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// What stands in the report for the method.
    pub(crate) method: &'static str,
    /// Whether this guest has what it needs.
    pub(crate) possible: fn() -> bool,
    /// Runs it and complains.
    pub(crate) run: fn(&Rig) -> Result<Vec<String>>,
}

/// All cases.
pub(crate) const CASES: [Case; 9] = [
    Case { name: "doctor", method: "best", possible: || true, run: |_| doctor::ask() },
    Case { name: "privilege-root", method: "best", possible: || true, run: |rig| privilege::watch(rig, None) },
    Case {
        name: "privilege-user",
        method: "best",
        possible: || true,
        run: |rig| privilege::watch(rig, Some(rights::USER)),
    },
    Case {
        name: "containerd",
        method: "best",
        possible: container::is_possible,
        run: |rig| container::run(&rig.hierarchy),
    },
    Case { name: "detached", method: "oom", possible: || true, run: detached::kills },
    Case { name: "detached-kprobes", method: "oom", possible: || true, run: detached::kprobes },
    Case { name: "detached", method: "hung_task", possible: || true, run: detached::hangs },
    Case { name: "pins", method: "best", possible: pins::is_possible, run: pins::best },
    Case { name: "pins", method: "tracepoint", possible: pins::is_possible, run: pins::classic },
];

/// Limit of the container in which these cases kill.
const LIMIT: Limits = Limits::mib(30);
const NONE: Limits = Limits { bytes: None, group: false };

/// One kill in a container.
fn kill_in_container(rig: &Rig) -> Result<Victim> {
    let pod = Pod::make(&rig.hierarchy, NONE, NONE, LIMIT)?;
    let Provoked { mut victims, .. } = scenario::single_child(&pod.container)?;
    Ok(victims.remove(0))
}

/// Kills told of a process.
fn kills_of<'a>(victim: &Victim, lines: &'a [Line]) -> Vec<&'a OomKill> {
    let kills = lines.iter().filter_map(|line| if let Line::OomKill(kill) = line { Some(&**kill) } else { None });
    kills.filter(|kill| kill.victim.pid.or(kill.victim.tid) == Some(victim.pid)).collect()
}

/// Complaints unless a victim is told once, with its name and, unless excused, where it lived.
fn told_once(victim: &Victim, lines: &[Line], may_be_nowhere: bool) -> Vec<String> {
    match kills_of(victim, lines).as_slice() {
        [kill] => {
            let mut wrong = Complaints::new(may_be_nowhere);
            wrong.differs("comm", &Some(victim.comm), &kill.victim.comm.as_deref());
            let unknown = Owner::of_kind("unknown");
            wrong.known("owner", &kube::owner_of(&victim.cgroup), &kill.owner, &unknown);
            wrong.all()
        }
        others => vec![format!("{} kills of process {}", others.len(), victim.pid)],
    }
}
