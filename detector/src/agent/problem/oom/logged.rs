//! Kills that the kernel's log tells, judged like those of the kernel side; and no kill twice by both.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{OomRules, REMEMBERED_PROCESSES, Verdict};
use crate::agent::{
    decode::event::{CgroupKey, OomMark},
    locate::{Owner, Place},
    options::Method,
    problem::{
        limit,
        oom_log::{LoggedDomain, LoggedKill},
        transition::{Domain, Incident, OomKill},
    },
};

/// How far apart the times of one kill may be in log and record: the log's are approximate.
const SAME_KILL_NS: u64 = 2_000_000_000;
/// Tasks called already dying that are remembered, against what the log says of them.
const REMEMBERED_DYING: usize = 256;

/// What is known of the paths that the log told.
#[derive(Clone, Debug, Default)]
pub struct Located {
    /// Place of [`LoggedKill::located_path`].
    pub place: Option<Arc<Place>>,
    /// The cgroup of [`LoggedKill::cgroup_path`].
    pub cgroup: Option<CgroupKey>,
    /// The cgroup of [`LoggedDomain::Cgroup`].
    pub domain: Option<CgroupKey>,
}

impl LoggedKill {
    /// The path by which to look for the victim's owner: that of its cgroup, else of the cgroup that dies as a whole.
    #[must_use]
    pub fn located_path(&self) -> Option<&str> {
        self.cgroup_path.as_deref().or(self.group.as_deref())
    }
}

impl OomRules {
    /// Judges a kill from the log: a kill, or a duplicate of what a record told.
    ///
    /// If only the cgroup that dies as a whole is known, its owner is the victim's if it is a container or a pod; a
    /// container's parts belong to it. Other cgroups may hold containers, so that the victim's owner is unknown.
    pub fn judge_logged(&mut self, kill: LoggedKill, located: Located, method: Method) -> Verdict {
        let LoggedKill { mut mark, decision, cgroup_path, domain, group, group_kill } = kill;
        if !self.tasks.tell(&mark, Teller::Log) {
            self.counts.duplicates += 1;
            return Verdict::Duplicate;
        }
        if self.tasks.was_called_dying(&mark) {
            self.counts.already_dying = self.counts.already_dying.saturating_sub(1);
        }
        let exact = cgroup_path.is_some();
        let place = located.place.filter(|place| exact || matches!(place.owner, Owner::Container(_) | Owner::Pod(_)));
        mark.victim.cgroup = located.cgroup.filter(|_| exact);
        mark.victim.cgroup_level = cgroup_path.as_deref().map(depth);
        let domain = match domain {
            LoggedDomain::Node => Domain::Node,
            LoggedDomain::Unknown => Domain::Unknown,
            LoggedDomain::Cgroup(path) => {
                Domain::Cgroup { key: located.domain, level: depth(&path), path: Some(path), limit_pages: None }
            }
        };
        let incident = self.logged_incident(decision, group.is_some());
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

    fn logged_incident(&mut self, decision: u64, group: bool) -> Incident {
        let incident = match self.last_logged {
            Some((last, incident)) if last == decision => Incident { victim: incident.victim + 1, ..incident },
            _ => {
                self.counts.incidents += 1;
                self.counts.group_incidents += u64::from(group);
                Incident { number: self.counts.incidents, victim: 1 }
            }
        };
        self.last_logged = Some((decision, incident));
        incident
    }
}

/// Cgroups between the root and the one at `path`, itself included.
fn depth(path: &str) -> u32 {
    let count = path.split('/').filter(|name| !name.is_empty()).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Who told a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Teller {
    /// The kernel side.
    Record,
    /// The log.
    Log,
}

/// The last kill of each thread id that was told, by whom: what one told the other does not tell again.
///
/// The log has no start times, so that a process cannot be named for good; its thread id and the time are enough for two
/// accounts of one kill.
#[derive(Debug, Default)]
pub(super) struct ToldTasks {
    last: HashMap<u32, (u64, Teller)>,
    order: VecDeque<(u32, u64)>,
    /// The last tasks that records called already dying. The kernel passes programs on classic tracepoints over now and
    /// then, and without its signal a kill looks so.
    dying: VecDeque<(u32, u64)>,
}

impl ToldTasks {
    /// A record called a task already dying.
    pub(super) fn dying(&mut self, mark: &OomMark) {
        let Some(tid) = mark.victim.pid else { return };
        self.dying.push_back((tid, mark.stamp.boot_ns));
        if self.dying.len() > REMEMBERED_DYING {
            self.dying.pop_front();
        }
    }

    /// Whether a record called a task already dying of which the log says that it was killed; asked once a task.
    fn was_called_dying(&mut self, mark: &OomMark) -> bool {
        let same =
            |(tid, at): &(u32, u64)| Some(*tid) == mark.victim.pid && at.abs_diff(mark.stamp.boot_ns) <= SAME_KILL_NS;
        match self.dying.iter().position(same) {
            Some(index) => self.dying.remove(index).is_some(),
            None => false,
        }
    }

    /// Whether a kill is to be told by `teller`: false if the other one did.
    pub(super) fn tell(&mut self, mark: &OomMark, teller: Teller) -> bool {
        let (Some(tid), boot_ns) = (mark.victim.pid, mark.stamp.boot_ns) else { return true };
        if let Some((at, by)) = self.last.get(&tid)
            && *by != teller
            && at.abs_diff(boot_ns) <= SAME_KILL_NS
        {
            return false;
        }
        self.last.insert(tid, (boot_ns, teller));
        self.order.push_back((tid, boot_ns));
        if self.order.len() > REMEMBERED_PROCESSES
            && let Some((oldest, at)) = self.order.pop_front()
            && self.last.get(&oldest).is_some_and(|(last, _)| *last == at)
        {
            self.last.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{
        decode::event::{Level, OomMark},
        locate::{Container, Pod, Qos, Runtime},
        problem::{
            domain::DomainFinder,
            oom::fixture::{level, mark},
            transition::Limit,
        },
    };

    fn rules() -> OomRules {
        OomRules::new(DomainFinder::new([], true, 0))
    }

    fn logged(boot_ns: u64, tid: u32, decision: u64) -> LoggedKill {
        let mark = OomMark { trigger: None, ..mark(boot_ns).of(tid) };
        let cgroup_path = Some(Arc::from("/pod/container"));
        let domain = LoggedDomain::Cgroup(Arc::from("/pod"));
        LoggedKill { mark, decision, cgroup_path, domain, group: None, group_kill: Some(false) }
    }

    fn container() -> Owner {
        let pod = Pod { uid: "u".into(), qos: Qos::Burstable, level: 1, namespace: None, name: None };
        Owner::Container(Container {
            runtime: Runtime::Containerd,
            id: "c".into(),
            level: 2,
            name: None,
            init_pid: None,
            pod: Some(pod),
        })
    }

    fn located(path: &str, owner: Owner) -> Located {
        let key = |id| Some(CgroupKey { hierarchy: 0, id });
        Located { place: Some(Arc::new(Place { path: Arc::from(path), owner })), cgroup: key(2), domain: key(1) }
    }

    fn kill(verdict: Verdict) -> OomKill {
        match verdict {
            Verdict::Kill(kill) => *kill,
            other => panic!("no kill but {other:?}"),
        }
    }

    #[test]
    fn a_logged_kill_names_place_and_domain() {
        let located = located("/pod/container", container());
        let kill = kill(rules().judge_logged(logged(1, 10, 1), located, Method::Kmsg));
        let domain = Domain::Cgroup {
            key: Some(CgroupKey { hierarchy: 0, id: 1 }),
            level: 1,
            path: Some(Arc::from("/pod")),
            limit_pages: None,
        };
        assert_eq!((kill.domain, kill.method, kill.group_kill), (domain, Method::Kmsg, Some(false)));
        assert_eq!(kill.mark.victim.cgroup, Some(CgroupKey { hierarchy: 0, id: 2 }));
        assert_eq!(kill.incident, Incident { number: 1, victim: 1 });
        // The pod's limit was hit; whether the container's is no larger the log does not tell.
        assert_eq!(kill.limit, Limit::Unknown);
    }

    #[test]
    fn limits_that_somebody_looked_up_tell_whose_it_was() {
        let limited = |id, depth, pages| Level { limit_pages: Some(Some(pages)), ..level(id, depth, 0) };
        for (pod, expected) in [(100, Limit::Container), (50, Limit::Pod)] {
            let mut logged = logged(1, 10, 1);
            logged.mark.levels.extend([limited(2, 2, 100), limited(1, 1, pod)]);
            let located = located("/pod/container", container());
            assert_eq!(kill(rules().judge_logged(logged, located, Method::Kmsg)).limit, expected);
        }
    }

    #[test]
    fn a_limit_above_a_plain_cgroup_is_not_taken_for_its_own() {
        let located = located("/pod/container", Owner::Cgroup);
        assert_eq!(kill(rules().judge_logged(logged(1, 10, 1), located, Method::Kmsg)).limit, Limit::Unknown);
        let own = LoggedKill { domain: LoggedDomain::Cgroup(Arc::from("/pod/container")), ..logged(1, 10, 1) };
        assert_eq!(kill(rules().judge_logged(own, located_of(Owner::Cgroup), Method::Kmsg)).limit, Limit::Cgroup);
    }

    fn located_of(owner: Owner) -> Located {
        located("/pod/container", owner)
    }

    #[test]
    fn without_a_report_the_machine_is_still_told_from_the_unknown() {
        let bare = |domain| LoggedKill { cgroup_path: None, domain, ..logged(1, 10, 1) };
        let node = kill(rules().judge_logged(bare(LoggedDomain::Node), Located::default(), Method::Kmsg));
        assert_eq!((node.domain, node.limit, node.place), (Domain::Node, Limit::Node, None));
        let other = kill(rules().judge_logged(bare(LoggedDomain::Unknown), Located::default(), Method::Kmsg));
        assert_eq!((other.domain, other.limit), (Domain::Unknown, Limit::Unknown));
    }

    #[test]
    fn a_further_victim_of_a_group_has_its_container_but_no_cgroup_of_its_own() {
        let mut rules = rules();
        let group: Option<Arc<str>> = Some(Arc::from("/pod/container"));
        let first = LoggedKill { group: group.clone(), group_kill: Some(true), ..logged(1, 10, 1) };
        let further = |tid| LoggedKill { cgroup_path: None, ..LoggedKill { mark: mark(2).of(tid), ..first.clone() } };
        kill(rules.judge_logged(first.clone(), located_of(container()), Method::Kmsg));
        assert_eq!(further(11).located_path(), Some("/pod/container"));
        let second = kill(rules.judge_logged(further(11), located_of(container()), Method::Kmsg));
        assert!(second.place.is_some() && second.mark.victim.cgroup.is_none());
        assert_eq!(second.incident, Incident { number: 1, victim: 2 });
        let third = kill(rules.judge_logged(further(12), located_of(Owner::Cgroup), Method::Kmsg));
        assert_eq!(third.place, None);
        let counts = rules.counts();
        assert_eq!((counts.kills, counts.incidents, counts.group_incidents), (3, 1, 1));
    }

    #[test]
    fn a_kill_told_by_a_record_is_not_told_by_the_log_nor_the_other_way_round() {
        let mut rules = rules();
        kill(rules.judge(mark(1_000).of(10), None, Method::RawTracepoint));
        assert_eq!(rules.judge_logged(logged(2_000_000, 10, 1), Located::default(), Method::Kmsg), Verdict::Duplicate);
        kill(rules.judge_logged(logged(5_000_000, 11, 2), Located::default(), Method::Kmsg));
        assert_eq!(rules.judge(mark(4_999_000).of(11), None, Method::RawTracepoint), Verdict::Duplicate);
        assert_eq!((rules.counts().kills, rules.counts().duplicates), (2, 2));
    }

    #[test]
    fn a_thread_id_used_again_later_is_another_kill() {
        let mut rules = rules();
        kill(rules.judge(mark(1).of(10), None, Method::RawTracepoint));
        kill(rules.judge_logged(logged(2 + SAME_KILL_NS, 10, 1), Located::default(), Method::Kmsg));
        let mut again = mark(3 + 2 * SAME_KILL_NS).of(10);
        again.victim.leader_start_ns = Some(99);
        kill(rules.judge(again, None, Method::RawTracepoint));
        assert_eq!(rules.counts().kills, 3);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut tasks = ToldTasks::default();
        for tid in 0..3 * REMEMBERED_PROCESSES as u32 {
            assert!(tasks.tell(&mark(u64::from(tid)).of(tid % (2 * REMEMBERED_PROCESSES as u32)), Teller::Record));
        }
        assert_eq!((tasks.last.len(), tasks.order.len()), (REMEMBERED_PROCESSES, REMEMBERED_PROCESSES));
    }
}
