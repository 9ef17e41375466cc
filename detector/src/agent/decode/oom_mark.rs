//! The OOM mark of the wire becomes one whose unknowns are `None`.

use detector_common::{
    cgroup::UNKNOWN_LEVEL,
    oom::{Level as RawLevel, NO_LIMIT_PAGES, OomMark as Raw, flags, known, reclaim_scope},
};

use super::{
    event::{CgroupKey, Comm, Decision, Level, NamespacePid, OomMark, Reclaim, ReclaimScope, Rss, Trigger, Victim},
    record::stamp,
};

/// Converts a mark whose `level_count` was checked.
pub(super) fn convert(raw: &Raw) -> OomMark {
    let knows = |bit: u64| raw.known & bit != 0;
    OomMark {
        stamp: stamp(&raw.header),
        real_kill: knows(known::KILL).then_some(raw.flags & flags::REAL_KILL != 0),
        victim: victim(raw),
        trigger: knows(known::TRIGGER).then(|| Trigger {
            tgid: raw.trigger.tgid,
            pid: raw.trigger.pid,
            comm: Comm(raw.trigger.comm),
            cgroup: knows(known::TRIGGER_CGROUP).then_some(key(&raw.trigger.cgroup)),
        }),
        decision: decision(raw),
        reclaim: reclaim(raw),
        levels: raw.levels.iter().take(raw.level_count as usize).map(|raw_level| level(raw_level, raw.known)).collect(),
        levels_cut: raw.flags & flags::LEVELS_CUT != 0,
    }
}

/// `None` also for a decision from before the trigger's last reclaim: it is of an earlier kill of the same trigger. The
/// kernel passes a kprobe over if its CPU is in the middle of another BPF program or system call (`trace_call_bpf`,
/// `kernel/trace/bpf_trace.c`), and then the slot still holds the one before.
fn decision(raw: &Raw) -> Option<Decision> {
    let from = &raw.decision;
    let stale = raw.known & known::RECLAIM != 0 && from.boot_ns < raw.reclaim.boot_ns;
    if raw.known & known::DECISION == 0 || stale {
        return None;
    }
    Some(Decision {
        boot_ns: from.boot_ns,
        domain: (from.domain.id != 0).then_some((key(&from.domain), from.domain.level)),
        total_pages: from.total_pages,
        constraint: from.constraint,
        order: from.order,
        gfp: from.gfp,
    })
}

/// `None` also for a scope that this version does not know, and for a reclaim of the machine after the decision on a
/// cgroup: while it reports, the kernel may ask for memory itself (`mem_cgroup_print_oom_meminfo` up to Linux 5.19).
fn reclaim(raw: &Raw) -> Option<Reclaim> {
    let scope = match raw.reclaim.scope {
        _ if raw.known & known::RECLAIM == 0 => return None,
        reclaim_scope::MACHINE => ReclaimScope::Machine,
        reclaim_scope::CGROUP => ReclaimScope::Cgroup,
        _ => return None,
    };
    let decided_on_cgroup = raw.known & known::DECISION != 0 && raw.decision.domain.id != 0;
    let within_report = decided_on_cgroup && raw.decision.boot_ns < raw.reclaim.boot_ns;
    if scope == ReclaimScope::Machine && within_report {
        return None;
    }
    Some(Reclaim { boot_ns: raw.reclaim.boot_ns, scope })
}

fn victim(raw: &Raw) -> Victim {
    let knows = |bit: u64| raw.known & bit != 0;
    let from = &raw.victim;
    let pages = |index: usize| from.rss_pages[index].max(0).unsigned_abs();
    Victim {
        tgid: knows(known::TGID).then_some(from.tgid),
        pid: knows(known::PID).then_some(from.pid),
        leader_start_ns: knows(known::LEADER_START).then_some(from.leader_start_ns),
        comm: knows(known::COMM).then_some(Comm(from.comm)),
        leader_comm: knows(known::LEADER_COMM).then_some(Comm(from.leader_comm)),
        uid: knows(known::UID).then_some(from.uid),
        oom_score_adj: knows(known::OOM_SCORE_ADJ).then_some(from.oom_score_adj),
        memory: knows(known::RSS).then(|| Rss {
            file: pages(0),
            anon: pages(1),
            swap: (raw.flags & flags::NO_SWAP == 0).then(|| pages(2)),
            shmem: pages(3),
        }),
        page_table_bytes: knows(known::PAGE_TABLES).then_some(from.page_table_bytes),
        namespace: knows(known::NAMESPACE_PID)
            .then_some(NamespacePid { pid: from.namespace_pid, level: from.namespace_level }),
        cgroup: knows(known::CGROUP).then_some(key(&from.cgroup)),
        cgroup_level: knows(known::CGROUP).then_some(from.cgroup.level).filter(|level| *level != UNKNOWN_LEVEL),
    }
}

fn level(raw: &RawLevel, bits: u64) -> Level {
    let knows = |bit: u64| bits & bit != 0;
    Level {
        id: raw.id,
        level: raw.level,
        oom_events: knows(known::LEVEL_OOM_EVENTS).then_some(raw.oom_events),
        limit_pages: knows(known::LEVEL_LIMITS)
            .then_some((raw.limit_pages < NO_LIMIT_PAGES).then_some(raw.limit_pages)),
        usage_pages: knows(known::LEVEL_LIMITS).then_some(raw.usage_pages),
        oom_group: knows(known::LEVEL_OOM_GROUP).then_some(raw.oom_group != 0),
    }
}

fn key(raw: &detector_common::cgroup::CgroupRef) -> CgroupKey {
    CgroupKey { hierarchy: raw.hierarchy, id: raw.id }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn what_the_kernel_side_could_not_read_is_none_and_never_zero() {
        let mark = convert(&Raw::new_zeroed());
        assert_eq!(mark.real_kill, None);
        assert_eq!(mark.trigger, None);
        assert_eq!(mark.decision, None);
        assert_eq!(mark.victim.tgid, None);
        assert_eq!(mark.victim.memory, None);
        assert_eq!(mark.victim.cgroup, None);
        assert!(mark.levels.is_empty());
    }

    #[test]
    fn a_cgroup_may_be_known_without_its_depth() {
        let mut raw = Raw::new_zeroed();
        raw.known = known::CGROUP;
        raw.victim.cgroup = detector_common::cgroup::CgroupRef { id: 7, hierarchy: 0, level: UNKNOWN_LEVEL };
        let victim = convert(&raw).victim;
        assert_eq!((victim.cgroup, victim.cgroup_level), (Some(CgroupKey { hierarchy: 0, id: 7 }), None));
    }

    #[test]
    fn a_decision_without_domain_is_the_whole_machine() {
        let mut raw = Raw::new_zeroed();
        raw.known = known::DECISION;
        assert_eq!(convert(&raw).decision.expect("known").domain, None);
    }

    #[test]
    fn a_decision_from_before_the_last_reclaim_is_of_an_earlier_kill() {
        let mut raw = Raw::new_zeroed();
        raw.known = known::DECISION | known::RECLAIM;
        raw.decision.boot_ns = 5;
        raw.reclaim.boot_ns = 6;
        assert_eq!(convert(&raw).decision, None);
        raw.decision.boot_ns = 7;
        assert!(convert(&raw).decision.is_some());
    }

    #[test]
    fn counters_that_lag_below_zero_read_as_zero() {
        let mut raw = Raw::new_zeroed();
        raw.known = known::RSS;
        raw.victim.rss_pages = [-3, 5, 0, 1];
        assert_eq!(convert(&raw).victim.memory, Some(Rss { file: 0, anon: 5, swap: Some(0), shmem: 1 }));
    }

    #[test]
    fn page_counter_max_is_no_limit() {
        let mut raw = Raw::new_zeroed();
        raw.known = known::LEVELS | known::LEVEL_LIMITS;
        raw.level_count = 1;
        raw.levels[0].limit_pages = i64::MAX.unsigned_abs() / 4096;
        assert_eq!(convert(&raw).levels[0].limit_pages, Some(None));
    }
}
