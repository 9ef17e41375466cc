//! Names of the offsets that user space looks up and injects: those of kernel structures, from the running kernel's BTF,
//! and those of the fields of classic tracepoints, from what tracefs says of their format.
//!
//! rustc writes no CO-RE relocations, so each offset is a global of the kernel object, set before it is loaded. Where the
//! running kernel lacks a field its global stays [`ABSENT`], and what depends on it is reported as unknown.

/// Value of an offset that the running kernel does not have, or that nobody could tell.
pub const ABSENT: u32 = u32::MAX;

/// Calls the macro `$apply` with the names of all globals that hold an offset in a kernel structure, separated by commas.
#[macro_export]
macro_rules! for_each_offset {
    ($apply:ident) => {
        $apply! {
            TASK_TGID, TASK_PID, TASK_COMM, TASK_LEADER, TASK_START, TASK_CRED, TASK_MM, TASK_SIGNAL, TASK_CGROUPS,
            CRED_UID, SIGNAL_OOM_SCORE_ADJ, SIGNAL_PID_TGID, PID_LEVEL, PID_NUMBERS, UPID_SIZE, UPID_NR,
            MM_RSS, MM_RSS_STRIDE, MM_PAGE_TABLES,
            CSS_SET_MEMORY, CSS_CGROUP, CSS_PARENT, CGROUP_KN, CGROUP_LEVEL, CGROUP_ROOT, ROOT_HIERARCHY, KN_ID,
            MEMCG_CSS, MEMCG_OOM_EVENTS, MEMCG_LIMIT, MEMCG_USAGE, MEMCG_OOM_GROUP,
            OC_MEMCG, OC_CONSTRAINT, OC_TOTAL_PAGES, OC_GFP, OC_ORDER, OC_CHOSEN,
            TASK_NVCSW, TASK_NIVCSW, TASK_LAST_SWITCH, TASK_BLOCKER, MUTEX_OWNER, SEMAPHORE_HOLDER, RWSEM_OWNER,
            TASK_TASKS, TASK_PREEMPT_COUNT, PCPU_HOT_PREEMPT_COUNT, CGROUP_ANCESTORS
        }
    };
}

/// Calls the macro `$apply` with the names of all globals that hold the offset of a field in the record of a classic
/// tracepoint, separated by commas. `_LOC` is a field of four bytes that tells where a string lies: its offset in the
/// record in the lower half, its length with the closing NUL in the upper (`__data_loc`,
/// `include/trace/stages/stage1_struct_define.h`).
#[macro_export]
macro_rules! for_each_event_field {
    ($apply:ident) => {
        $apply! {
            EVENT_MARK_PID, EVENT_MARK_COMM_LOC, EVENT_MARK_ANON, EVENT_MARK_FILE, EVENT_MARK_SHMEM, EVENT_MARK_UID,
            EVENT_MARK_PAGE_TABLES, EVENT_MARK_SCORE_ADJ,
            EVENT_SIGNAL_NUMBER, EVENT_SIGNAL_CODE, EVENT_SIGNAL_PID, EVENT_SIGNAL_COMM,
            EVENT_HANG_PID, EVENT_HANG_COMM, EVENT_HANG_COMM_LOC,
            EVENT_CGROUP_ROOT, EVENT_CGROUP_ID, EVENT_CGROUP_LEVEL, EVENT_CGROUP_PATH_LOC
        }
    };
}
