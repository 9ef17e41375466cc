//! The table of kills: what is provoked, and what must be seen of it.

use std::path::Path;

use anyhow::Result;
use detector_provoke::{Cgroup, Limits, Provoked, scenario};

use crate::{init::DISK, kube::Pod, run::Rig};

/// Limit of most cases.
const LIMIT: Limits = Limits::mib(30);
/// No limit.
const NONE: Limits = Limits { bytes: None, group: false };

/// Kills of the burst between two signs of life.
const BURST_PART: usize = 100;

/// What must be seen of a case.
pub(crate) struct Expected {
    /// Who was killed.
    pub(crate) provoked: Provoked,
    /// What `vmstat` must have counted: one more per group kill than there are victims.
    pub(crate) kernel_kills: u64,
    /// What the case's own cgroups counted, where they still could.
    pub(crate) cgroup_kills: Option<u64>,
    /// `limit.hit`.
    pub(crate) hit: &'static str,
    /// Paths of which one is the domain; empty: the whole machine.
    pub(crate) domains: Vec<String>,
    /// `limit.bytes`.
    pub(crate) limit_bytes: Option<u64>,
    /// `group_kill`.
    pub(crate) group_kill: bool,
    /// Decisions of the OOM killer.
    pub(crate) incidents: usize,
    /// Marks of a task that was already dying.
    pub(crate) already_dying: u64,
}

impl Expected {
    /// One kill in a plain cgroup for the limit of `domain`.
    fn one(provoked: Provoked, hit: &'static str, domain: &Cgroup) -> Result<Self> {
        let kills = provoked.victims.len() as u64;
        Ok(Self {
            provoked,
            kernel_kills: kills,
            cgroup_kills: Some(domain.kills()?),
            hit,
            domains: vec![domain.path()],
            limit_bytes: LIMIT.bytes,
            group_kill: false,
            incidents: 1,
            already_dying: 0,
        })
    }

    /// The same as a group kill: the kernel counts the chosen victim twice.
    fn grouped(self) -> Self {
        Self { kernel_kills: self.kernel_kills + 1, group_kill: true, ..self }
    }
}

/// A case.
pub(crate) struct Case {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// Provokes it and says what must be seen.
    pub(crate) provoke: fn(&Rig) -> Result<Expected>,
}

/// All cases.
pub(crate) const CASES: [Case; 18] = [
    Case { name: "single-child", provoke: |rig| own(rig, scenario::single_child) },
    Case { name: "group-kill", provoke: group_kill },
    Case { name: "group-large", provoke: group_large },
    Case { name: "group-ancestor", provoke: group_ancestor },
    Case { name: "ancestor-limit", provoke: ancestor_limit },
    Case { name: "equal-limits", provoke: equal_limits },
    Case { name: "thread-victim", provoke: |rig| own(rig, scenario::leader_gone) },
    Case { name: "four-threads", provoke: |rig| own(rig, scenario::four_threads) },
    Case { name: "pid-namespace", provoke: |rig| own(rig, scenario::child_in_namespace) },
    Case { name: "vanished-cgroup", provoke: vanished },
    Case { name: "vfork-pair", provoke: |rig| own(rig, scenario::vfork_pair) },
    Case { name: "kube-container", provoke: kube_container },
    Case { name: "kube-equal", provoke: kube_equal },
    Case { name: "kube-pod", provoke: kube_pod },
    Case { name: "kube-slice", provoke: kube_slice },
    Case { name: "already-dying", provoke: already_dying },
    Case { name: "node-wide", provoke: node_wide },
    Case { name: "burst", provoke: burst },
];

/// A cgroup's own limit is hit by `provocation`.
fn own(rig: &Rig, provocation: fn(&Cgroup) -> Result<Provoked, detector_provoke::Error>) -> Result<Expected> {
    let leaf = rig.make("own", LIMIT)?;
    Expected::one(provocation(&leaf)?, "cgroup", &leaf)
}

fn group_kill(rig: &Rig) -> Result<Expected> {
    let leaf = rig.make("group", LIMIT.grouped())?;
    Ok(Expected::one(scenario::group(&leaf, &[&leaf, &leaf, &leaf])?, "cgroup", &leaf)?.grouped())
}

/// All processes of a large container die in one go: more records at once than a reader can keep up with.
fn group_large(rig: &Rig) -> Result<Expected> {
    const LIMIT: Limits = Limits::mib(160);
    let leaf = rig.make("crowd", LIMIT.grouped())?;
    let bystanders = vec![&leaf; 400];
    let expected = Expected::one(scenario::group(&leaf, &bystanders)?, "cgroup", &leaf)?.grouped();
    Ok(Expected { limit_bytes: LIMIT.bytes, ..expected })
}

/// Limit and group flag are the parent's; three processes die in two child cgroups.
fn group_ancestor(rig: &Rig) -> Result<Expected> {
    let parent = rig.make("family", LIMIT.grouped())?;
    let (first, second) = (rig.make("family/first", NONE)?, rig.make("family/second", NONE)?);
    Ok(Expected::one(scenario::group(&second, &[&first, &first])?, "ancestor", &parent)?.grouped())
}

fn ancestor_limit(rig: &Rig) -> Result<Expected> {
    let parent = rig.make("parent", LIMIT)?;
    let leaf = rig.make("parent/leaf", NONE)?;
    Expected::one(scenario::single_child(&leaf)?, "ancestor", &parent)
}

/// The kernel runs into the parent's limit first, because the parent is charged for the child's own bookkeeping too; but
/// who owns the child must look at its limit.
fn equal_limits(rig: &Rig) -> Result<Expected> {
    let parent = rig.make("equal", LIMIT)?;
    let leaf = rig.make("equal/leaf", LIMIT)?;
    let expected = Expected::one(scenario::single_child(&leaf)?, "cgroup", &parent)?;
    Ok(Expected { domains: vec![parent.path(), leaf.path()], ..expected })
}

/// The victim's cgroup is removed at once; its parent, whose limit was hit, keeps the count.
fn vanished(rig: &Rig) -> Result<Expected> {
    let parent = rig.make("lasting", LIMIT)?;
    Expected::one(scenario::removed_at_once(&rig.hierarchy, "lasting/gone")?, "ancestor", &parent)
}

fn kube_container(rig: &Rig) -> Result<Expected> {
    let kube = Pod::make(&rig.hierarchy, NONE, Limits::mib(60), LIMIT)?;
    Expected::one(scenario::child_in_namespace(&kube.container)?, "container", &kube.container)
}

/// The kubelet gives pod and container the same limit; the pod's is hit first, but it is the container's that is meant.
fn kube_equal(rig: &Rig) -> Result<Expected> {
    let kube = Pod::make(&rig.hierarchy, NONE, LIMIT, LIMIT)?;
    let expected = Expected::one(scenario::init_in_namespace(&kube.container)?, "container", &kube.pod)?;
    Ok(Expected { domains: vec![kube.pod.path(), kube.container.path()], ..expected })
}

fn kube_pod(rig: &Rig) -> Result<Expected> {
    let kube = Pod::make(&rig.hierarchy, NONE, LIMIT, NONE)?;
    Expected::one(scenario::init_in_namespace(&kube.container)?, "pod", &kube.pod)
}

fn kube_slice(rig: &Rig) -> Result<Expected> {
    let kube = Pod::make(&rig.hierarchy, LIMIT, Limits::mib(60), Limits::mib(50))?;
    Expected::one(scenario::child_in_namespace(&kube.container)?, "ancestor", &kube.slice)
}

fn already_dying(rig: &Rig) -> Result<Expected> {
    let limits = Limits::mib(60);
    let leaf = rig.make("dying", limits)?;
    let expected = Expected::one(scenario::dying(&leaf, Path::new(DISK))?, "cgroup", &leaf)?;
    Ok(Expected { already_dying: 1, limit_bytes: limits.bytes, ..expected })
}

fn node_wide(rig: &Rig) -> Result<Expected> {
    let leaf = rig.make("unlimited", NONE)?;
    let expected = Expected::one(scenario::node(&leaf)?, "node", &leaf)?;
    Ok(Expected { domains: Vec::new(), limit_bytes: None, ..expected })
}

/// In parts, so that the host hears that the guest is alive. The limit is small, because most of the time of a kill is
/// spent on filling it.
fn burst(rig: &Rig) -> Result<Expected> {
    let limits = Limits::mib(8);
    let leaf = rig.make("burst", limits)?;
    let mut provoked = Provoked::default();
    for done in (0..rig.burst).step_by(BURST_PART) {
        provoked.victims.extend(scenario::burst(&leaf, BURST_PART.min(rig.burst - done), 4)?.victims);
        println!("GUEST burst {} of {}", provoked.victims.len(), rig.burst);
    }
    let expected = Expected::one(provoked, "cgroup", &leaf)?;
    Ok(Expected { incidents: rig.burst, limit_bytes: limits.bytes, ..expected })
}
