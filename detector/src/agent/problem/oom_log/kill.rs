//! A process that the log says was killed.

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::agent::decode::{
    event::{OomMark, Rss, Stamp, Victim},
    kernel_log::{LogCause, OomHeader, OomKilled},
};

/// `Stamp::cpu` of a kill from the log, which does not tell it.
pub const CPU_UNTOLD: u32 = u32::MAX;

/// A process that the log says was killed.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedKill {
    /// What the log tells, in the shape of the kernel side's record. Its sequence is the log's, its time approximate, its
    /// CPU [`CPU_UNTOLD`]. There are no levels, no trigger and no start time; `tgid` is known where the report named the
    /// process.
    pub mark: OomMark,
    /// Number of the decision in this log, from 1: all its victims share it.
    pub decision: u64,
    /// The victim's memory cgroup.
    pub cgroup_path: Option<Arc<str>>,
    /// Whose limit was hit.
    pub domain: LoggedDomain,
    /// The cgroup that dies as a whole: the victim lived in it or below.
    pub group: Option<Arc<str>>,
    /// Whether a whole cgroup dies; `None` if the log could not yet tell.
    pub group_kill: Option<bool>,
}

/// Whose limit was hit, as far as the log tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoggedDomain {
    /// The whole machine ran out of memory.
    Node,
    /// A cgroup's, by its path.
    Cgroup(Arc<str>),
    /// Some cgroup's, or not told.
    Unknown,
}

/// Where and when a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Number of its record.
    pub sequence: u64,
    /// Its own time, microseconds of the log's clock.
    pub time_us: u64,
    /// The same in nanoseconds since boot.
    pub boot_ns: u64,
}

/// What the line on a kill tells, on a machine with pages of `page_kib`.
pub(super) fn mark(killed: &OomKilled, at: At, page_kib: u64) -> OomMark {
    let pages = |kib: u64| kib / page_kib;
    let memory = killed.memory;
    OomMark {
        stamp: Stamp { boot_ns: at.boot_ns, cpu: CPU_UNTOLD, sequence: at.sequence },
        real_kill: Some(true),
        victim: Victim {
            tgid: None,
            pid: Some(killed.pid),
            leader_start_ns: None,
            comm: Some(killed.comm),
            leader_comm: None,
            uid: killed.uid,
            oom_score_adj: killed.oom_score_adj,
            memory: memory.anon_kib.zip(memory.file_kib).zip(memory.shmem_kib).map(|((anon, file), shmem)| Rss {
                file: pages(file),
                anon: pages(anon),
                swap: None,
                shmem: pages(shmem),
            }),
            page_table_bytes: memory.page_table_kib.and_then(|kib| kib.checked_mul(1024)),
            namespace: None,
            cgroup: None,
            cgroup_level: None,
        },
        trigger: None,
        decision: None,
        reclaim: None,
        levels: ArrayVec::new(),
        levels_cut: false,
    }
}

/// Whether a report can be that on this kill.
pub(super) fn belongs(header: &OomHeader, killed: &OomKilled) -> bool {
    let same_task = header.pid != killed.pid || header.comm == killed.comm;
    same_task && agrees(&domain_of(header), killed.cause) && killed.uid.is_none_or(|uid| uid == header.uid)
}

pub(super) fn agrees(domain: &LoggedDomain, cause: LogCause) -> bool {
    match cause {
        LogCause::Cgroup => *domain != LoggedDomain::Node,
        LogCause::Node | LogCause::NodeAllocating => !matches!(domain, LoggedDomain::Cgroup(_)),
        LogCause::Untold => true,
    }
}

pub(super) fn domain_of(header: &OomHeader) -> LoggedDomain {
    header.domain.as_deref().map_or(LoggedDomain::Node, |path| LoggedDomain::Cgroup(Arc::from(path)))
}

pub(super) fn domain_by_cause(cause: LogCause) -> LoggedDomain {
    match cause {
        LogCause::Node | LogCause::NodeAllocating => LoggedDomain::Node,
        LogCause::Cgroup | LogCause::Untold => LoggedDomain::Unknown,
    }
}
