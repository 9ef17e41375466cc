//! Names of the kernel structure offsets that user space looks up in the running kernel's BTF and injects.
//!
//! rustc writes no CO-RE relocations, so each offset is a global of the kernel object, set before it is loaded. Where the
//! running kernel lacks a field its global stays [`ABSENT`], and what depends on it is reported as unknown.

/// Value of an offset that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Calls the macro `$apply` with the names of all offset globals, separated by commas.
#[macro_export]
macro_rules! for_each_offset {
    ($apply:ident) => {
        $apply! {
            TASK_TGID, TASK_PID, TASK_COMM, TASK_LEADER, TASK_START, TASK_CRED, TASK_MM, TASK_SIGNAL, TASK_CGROUPS,
            CRED_UID, SIGNAL_OOM_SCORE_ADJ, SIGNAL_PID_TGID, PID_LEVEL, PID_NUMBERS, UPID_SIZE, UPID_NR,
            MM_RSS, MM_RSS_STRIDE, MM_PAGE_TABLES,
            CSS_SET_MEMORY, CSS_CGROUP, CSS_PARENT, CGROUP_KN, CGROUP_LEVEL, CGROUP_ROOT, ROOT_HIERARCHY, KN_ID,
            MEMCG_CSS, MEMCG_OOM_EVENTS, MEMCG_LIMIT, MEMCG_USAGE, MEMCG_OOM_GROUP,
            OC_MEMCG, OC_CONSTRAINT, OC_TOTAL_PAGES, OC_GFP, OC_ORDER, OC_CHOSEN
        }
    };
}
