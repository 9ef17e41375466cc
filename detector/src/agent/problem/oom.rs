//! Marks of the OOM killer become kills, and kills become incidents.
//!
//! A mark is no kill if the task was already dying, and no second kill if its process was told before: kernels of the 7
//! series mark further threads of a victim. One decision of the OOM killer is one incident; with `memory.oom.group` it
//! has many victims. All marks of one decision follow each other without another's in between, because the kernel
//! decides under one lock (`oom_lock`, `mm/oom_kill.c`).

mod logged;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

pub use logged::Located;

use super::{
    domain::{DomainFinder, Found},
    limit,
    transition::{Domain, Incident, OomKill},
};
use crate::agent::{
    decode::event::{CgroupKey, OomMark},
    locate::{Place, path_of_level},
    options::Method,
};

/// Processes remembered so that none is told twice; the oldest goes first.
pub const REMEMBERED_PROCESSES: usize = 4096;

/// What a mark turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// A process was killed.
    Kill(Box<OomKill>),
    /// The task was already dying; nobody was killed.
    AlreadyDying,
    /// A further thread of a process already told, or a kill that record and log both tell.
    Duplicate,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes killed.
    pub kills: u64,
    /// Decisions.
    pub incidents: u64,
    /// Decisions that killed a whole cgroup.
    pub group_incidents: u64,
    /// Marks of tasks already dying.
    pub already_dying: u64,
    /// Marks of further threads, and kills told a second time.
    pub duplicates: u64,
}

/// The rules of OOM kills.
#[derive(Debug)]
pub struct OomRules {
    domains: DomainFinder,
    told: HashSet<ProcessKey>,
    order: VecDeque<ProcessKey>,
    last: Option<LastIncident>,
    /// What log and records may both tell.
    tasks: logged::ToldTasks,
    /// The newest incident that the log told, with its number there.
    last_logged: Option<(u64, Incident)>,
    counts: Counts,
}

/// A process by its id and its leader's start: ids are used again, the pair is not.
type ProcessKey = (u32, u64);

/// The newest incident, to which the next mark may belong.
#[derive(Debug)]
struct LastIncident {
    incident: Incident,
    /// Who decided and when.
    decision: Option<DecisionKey>,
    domain: Domain,
    /// The cgroup that dies as a whole.
    group: Option<u64>,
}

/// Names one decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecisionKey {
    /// Its time, where a probe told it.
    At(u64),
    /// Else, for a group kill: who decided, after which reclaim. Other kills have one victim each; and where somebody
    /// lowers a limit (`memory_max_write`, `mm/memcontrol.c`) several follow one reclaim.
    After { trigger: u32, reclaim_boot_ns: u64 },
    /// Without a reclaim: who decided, and the counter of the cgroup that dies as a whole.
    Group { trigger: u32, group: u64, oom_events: Option<u64> },
}

impl DecisionKey {
    fn of(mark: &OomMark) -> Option<Self> {
        if let Some(decision) = mark.decision {
            return Some(Self::At(decision.boot_ns));
        }
        let group = mark.levels.iter().rev().find(|level| level.oom_group == Some(true))?;
        let trigger = mark.trigger?.pid;
        Some(match mark.reclaim {
            Some(reclaim) => Self::After { trigger, reclaim_boot_ns: reclaim.boot_ns },
            None => Self::Group { trigger, group: group.id, oom_events: group.oom_events },
        })
    }
}

impl OomRules {
    /// Starts with `domains`, which knows the counters from before the start.
    #[must_use]
    pub fn new(domains: DomainFinder) -> Self {
        Self {
            domains,
            told: HashSet::new(),
            order: VecDeque::new(),
            last: None,
            tasks: logged::ToldTasks::default(),
            last_logged: None,
            counts: Counts::default(),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// A memory cgroup was made.
    pub fn cgroup_made(&mut self, key: CgroupKey) {
        self.domains.made(key.id);
    }

    /// Judges one mark. Marks must come in the order in which the kernel wrote them.
    ///
    /// Only kills are asked for their domain: one and the same OOM may first mark a task that is dying already and then
    /// kill another, whose mark must still show the counter as risen.
    pub fn judge(&mut self, mark: OomMark, place: Option<Arc<Place>>, method: Method) -> Verdict {
        let process = mark.victim.tgid.zip(mark.victim.leader_start_ns);
        if process.is_some_and(|process| self.told.contains(&process)) {
            self.counts.duplicates += 1;
            return Verdict::Duplicate;
        }
        if mark.real_kill == Some(false) {
            self.counts.already_dying += 1;
            self.tasks.dying(&mark);
            return Verdict::AlreadyDying;
        }
        if let Some(process) = process {
            self.remember(process);
        }
        if !self.tasks.tell(&mark, logged::Teller::Record) {
            self.counts.duplicates += 1;
            return Verdict::Duplicate;
        }
        let last = self.incident(&mark, place.as_deref());
        let (incident, domain) = (last.incident, last.domain.clone());
        let group_kill = group_kill(&mark, &domain, last.group);
        self.counts.kills += 1;
        Verdict::Kill(Box::new(OomKill {
            incident,
            process: limit::process(&mark, place.as_deref()),
            limit: limit::whose(&domain, &mark, place.as_deref()),
            domain,
            group_kill,
            place,
            mark,
            method,
        }))
    }

    /// The incident that a kill belongs to: the newest one, or a new one.
    fn incident(&mut self, mark: &OomMark, place: Option<&Place>) -> &LastIncident {
        // Without a name for the decision each kill is an incident of its own.
        let key = DecisionKey::of(mark);
        if let Some(last) = self.last.take_if(|last| key.is_some() && last.decision == key) {
            let incident = Incident { victim: last.incident.victim + 1, ..last.incident };
            return self.last.insert(LastIncident { incident, ..last });
        }
        let domain = domain(mark, self.domains.find(mark), place);
        let group = group_of(mark, &domain);
        self.counts.incidents += 1;
        self.counts.group_incidents += u64::from(group.is_some());
        self.last.insert(LastIncident {
            incident: Incident { number: self.counts.incidents, victim: 1 },
            decision: key,
            domain,
            group,
        })
    }

    fn remember(&mut self, process: ProcessKey) {
        if self.told.insert(process) {
            self.order.push_back(process);
        }
        if self.order.len() > REMEMBERED_PROCESSES
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
    }
}

fn domain(mark: &OomMark, found: Found, place: Option<&Place>) -> Domain {
    let of = |key: CgroupKey, level: u32, limit_pages: Option<u64>| Domain::Cgroup {
        key: Some(key),
        level,
        path: place.map(|place| Arc::from(path_of_level(&place.path, level))),
        limit_pages,
    };
    if let Some(decision) = mark.decision {
        let Some((key, level)) = decision.domain else { return Domain::Node };
        let limit = mark.levels.iter().find(|entry| entry.id == key.id).and_then(|entry| entry.limit_pages.flatten());
        return of(key, level, limit);
    }
    match found {
        Found::Node => Domain::Node,
        Found::Unknown => Domain::Unknown,
        Found::Level(index) => match (mark.levels.get(index), mark.victim.cgroup) {
            (Some(level), Some(own)) => {
                of(CgroupKey { hierarchy: own.hierarchy, id: level.id }, level.level, level.limit_pages.flatten())
            }
            _ => Domain::Unknown,
        },
    }
}

/// The highest cgroup with `memory.oom.group` between the victim and the domain: it dies as a whole
/// (`mem_cgroup_get_oom_group`, `mm/memcontrol.c`).
fn group_of(mark: &OomMark, domain: &Domain) -> Option<u64> {
    let top = match domain {
        Domain::Cgroup { level, .. } => *level,
        Domain::Node => 0,
        Domain::Unknown => return None,
    };
    let mut flagged = mark.levels.iter().rev().filter(|level| level.level >= top && level.oom_group == Some(true));
    flagged.next().map(|level| level.id)
}

fn group_kill(mark: &OomMark, domain: &Domain, group: Option<u64>) -> Option<bool> {
    let told = !mark.levels.is_empty() && mark.levels.iter().all(|level| level.oom_group.is_some());
    let none_set = mark.levels.iter().all(|level| level.oom_group == Some(false));
    match domain {
        _ if !told => None,
        Domain::Unknown if !none_set => None,
        _ => Some(group.is_some()),
    }
}

#[cfg(test)]
pub(crate) mod fixture;

#[cfg(test)]
mod tests;
