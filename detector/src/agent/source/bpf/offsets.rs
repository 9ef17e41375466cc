//! Offsets of the running kernel's structures, by name of the global that takes them.

use std::{io, path::Path};

use thiserror::Error;

use crate::agent::source::btf::{Btf, BtfError, LookupError, file::BtfFile};

/// Where the kernel tells its own types (`CONFIG_DEBUG_INFO_BTF`), below the root of the file system.
pub const VMLINUX_BTF: &str = "sys/kernel/btf/vmlinux";

/// Bytes of a pointer and of the counters of a memory cgroup, on the 64-bit machines that we run on.
const WORD: i64 = 8;

/// Function that decides on an OOM kill.
pub const OOM_KILL_PROCESS: &str = "oom_kill_process";

/// Prototype of the tracepoint that tells of hung tasks.
pub const HANG_PROTOTYPE: &str = "btf_trace_sched_process_hang";

/// Offsets found and missing.
#[derive(Debug, Default)]
pub struct Offsets {
    /// `None` where the kernel tells nothing of its types.
    known: Option<Known>,
}

#[derive(Debug, Default)]
struct Known {
    values: Vec<(&'static str, u32)>,
    missing: Vec<(&'static str, LookupError)>,
    oom_kill_process: Option<u32>,
    hang_prototype: Option<u32>,
}

/// Why a field cannot be read.
#[derive(Clone, Debug, Error)]
pub enum OffsetError {
    /// Nothing is known of any field.
    #[error("looking up {0}: the running kernel tells nothing of its types (no /sys/kernel/btf/vmlinux)")]
    NoBtf(&'static str),
    /// This field is missing.
    #[error(transparent)]
    Missing(#[from] LookupError),
}

/// Why the kernel's types could not be read.
#[derive(Debug, Error)]
pub enum OffsetsError {
    /// The file is missing or cannot be read.
    #[error("reading the kernel's types from {path}; a kernel has them if built with CONFIG_DEBUG_INFO_BTF")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is damaged.
    #[error("reading the kernel's types from {path}")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        #[source]
        source: BtfError,
    },
}

/// How an offset is found.
enum Rule {
    /// A member, reached by a path.
    Member(&'static str, &'static [&'static str]),
    /// An element of an array member, chosen by an enumerator: struct, member, enum, enumerator.
    Element(&'static str, &'static str, &'static str, &'static str),
    /// Size of a struct.
    Size(&'static str),
    /// First counter of `mm->rss_stat`: a struct with an array up to 6.1, an array of `percpu_counter` since 6.2.
    Rss,
    /// Distance of its counters.
    RssStride,
    /// List of a cgroup's ancestors: their addresses since 6.1, their ids before.
    Ancestors,
}

/// One rule for each global of [`detector_common::for_each_offset`].
const RULES: &[(&str, Rule)] = &[
    ("TASK_TGID", Rule::Member("task_struct", &["tgid"])),
    ("TASK_PID", Rule::Member("task_struct", &["pid"])),
    ("TASK_COMM", Rule::Member("task_struct", &["comm"])),
    ("TASK_LEADER", Rule::Member("task_struct", &["group_leader"])),
    ("TASK_START", Rule::Member("task_struct", &["start_boottime"])),
    ("TASK_CRED", Rule::Member("task_struct", &["real_cred"])),
    ("TASK_MM", Rule::Member("task_struct", &["mm"])),
    ("TASK_SIGNAL", Rule::Member("task_struct", &["signal"])),
    ("TASK_CGROUPS", Rule::Member("task_struct", &["cgroups"])),
    ("CRED_UID", Rule::Member("cred", &["uid"])),
    ("SIGNAL_OOM_SCORE_ADJ", Rule::Member("signal_struct", &["oom_score_adj"])),
    ("SIGNAL_PID_TGID", Rule::Element("signal_struct", "pids", "pid_type", "PIDTYPE_TGID")),
    ("PID_LEVEL", Rule::Member("pid", &["level"])),
    ("PID_NUMBERS", Rule::Member("pid", &["numbers"])),
    ("UPID_SIZE", Rule::Size("upid")),
    ("UPID_NR", Rule::Member("upid", &["nr"])),
    ("MM_RSS", Rule::Rss),
    ("MM_RSS_STRIDE", Rule::RssStride),
    ("MM_PAGE_TABLES", Rule::Member("mm_struct", &["pgtables_bytes"])),
    ("CSS_SET_MEMORY", Rule::Element("css_set", "subsys", "cgroup_subsys_id", "memory_cgrp_id")),
    ("CSS_CGROUP", Rule::Member("cgroup_subsys_state", &["cgroup"])),
    ("CSS_PARENT", Rule::Member("cgroup_subsys_state", &["parent"])),
    ("CGROUP_KN", Rule::Member("cgroup", &["kn"])),
    ("CGROUP_LEVEL", Rule::Member("cgroup", &["level"])),
    ("CGROUP_ROOT", Rule::Member("cgroup", &["root"])),
    ("ROOT_HIERARCHY", Rule::Member("cgroup_root", &["hierarchy_id"])),
    ("KN_ID", Rule::Member("kernfs_node", &["id"])),
    ("MEMCG_CSS", Rule::Member("mem_cgroup", &["css"])),
    ("MEMCG_OOM_EVENTS", Rule::Element("mem_cgroup", "memory_events_local", "memcg_memory_event", "MEMCG_OOM")),
    ("MEMCG_LIMIT", Rule::Member("mem_cgroup", &["memory", "max"])),
    ("MEMCG_USAGE", Rule::Member("mem_cgroup", &["memory", "usage"])),
    ("MEMCG_OOM_GROUP", Rule::Member("mem_cgroup", &["oom_group"])),
    ("OC_MEMCG", Rule::Member("oom_control", &["memcg"])),
    ("OC_CONSTRAINT", Rule::Member("oom_control", &["constraint"])),
    ("OC_TOTAL_PAGES", Rule::Member("oom_control", &["totalpages"])),
    ("OC_GFP", Rule::Member("oom_control", &["gfp_mask"])),
    ("OC_ORDER", Rule::Member("oom_control", &["order"])),
    ("OC_CHOSEN", Rule::Member("oom_control", &["chosen"])),
    ("TASK_NVCSW", Rule::Member("task_struct", &["nvcsw"])),
    ("TASK_NIVCSW", Rule::Member("task_struct", &["nivcsw"])),
    ("TASK_LAST_SWITCH", Rule::Member("task_struct", &["last_switch_time"])),
    ("TASK_BLOCKER", Rule::Member("task_struct", &["blocker"])),
    ("MUTEX_OWNER", Rule::Member("mutex", &["owner"])),
    ("SEMAPHORE_HOLDER", Rule::Member("semaphore", &["last_holder"])),
    ("RWSEM_OWNER", Rule::Member("rw_semaphore", &["owner"])),
    ("TASK_TASKS", Rule::Member("task_struct", &["tasks"])),
    ("TASK_PREEMPT_COUNT", Rule::Member("task_struct", &["thread_info", "preempt_count"])),
    ("PCPU_HOT_PREEMPT_COUNT", Rule::Member("pcpu_hot", &["preempt_count"])),
    ("CGROUP_ANCESTORS", Rule::Ancestors),
];

/// Fields that many kernels are without, so that nobody needs to be told. `CONFIG_DETECT_HUNG_TASK_BLOCKER`, Linux 6.16:
/// where they are missing the lock of a hung task is unknown. The count of what forbids preemption lies in the task on some
/// machines, on x86 in a structure (Linux 6.2 to 6.14) or for itself.
const OFTEN_MISSING: &[&str] = &["TASK_BLOCKER", "SEMAPHORE_HOLDER", "TASK_PREEMPT_COUNT", "PCPU_HOT_PREEMPT_COUNT"];

impl Offsets {
    /// Reads the types of the running kernel below `root`, which is `/` but for tests.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged. A field that the kernel lacks is no error: see [`Offsets::missing`].
    pub fn read(root: &Path) -> Result<Self, OffsetsError> {
        let path = root.join(VMLINUX_BTF);
        let told = || path.display().to_string();
        let bytes = BtfFile::open(&path).map_err(|source| OffsetsError::Read { path: told(), source })?;
        Self::find(&bytes).map_err(|source| OffsetsError::Parse { path: told(), source })
    }

    /// Finds all offsets in a BTF blob.
    ///
    /// # Errors
    /// If the blob is damaged.
    pub fn find(bytes: &[u8]) -> Result<Self, BtfError> {
        let btf = Btf::parse(bytes, &wanted_names())?;
        let mut known = Known::default();
        for (name, rule) in RULES {
            match apply(&btf, rule) {
                Ok(value) => known.values.push((name, value)),
                Err(error) => known.missing.push((name, error)),
            }
        }
        known.oom_kill_process = btf.function_id(OOM_KILL_PROCESS).ok();
        known.hang_prototype = btf.typedef_id(HANG_PROTOTYPE).ok();
        Ok(Self { known: Some(known) })
    }

    /// What is known of a kernel that tells nothing of its types: nothing. Only methods that need no kernel structure
    /// attach then.
    #[must_use]
    pub const fn unknown() -> Self {
        Self { known: None }
    }

    /// Whether the kernel tells of its types.
    #[must_use]
    pub const fn has_btf(&self) -> bool {
        self.known.is_some()
    }

    /// Globals and their values, each of which the running kernel has.
    pub fn values(&self) -> &[(&'static str, u32)] {
        self.known.as_ref().map_or(&[], |known| &known.values)
    }

    /// Globals whose field the running kernel lacks though most have it, and why. None if nothing is known.
    pub fn missing(&self) -> impl Iterator<Item = &(&'static str, LookupError)> {
        let all = self.known.iter().flat_map(|known| &known.missing);
        all.filter(|(name, _)| !OFTEN_MISSING.contains(name))
    }

    /// Whether the kernel tells which lock a hung task waits for.
    #[must_use]
    pub fn tells_locks(&self) -> bool {
        self.require(&["TASK_BLOCKER"]).is_ok()
    }

    /// Whether all these globals have a value.
    ///
    /// # Errors
    /// Why the first that has none lacks it.
    pub fn require(&self, globals: &[&'static str]) -> Result<(), OffsetError> {
        let Some(first) = globals.first() else { return Ok(()) };
        let known = self.known.as_ref().ok_or(OffsetError::NoBtf(first))?;
        match known.missing.iter().find(|(name, _)| globals.contains(name)) {
            Some((_, error)) => Err(error.clone().into()),
            None => Ok(()),
        }
    }

    /// Id of the type of [`OOM_KILL_PROCESS`], if the kernel has that function and tells of it.
    #[must_use]
    pub fn oom_kill_process(&self) -> Option<u32> {
        self.known.as_ref()?.oom_kill_process
    }

    /// Id of the type [`HANG_PROTOTYPE`], if the kernel has that tracepoint and tells of it.
    #[must_use]
    pub fn hang_prototype(&self) -> Option<u32> {
        self.known.as_ref()?.hang_prototype
    }
}

impl OffsetsError {
    /// Whether the kernel has no such file at all, so that [`Offsets::unknown`] is all there is.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn wanted_names() -> Vec<&'static str> {
    let mut names = vec!["mm_struct", "percpu_counter", "mm_rss_stat", OOM_KILL_PROCESS, HANG_PROTOTYPE];
    for (_, rule) in RULES {
        match rule {
            Rule::Member(name, _) | Rule::Size(name) => names.push(name),
            Rule::Element(name, _, enumeration, _) => names.extend([*name, *enumeration]),
            // `cgroup` is among the members.
            Rule::Rss | Rule::RssStride | Rule::Ancestors => {}
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

fn apply(btf: &Btf<'_>, rule: &Rule) -> Result<u32, LookupError> {
    match rule {
        Rule::Member(name, path) => Ok(btf.member(name, path)?.offset),
        Rule::Size(name) => btf.size_of(name),
        Rule::Element(name, member, enumeration, enumerator) => {
            let index = btf.enumerator(enumeration, enumerator)?;
            let start = btf.member(name, &[member])?.offset;
            let missing = || LookupError::PartMissing { path: format!("{name}.{member}[{enumerator}]") };
            let distance = index.checked_mul(WORD).and_then(|bytes| u32::try_from(bytes).ok()).ok_or_else(missing)?;
            start.checked_add(distance).ok_or_else(missing)
        }
        Rule::Rss => rss(btf).map(|(start, _)| start),
        Rule::RssStride => rss(btf).map(|(_, stride)| stride),
        Rule::Ancestors => {
            let since = btf.member("cgroup", &["ancestors"]);
            Ok(since.or_else(|_| btf.member("cgroup", &["ancestor_ids"]))?.offset)
        }
    }
}

fn rss(btf: &Btf<'_>) -> Result<(u32, u32), LookupError> {
    let counters = btf.member("mm_struct", &["rss_stat", "count"])?;
    let stride = counters
        .array
        .map(|array| array.stride)
        .ok_or_else(|| LookupError::PartMissing { path: "mm_struct.rss_stat.count[]".into() })?;
    Ok((counters.offset, stride))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_global_of_the_kernel_side_has_a_rule() {
        macro_rules! names {
            ($($name:ident),* $(,)?) => { [$(stringify!($name)),*] };
        }
        let globals: BTreeSet<_> = detector_common::for_each_offset!(names).into_iter().collect();
        let rules: BTreeSet<_> = RULES.iter().map(|(name, _)| *name).collect();
        assert_eq!(globals, rules);
    }

    #[test]
    fn of_a_kernel_without_types_nothing_is_known_and_each_need_says_so() {
        let offsets = Offsets::unknown();
        assert!(offsets.values().is_empty() && offsets.missing().next().is_none());
        assert!(matches!(offsets.require(&["TASK_PID"]), Err(OffsetError::NoBtf("TASK_PID"))));
        assert!(offsets.require(&[]).is_ok());
    }

    #[test]
    fn what_many_kernels_lack_is_no_loss_but_still_not_there() {
        let bytes: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/btf/linux-6.18.btf"));
        let offsets = Offsets::find(bytes).expect("readable BTF");
        // The kernel that it was cut from has them, but `struct semaphore` was not cut out.
        assert!(offsets.missing().all(|(name, _)| *name != "SEMAPHORE_HOLDER"));
        assert!(matches!(offsets.require(&["TASK_PID", "SEMAPHORE_HOLDER"]), Err(OffsetError::Missing(_))));
        assert!(offsets.tells_locks() && offsets.require(&["TASK_PID"]).is_ok());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Offsets::read(Path::new("/nowhere")).expect_err("no such file");
        assert!(error.is_absent());
        assert_eq!(
            error.to_string(),
            "reading the kernel's types from /nowhere/sys/kernel/btf/vmlinux; a kernel has them if built with \
             CONFIG_DEBUG_INFO_BTF"
        );
    }
}
