//! Lines of the OOM killer (`mm/oom_kill.c`, `mm/memcontrol.c`).

use super::{COMM_BYTES, LogEvent, comm, cut, cut_last, cuts, number, path};
use crate::agent::decode::event::Comm;

/// The last line of the report on a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomHeader {
    /// Cgroup whose limit was hit; `None` is the whole machine.
    pub domain: Option<String>,
    /// Memory cgroup of the task chosen.
    pub cgroup: String,
    /// Name of the task chosen: most often, but not always, the leader of its thread group.
    pub comm: Comm,
    /// Its thread id. The line on the kill may name another thread of the same process.
    pub pid: u32,
    /// Its real user id, as the machine's own user namespace sees it.
    pub uid: u32,
}

/// A process was killed. What a kernel does not tell is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomKilled {
    /// Why.
    pub cause: LogCause,
    /// Thread id: the leader's, or that of another thread if the leader has exited.
    pub pid: u32,
    /// Name of that thread.
    pub comm: Comm,
    /// Real user id (Linux 5.4 and later).
    pub uid: Option<u32>,
    /// -1,000 to 1,000 (Linux 5.4 and later).
    pub oom_score_adj: Option<i32>,
    /// Its memory.
    pub memory: LoggedMemory,
}

/// Memory of a process in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoggedMemory {
    /// Address space.
    pub total_vm_kib: Option<u64>,
    /// Anonymous memory.
    pub anon_kib: Option<u64>,
    /// Resident pages of files.
    pub file_kib: Option<u64>,
    /// Resident shared memory.
    pub shmem_kib: Option<u64>,
    /// Page tables.
    pub page_table_kib: Option<u64>,
}

/// Why a process was killed, by the words in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogCause {
    /// A memory cgroup hit its limit.
    Cgroup,
    /// The machine ran out of memory.
    Node,
    /// The same, and the task that asked for memory is killed, not the largest (`vm.oom_kill_allocating_task`).
    NodeAllocating,
    /// Not told: kernels before 5.1.
    Untold,
}

/// Words in front of a kill. No name of a task or a device comes before them, so that none can stand for them.
const CAUSES: [(&[u8], LogCause); 4] = [
    (b"Memory cgroup out of memory: ", LogCause::Cgroup),
    (b"Out of memory: ", LogCause::Node),
    (b"Out of memory (oom_kill_allocating_task): ", LogCause::NodeAllocating),
    (b"", LogCause::Untold),
];

pub(super) fn event(text: &[u8]) -> Option<LogEvent> {
    if let Some(rest) = text.strip_prefix(b"oom-kill:constraint=") {
        return header(rest).map(LogEvent::OomHeader);
    }
    if let Some(rest) = text.strip_prefix(b"Tasks in ") {
        let group = path(rest.strip_suffix(b" are going to be killed due to memory.oom.group set")?)?;
        return Some(LogEvent::OomGroup { path: group.to_owned() });
    }
    let (rest, cause) = CAUSES.iter().find_map(|(words, cause)| Some((text.strip_prefix(*words)?, *cause)))?;
    if let Some(killed) = rest.strip_prefix(b"Killed process ") {
        return killed_process(killed, cause).map(LogEvent::OomKilled);
    }
    if let Some(skipped) = rest.strip_prefix(b"OOM victim ") {
        let (skipped, _) = cut_last(skipped, b") is already exiting. Skip killing the task")?;
        return Some(LogEvent::OomSkipped { pid: number(cut(skipped, b" (")?.0)?, cause });
    }
    let (invoker, _) = cut(text, b" invoked oom-killer: gfp_mask=")?;
    (invoker.len() <= COMM_BYTES).then_some(LogEvent::OomInvoked)
}

/// `CONSTRAINT,nodemask=…,cpuset=NAME,mems_allowed=…,oom_memcg=PATH,task_memcg=PATH,task=COMM,pid=N,uid=N`, or
/// `,global_oom` instead of `,oom_memcg=PATH`.
///
/// The name of a cpuset has no `/`, so that the first key with an absolute path behind it is the real one. Paths and the
/// name of the task may hold such keys themselves: if more than one reading makes sense, none is believed.
fn header(text: &[u8]) -> Option<OomHeader> {
    let (text, uid) = cut_last(text, b",uid=")?;
    let (text, pid) = cut_last(text, b",pid=")?;
    let (pid, uid) = (number(pid)?, signed(uid)?);
    let (memcg, global): (&[u8], &[u8]) = (b",oom_memcg=/", b",global_oom,task_memcg=/");
    let place = |key| cut(text, key).map(|(before, _)| before.len());
    // What stands behind the key, the first `/` of the path included.
    let behind = |key: &[u8], place: usize| text.get(place + key.len() - 1..);
    let mut readings = match (place(memcg), place(global)) {
        (at, Some(global_at)) if at.is_none_or(|at| global_at < at) => {
            tasks(behind(global, global_at)?).map(|task| (None, task)).collect::<Vec<_>>()
        }
        (at, _) => {
            let domains = cuts(behind(memcg, at?)?, b",task_memcg=");
            domains.flat_map(|(domain, rest)| tasks(rest).map(move |task| (Some(domain), task))).collect()
        }
    };
    readings.retain(|(domain, (cgroup, _))| domain.is_none_or(|domain| is_within(cgroup, domain)));
    let [(domain, (cgroup, name))] = readings.as_slice() else { return None };
    let domain = match domain {
        Some(domain) => Some(path(domain)?.to_owned()),
        None => None,
    };
    Some(OomHeader { domain, cgroup: path(cgroup)?.to_owned(), comm: comm(name)?, pid, uid })
}

/// All ways to read `PATH,task=COMM`.
fn tasks(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    cuts(text, b",task=").filter(|(path, comm)| path.starts_with(b"/") && comm.len() <= COMM_BYTES)
}

/// Whether the cgroup `inner` is `outer` or below it: a victim always lives in the domain.
fn is_within(inner: &[u8], outer: &[u8]) -> bool {
    outer == b"/" || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// `N (COMM) total-vm:NkB, anon-rss:NkB, file-rss:NkB, shmem-rss:NkB, UID:N pgtables:NkB oom_score_adj:N`; older kernels
/// end earlier, and that of RHEL 7 has `, UID N,` behind the name.
fn killed_process(text: &[u8], cause: LogCause) -> Option<OomKilled> {
    let (pid, rest) = cut(text, b" (")?;
    // Behind the name there are numbers only, so that the last key is the real one.
    let (named, values) = cut_last(rest, b"total-vm:")?;
    let (name, old_uid) = match named.strip_suffix(b") ") {
        Some(name) => (name, None),
        None => {
            let (name, uid) = cut_last(named.strip_suffix(b", ")?, b"), UID ")?;
            (name, Some(number(uid)?))
        }
    };
    let (total_vm, values) = values.split_at(values.iter().position(|byte| *byte == b',').unwrap_or(values.len()));
    let value = |key: &[u8]| {
        let mut words = values.split(|byte| matches!(byte, b' ' | b','));
        words.find_map(|word| word.strip_prefix(key))
    };
    Some(OomKilled {
        cause,
        pid: number(pid)?,
        comm: comm(name)?,
        uid: old_uid.or_else(|| value(b"UID:").and_then(number)),
        oom_score_adj: value(b"oom_score_adj:").and_then(|word| std::str::from_utf8(word).ok()?.parse().ok()),
        memory: LoggedMemory {
            total_vm_kib: kib(total_vm),
            anon_kib: value(b"anon-rss:").and_then(kib),
            file_kib: value(b"file-rss:").and_then(kib),
            shmem_kib: value(b"shmem-rss:").and_then(kib),
            page_table_kib: value(b"pgtables:").and_then(kib),
        },
    })
}

/// A user id, which the kernel prints with a sign here.
fn signed(digits: &[u8]) -> Option<u32> {
    match digits.strip_prefix(b"-") {
        Some(digits) => number(digits).map(u32::wrapping_neg),
        None => number(digits),
    }
}

fn kib(word: &[u8]) -> Option<u64> {
    number(word.strip_suffix(b"kB").or_else(|| word.strip_suffix(b"KB"))?)
}
