//! The rungs of all ladders as a table: for each detector and method the programs, their hooks, and what of the kernel
//! must be known for them to be of use.

use std::fmt;

use crate::agent::options::{Detector, Method};

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A raw tracepoint of that name.
    Raw(&'static str),
    /// A raw tracepoint whose arguments have types.
    Typed(&'static str),
    /// Entry of a function, by trampoline.
    Entry(&'static str),
    /// The same, by kprobe.
    Kprobe(&'static str),
    /// A classic tracepoint: category and name, as in tracefs.
    Event(&'static str, &'static str),
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw(name) | Self::Typed(name) | Self::Entry(name) | Self::Kprobe(name) => f.write_str(name),
            Self::Event(category, name) => write!(f, "{category}:{name}"),
        }
    }
}

/// One hook of a rung.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Programs for it, one of which is attached: the next is tried where the kernel finds one to be of the wrong form
    /// (EINVAL) for its hook.
    pub programs: &'static [&'static str],
    /// Where.
    pub hook: Hook,
    /// Whether the rung is of use without it.
    pub optional: bool,
}

/// What one method of one detector consists of.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// Globals of [`detector_common::for_each_offset`] that it cannot do without.
    pub offsets: &'static [&'static str],
    /// Globals of [`detector_common::for_each_event_field`] that it cannot do without.
    pub fields: &'static [&'static str],
    /// Its hooks, in the order in which they are attached: what is remembered for a record comes before its writer.
    pub parts: &'static [Part],
}

const fn need(programs: &'static [&'static str], hook: Hook) -> Part {
    Part { programs, hook, optional: false }
}

const fn may(programs: &'static [&'static str], hook: Hook) -> Part {
    Part { programs, hook, optional: true }
}

/// Who a task is and which memory cgroup it is in. A method that reads tasks but not these is worth less than one that
/// asks `/proc`.
const TASK: &[&str] = &[
    "TASK_TGID",
    "TASK_PID",
    "TASK_CGROUPS",
    "CSS_SET_MEMORY",
    "CSS_CGROUP",
    "CGROUP_KN",
    "CGROUP_LEVEL",
    "CGROUP_ROOT",
    "ROOT_HIERARCHY",
    "KN_ID",
];

/// The same, and what the kernel decided on.
const TASK_AND_DECISION: &[&str] = &[
    "TASK_TGID",
    "TASK_PID",
    "TASK_CGROUPS",
    "CSS_SET_MEMORY",
    "CSS_CGROUP",
    "CGROUP_KN",
    "CGROUP_LEVEL",
    "CGROUP_ROOT",
    "ROOT_HIERARCHY",
    "KN_ID",
    "MEMCG_CSS",
    "OC_MEMCG",
    "OC_CONSTRAINT",
    "OC_TOTAL_PAGES",
    "OC_GFP",
    "OC_ORDER",
    "OC_CHOSEN",
];

/// Which cgroup it is.
const CGROUP: &[&str] = &["CGROUP_KN", "CGROUP_LEVEL", "CGROUP_ROOT", "ROOT_HIERARCHY", "KN_ID"];

const SIGNAL: Part = need(&["signal_generate"], Hook::Raw("signal_generate"));
const MARK: Part = need(&["mark_victim_task", "mark_victim_pid"], Hook::Raw("mark_victim"));

const OOM_FENTRY: Rung = Rung {
    offsets: TASK_AND_DECISION,
    fields: &[],
    parts: &[
        need(&["oom_decision_fentry"], Hook::Entry(super::offsets::OOM_KILL_PROCESS)),
        may(&["reclaim_machine"], Hook::Raw("mm_vmscan_direct_reclaim_begin")),
        may(&["reclaim_cgroup"], Hook::Raw("mm_vmscan_memcg_reclaim_begin")),
        SIGNAL,
        MARK,
    ],
};

const OOM_KPROBE: Rung = Rung {
    offsets: TASK_AND_DECISION,
    fields: &[],
    parts: &[
        need(&["oom_decision_kprobe"], Hook::Kprobe(super::offsets::OOM_KILL_PROCESS)),
        may(&["reclaim_machine"], Hook::Raw("mm_vmscan_direct_reclaim_begin")),
        may(&["reclaim_cgroup"], Hook::Raw("mm_vmscan_memcg_reclaim_begin")),
        SIGNAL,
        MARK,
    ],
};

/// Here the last reclaim and the walk of each mark stand in for the decision.
const OOM_RAW: Rung = Rung {
    offsets: TASK,
    fields: &[],
    parts: &[
        need(&["reclaim_machine"], Hook::Raw("mm_vmscan_direct_reclaim_begin")),
        need(&["reclaim_cgroup"], Hook::Raw("mm_vmscan_memcg_reclaim_begin")),
        SIGNAL,
        MARK,
    ],
};

const OOM_EVENT: Rung = Rung {
    offsets: &[],
    fields: &["EVENT_MARK_PID", "EVENT_SIGNAL_NUMBER", "EVENT_SIGNAL_CODE", "EVENT_SIGNAL_PID"],
    parts: &[
        may(&["event_reclaim_machine"], Hook::Event("vmscan", "mm_vmscan_direct_reclaim_begin")),
        may(&["event_reclaim_cgroup"], Hook::Event("vmscan", "mm_vmscan_memcg_reclaim_begin")),
        need(&["event_signal_generate"], Hook::Event("signal", "signal_generate")),
        need(&["event_mark_victim"], Hook::Event("oom", "mark_victim")),
    ],
};

const HANG_TYPED: Rung =
    Rung { offsets: TASK, fields: &[], parts: &[need(&["hung_task_btf"], Hook::Typed("sched_process_hang"))] };

const HANG_RAW: Rung =
    Rung { offsets: TASK, fields: &[], parts: &[need(&["hung_task_raw"], Hook::Raw("sched_process_hang"))] };

const HANG_EVENT: Rung = Rung {
    offsets: &[],
    fields: &["EVENT_HANG_PID"],
    parts: &[need(&["event_hung_task"], Hook::Event("sched", "sched_process_hang"))],
};

/// Where an optional part is missing, `docs/last-words.md` tells what is lost.
const PANIC_KPROBE: Rung = Rung {
    offsets: &["TASK_TGID", "TASK_COMM", "TASK_CGROUPS", "CSS_SET_MEMORY", "CSS_CGROUP", "CGROUP_KN", "KN_ID"],
    fields: &[],
    parts: &[
        may(&["panic_hung_task"], Hook::Raw("sched_process_hang")),
        may(&["panic_out_of_memory"], Hook::Kprobe("out_of_memory")),
        may(&["panic_oops"], Hook::Kprobe("oops_enter")),
        need(&["panic_entry"], Hook::Kprobe("panic")),
    ],
};

const LIFE_RAW: Rung = Rung {
    offsets: CGROUP,
    fields: &[],
    parts: &[
        need(&["cgroup_mkdir"], Hook::Raw("cgroup_mkdir")),
        need(&["cgroup_rename"], Hook::Raw("cgroup_rename")),
        need(&["cgroup_rmdir"], Hook::Raw("cgroup_rmdir")),
    ],
};

const LIFE_EVENT: Rung = Rung {
    offsets: &[],
    fields: &["EVENT_CGROUP_ROOT", "EVENT_CGROUP_ID", "EVENT_CGROUP_LEVEL", "EVENT_CGROUP_PATH_LOC"],
    parts: &[
        need(&["event_cgroup_made"], Hook::Event("cgroup", "cgroup_mkdir")),
        need(&["event_cgroup_made"], Hook::Event("cgroup", "cgroup_rename")),
        need(&["event_cgroup_removed"], Hook::Event("cgroup", "cgroup_rmdir")),
    ],
};

/// Ways to learn the paths of cgroups, best first.
pub const CGROUP_LIFE: &[(Method, &Rung)] = &[(Method::RawTracepoint, &LIFE_RAW), (Method::Tracepoint, &LIFE_EVENT)];

/// What `method` of `detector` consists of; `None` if it uses no BPF.
#[must_use]
pub const fn rung(detector: Detector, method: Method) -> Option<&'static Rung> {
    match (detector, method) {
        (Detector::Oom, Method::Fentry) => Some(&OOM_FENTRY),
        (Detector::Oom, Method::Kprobe) => Some(&OOM_KPROBE),
        (Detector::Oom, Method::RawTracepoint) => Some(&OOM_RAW),
        (Detector::Oom, Method::Tracepoint) => Some(&OOM_EVENT),
        (Detector::HungTask, Method::BtfTracepoint) => Some(&HANG_TYPED),
        (Detector::HungTask, Method::RawTracepoint) => Some(&HANG_RAW),
        (Detector::HungTask, Method::Tracepoint) => Some(&HANG_EVENT),
        (Detector::Panic, Method::Kprobe) => Some(&PANIC_KPROBE),
        (_, Method::Kmsg) | (Detector::Oom, Method::BtfTracepoint) | (Detector::HungTask | Detector::Panic, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all() -> Vec<&'static Rung> {
        let of = |detector: Detector| {
            detector.methods().iter().filter_map(move |method| rung(detector, *method)).collect::<Vec<_>>()
        };
        Detector::ALL.into_iter().flat_map(of).chain(CGROUP_LIFE.iter().map(|(_, rung)| *rung)).collect()
    }

    #[test]
    fn every_method_but_the_log_has_programs() {
        for detector in Detector::ALL {
            for method in detector.methods() {
                assert_eq!(rung(detector, *method).is_none(), *method == Method::Kmsg, "{detector} {method}");
            }
        }
    }

    #[test]
    fn what_a_rung_needs_is_a_global_that_exists() {
        macro_rules! names {
            ($($name:ident),* $(,)?) => { BTreeSet::from([$(stringify!($name)),*]) };
        }
        let offsets = detector_common::for_each_offset!(names);
        let fields = detector_common::for_each_event_field!(names);
        for rung in all() {
            assert!(rung.offsets.iter().all(|name| offsets.contains(name)), "{rung:?}");
            assert!(rung.fields.iter().all(|name| fields.contains(name)), "{rung:?}");
        }
    }

    #[test]
    fn a_rung_by_classic_tracepoints_needs_no_structure_of_the_kernel() {
        for rung in all() {
            let classic = rung.parts.iter().any(|part| matches!(part.hook, Hook::Event(..)));
            assert_eq!(classic, rung.offsets.is_empty(), "{rung:?}");
        }
    }
}
