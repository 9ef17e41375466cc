//! Marks for tests, built from nothing but what a test cares for.

use crate::agent::decode::event::{CgroupKey, Decision, Level, OomMark, Reclaim, ReclaimScope, Stamp, Trigger, Victim};

/// A mark at the time `boot_ns` that knows nothing but to be a real kill, triggered by task 1.
pub(crate) fn mark(boot_ns: u64) -> OomMark {
    OomMark {
        stamp: Stamp { boot_ns, cpu: 0, sequence: boot_ns },
        real_kill: Some(true),
        victim: Victim {
            tgid: None,
            pid: None,
            leader_start_ns: None,
            comm: None,
            leader_comm: None,
            uid: None,
            oom_score_adj: None,
            memory: None,
            page_table_bytes: None,
            namespace: None,
            cgroup: Some(CgroupKey { hierarchy: 0, id: 0 }),
            cgroup_level: None,
        },
        trigger: Some(Trigger {
            tgid: 1,
            pid: 1,
            comm: crate::agent::decode::event::Comm(*b"trigger\0\0\0\0\0\0\0\0\0"),
            cgroup: None,
        }),
        decision: None,
        reclaim: None,
        levels: Default::default(),
        levels_cut: false,
    }
}

/// A level without limit.
pub(crate) fn level(id: u64, depth: u32, oom_events: u64) -> Level {
    Level {
        id,
        level: depth,
        oom_events: Some(oom_events),
        limit_pages: Some(None),
        usage_pages: Some(0),
        oom_group: Some(false),
    }
}

impl OomMark {
    /// The same with these levels, leaf first.
    pub(crate) fn levels<const N: usize>(mut self, levels: [Level; N]) -> Self {
        self.levels = levels.into_iter().collect();
        self
    }

    /// The same of the process `tgid`, whose leader started at `tgid` nanoseconds.
    pub(crate) fn of(mut self, tgid: u32) -> Self {
        self.victim.tgid = Some(tgid);
        self.victim.pid = Some(tgid);
        self.victim.leader_start_ns = Some(u64::from(tgid));
        self
    }

    /// The same after reclaim at `boot_ns` for `scope`.
    pub(crate) fn reclaimed(mut self, boot_ns: u64, scope: ReclaimScope) -> Self {
        self.reclaim = Some(Reclaim { boot_ns, scope });
        self
    }

    /// The same with a decision at `boot_ns` on the domain `(id, depth)`.
    pub(crate) fn decided(mut self, boot_ns: u64, domain: Option<(u64, u32)>) -> Self {
        self.decision = Some(Decision {
            boot_ns,
            domain: domain.map(|(id, depth)| (CgroupKey { hierarchy: 0, id }, depth)),
            total_pages: 0,
            constraint: 3,
            order: 0,
            gfp: 0,
        });
        self
    }
}
