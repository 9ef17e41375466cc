//! Holds our count of kills against the kernel's, from a moment in which nobody was being killed.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use crate::{
    agent::{
        locate::Baseline as CgroupBaseline,
        problem::{
            OomKill,
            reconcile::{self, Seen},
        },
        source::kernel_count,
    },
    clock::BootClock,
};

/// Attempts to find a moment in which no kill falls between two looks.
pub(in crate::agent::pipeline) const QUIET_ATTEMPTS: u32 = 8;

/// Cgroups whose kills are counted one by one; what lies beyond is counted for the machine alone.
const CGROUPS: usize = 4096;

/// Both counts since the start.
#[derive(Debug)]
pub(in crate::agent::pipeline) struct Reckoning {
    /// The kernel's count at the start, and when it was read; `None` if the kernel does not tell.
    baseline: Option<Baseline>,
    kills: u64,
    group_incidents: u64,
    /// What the kernel had counted per cgroup before the start, by id; those without kills are left out.
    cgroup_baselines: HashMap<u64, u64>,
    cgroups: HashMap<Arc<str>, Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Baseline {
    kills: u64,
    boot_ns: u64,
}

impl Reckoning {
    /// Reads the kernel's count. The probes must be attached: what is killed before is in the kernel's count and in the
    /// ring, and told apart by its time.
    pub(in crate::agent::pipeline) fn begin(root: &Path, cgroups: &[CgroupBaseline], clock: BootClock) -> Self {
        let mut baseline = None;
        for _ in 0..QUIET_ATTEMPTS {
            let Ok(kills) = kernel_count::oom_kills(root) else { break };
            let boot_ns = clock();
            baseline = Some(Baseline { kills, boot_ns });
            if kernel_count::oom_kills(root).is_ok_and(|again| again == kills) {
                break;
            }
        }
        let cgroup_baselines = cgroups.iter().filter_map(|cgroup| Some((cgroup.key.id, cgroup.oom_kills?))).collect();
        Self { baseline, kills: 0, group_incidents: 0, cgroup_baselines, cgroups: HashMap::new() }
    }

    /// A kill was told.
    pub(in crate::agent::pipeline) fn killed(&mut self, kill: &OomKill) {
        if self.baseline.is_none_or(|baseline| kill.mark.stamp.boot_ns <= baseline.boot_ns) {
            return;
        }
        let group_incident = u64::from(kill.group_kill == Some(true) && kill.incident.victim == 1);
        self.kills += 1;
        self.group_incidents += group_incident;
        let Some(place) = &kill.place else { return };
        if self.cgroups.len() >= CGROUPS && !self.cgroups.contains_key(&place.path) {
            return;
        }
        let new = || Seen { path: Arc::clone(&place.path), kills: 0, group_incidents: 0 };
        let seen = self.cgroups.entry(Arc::clone(&place.path)).or_insert_with(new);
        seen.kills += 1;
        seen.group_incidents += group_incident;
    }

    /// Kills whose records are lost were told as a number. Only as many count as are missing: others are from before the
    /// start.
    pub(in crate::agent::pipeline) fn booked(&mut self, kills: u64, root: &Path) {
        if kills == 0 {
            return;
        }
        let missing = self.kernel_kills(root).map_or(0, |kernel| self.unaccounted(kernel));
        self.kills += kills.min(u64::try_from(missing).unwrap_or(0));
    }

    /// What the kernel counted since the start.
    pub(in crate::agent::pipeline) fn kernel_kills(&self, root: &Path) -> Option<u64> {
        let baseline = self.baseline?;
        kernel_count::oom_kills(root).ok()?.checked_sub(baseline.kills)
    }

    /// Kills that the kernel counted and we did not see.
    pub(in crate::agent::pipeline) fn unaccounted(&self, kernel: u64) -> i64 {
        reconcile::unaccounted(kernel, self.kills, self.group_incidents)
    }

    /// Where they happened, as far as living cgroups tell: `now` is what these count.
    pub(in crate::agent::pipeline) fn differences(
        &self,
        now: &[CgroupBaseline],
        hierarchical: bool,
    ) -> BTreeMap<String, i64> {
        let since_start = |cgroup: &CgroupBaseline| {
            let before = self.cgroup_baselines.get(&cgroup.key.id).copied().unwrap_or(0);
            Some((cgroup.path.clone(), cgroup.oom_kills?.checked_sub(before)?))
        };
        let kernel: Vec<_> = now.iter().filter_map(since_start).filter(|(_, count)| *count > 0).take(CGROUPS).collect();
        let seen: Vec<_> = self.cgroups.values().cloned().collect();
        reconcile::by_cgroup(&kernel, &seen, hierarchical)
    }
}
