//! Counts what was read, by kind, until it is told.

use crate::agent::decode::{CgroupChange, KernelEvent};

/// Records and lines read since they were told last.
#[derive(Debug, Default)]
pub(in crate::agent::pipeline) struct Reads {
    oom_mark: u64,
    hung_task: u64,
    cgroup_made: u64,
    cgroup_removed: u64,
    kernel_log: u64,
}

impl Reads {
    /// A record.
    pub(in crate::agent::pipeline) fn record(&mut self, event: &KernelEvent) {
        let count = match event {
            KernelEvent::OomMark(_) => &mut self.oom_mark,
            KernelEvent::HungTask(_) => &mut self.hung_task,
            KernelEvent::CgroupLife(life) if life.change == CgroupChange::Removed => &mut self.cgroup_removed,
            KernelEvent::CgroupLife(_) => &mut self.cgroup_made,
        };
        *count += 1;
    }

    /// A line of the kernel's log.
    pub(in crate::agent::pipeline) fn line(&mut self) {
        self.kernel_log += 1;
    }

    /// All that there is to tell, in the words of the metric.
    pub(in crate::agent::pipeline) fn take(&mut self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let Self { oom_mark, hung_task, cgroup_made, cgroup_removed, kernel_log } = std::mem::take(self);
        let all = [
            ("oom_mark", oom_mark),
            ("hung_task", hung_task),
            ("cgroup_made", cgroup_made),
            ("cgroup_removed", cgroup_removed),
            ("kernel_log", kernel_log),
        ];
        all.into_iter().filter(|(_, count)| *count > 0)
    }
}
