//! What stays unknown where the kernel lacks a structure field.

/// What depends on the field whose offset the BPF programs call `name`.
pub(super) fn loss(name: &str) -> &'static str {
    const LOSSES: &[(&str, &str)] = &[
        ("OC_", "constraint and order of a kill, and the limit as the kernel names it"),
        ("MM_", "memory of the killed process"),
        ("CRED_", "user of the killed process"),
        ("SIGNAL_OOM_SCORE_ADJ", "oom_score_adj of the killed process"),
        ("SIGNAL_", "whether the killed process was the first of its container"),
        ("PID_", "whether the killed process was the first of its container"),
        ("UPID_", "whether the killed process was the first of its container"),
        ("MEMCG_", "whose limit was hit, by methods other than fentry and kprobe"),
        ("TASK_CGROUPS", "pods and containers"),
        ("CSS_", "pods and containers"),
        ("CGROUP_ANCESTORS", "the biggest consumer of a cgroup that ran out of memory, in the last words of a panic"),
        ("CGROUP_", "pods and containers"),
        ("ROOT_", "pods and containers"),
        ("KN_", "pods and containers"),
        ("TASK_NVCSW", "whether a hung task ran between two looks"),
        ("TASK_NIVCSW", "whether a hung task ran between two looks"),
        ("TASK_LAST_SWITCH", "how long a task has hung already"),
        ("TASK_BLOCKER", "which lock a hung task waits for, and who holds it"),
        ("MUTEX_", "who holds the mutex that a hung task waits for"),
        ("SEMAPHORE_", "who holds the semaphore that a hung task waits for"),
        ("RWSEM_", "who holds the lock that a hung task waits for"),
        ("TASK_MM", "memory of the killed process"),
        ("TASK_SIGNAL", "oom_score_adj of the killed process, and whether it was the first of its container"),
        ("TASK_TASKS", "the biggest consumer of memory, in the last words of a panic"),
        ("TASK_PREEMPT_COUNT", "whether a panic came from an interrupt"),
        ("PCPU_HOT_PREEMPT_COUNT", "whether a panic came from an interrupt"),
        ("TASK_", "names, ids and start of tasks"),
    ];
    let known = LOSSES.iter().find(|(start, _)| name.starts_with(start));
    known.map_or("what depends on it", |(_, loss)| loss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_loss() {
        macro_rules! names {
            ($($name:ident),* $(,)?) => { [$(stringify!($name)),*] };
        }
        for name in detector_common::for_each_offset!(names) {
            assert_ne!(loss(name), "what depends on it", "{name}");
        }
    }
}
