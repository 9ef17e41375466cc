//! Metrics that the agent serves at `/metrics`: names, kinds, labels and what they mean.
//!
//! A name or a label is renamed or removed only with a deprecation. Labels have closed sets of values, but for those that
//! name a container: their series are bounded by a setting and end a set time after the pod is gone.

#[cfg(feature = "controller")]
pub mod controller;
mod losses;
pub mod netconsole;
mod previous_boot;
mod reference;
mod words;

pub use self::{losses::*, previous_boot::PREVIOUS_BOOT_CRASHES, reference::reference, words::*};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, but for a restart of what it counts.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Observations by size.
    Histogram,
}

impl Kind {
    /// Its name in the exposition.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Values that a label can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// These.
    Words(&'static [&'static str]),
    /// Those of the pairs with the label before it, as [`LOSSES`] lists them.
    Losses,
    /// Names that others chose; the text says whose.
    Names(&'static str),
}

/// A label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name as it is queried, `_total` included.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its unit, which is then also the end of the name; `None`: a number of things.
    pub unit: Option<&'static str>,
    /// Its labels.
    pub labels: &'static [Label],
    /// What it means, in a sentence or two.
    pub help: &'static str,
}

const fn words(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values: Values::Words(values) }
}

const NAMESPACE: Label =
    Label { name: "namespace", values: Values::Names("of the pod; empty outside of pods and where never learned") };
const POD: Label =
    Label { name: "pod", values: Values::Names("its name; its uid where the name was never learned; else empty") };
const CONTAINER: Label = Label {
    name: "container",
    values: Values::Names(
        "its name; the first 12 digits of its id where the name was never learned; empty for a process of the pod in no \
         container",
    ),
};

/// Kills by container.
pub const CONTAINER_OOM_KILLS: Metric = Metric {
    name: "detector_container_oom_kills_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[NAMESPACE, POD, CONTAINER],
    help: "Processes of the container that the OOM killer killed. Zero from the moment that the container is seen; goes \
           on over restarts of the container and of the agent; ends a set time after the pod is gone.",
};

/// Kills by container, process and limit.
pub const CONTAINER_OOM_KILLS_BY: Metric = Metric {
    name: "detector_container_oom_kills_by_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[NAMESPACE, POD, CONTAINER, words("process", KilledProcess::WORDS), words("limit", HitLimit::WORDS)],
    help: "The same kills by which process it was and whose limit was hit. A process of a container that the kernel kills \
           as a whole (memory.oom.group, the default of kubelet on cgroup v2) is a group one, whichever it was. Only \
           combinations that happened, so that the first kill of one shows as 1: alert on \
           detector_container_oom_kills_total.",
};

/// Decisions by container.
pub const CONTAINER_OOM_DECISIONS: Metric = Metric {
    name: "detector_container_oom_decisions_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[NAMESPACE, POD, CONTAINER],
    help: "Decisions of the OOM killer that killed processes of the container: a group kill is one, however many processes \
           died. A kill of which no record came is taken for a decision of its own. Zero, going on and ending as \
           detector_container_oom_kills_total.",
};

/// Kills on the node.
pub const NODE_OOM_KILLS: Metric = Metric {
    name: "detector_node_oom_kills_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("limit", HitLimit::WORDS)],
    help: "Processes that the OOM killer killed on this node, in containers or not, by whose limit was hit.",
};

/// Tasks that hang now.
pub const HUNG_TASKS: Metric = Metric {
    name: "detector_hung_tasks",
    kind: Kind::Gauge,
    unit: None,
    labels: &[words("class", HungClass::WORDS)],
    help: "Tasks that hang now in uninterruptible sleep: processes that the node needs to run containers, and all others.",
};

/// Happenings told.
pub const EVENTS: Metric = Metric {
    name: "detector_events_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("kind", Happening::WORDS)],
    help: "What happened and was told: processes killed, tasks that began to hang.",
};

/// Happenings told in part.
pub const EVENTS_UNRESOLVED: Metric = Metric {
    name: "detector_events_unresolved_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("kind", Happening::WORDS), words("missing", Unresolved::WORDS)],
    help: "Happenings told without the path of the cgroup, or without names of the pod or container.",
};

/// What was lost.
pub const EVENTS_LOST: Metric = Metric {
    name: "detector_events_lost_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("stage", LossStage::WORDS), Label { name: "kind", values: Values::Losses }],
    help: "What was lost, by the stage that lost it: records, lines of the kernel's log, news of containers, writes.",
};

/// Records read.
pub const RECORDS_READ: Metric = Metric {
    name: "detector_records_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("kind", RECORDS)],
    help: "Records of the kernel side and lines of the kernel's log that were read.",
};

/// Records without a copy in the spool.
pub const RECORDS_UNSPOOLED: Metric = Metric {
    name: "detector_records_unspooled_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Records that could not be written to the spool. They were told, but would have been lost with a sudden end of \
           the agent.",
};

/// Searches for names.
pub const NAME_READS: Metric = Metric {
    name: "detector_name_reads_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("result", NameRead::WORDS)],
    help: "Reads of the container runtimes' files for the names of a container, by what came of them.",
};

/// What had no room in what is known of cgroups.
pub const LOCATE_REFUSALS: Metric = Metric {
    name: "detector_locate_refusals_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("what", Unlocated::WORDS)],
    help: "Times that a cgroup, a pod or the search for names found no room, or the memory of what is gone was cut short. \
           What happens there is told, perhaps without path or names.",
};

/// Value of the label `method` for a detector that stays off, because this node offers it no method.
pub const NO_METHOD: &str = "none";

/// Method in use.
pub const PROBE_ATTACHED: Metric = Metric {
    name: "detector_probe_attached",
    kind: Kind::Gauge,
    unit: None,
    labels: &[
        words("probe", &["oom", "hung_task", "panic"]),
        words("method", &["fentry", "kprobe", "btf_tracepoint", "raw_tracepoint", "tracepoint", "kmsg", NO_METHOD]),
    ],
    help: "1 for the method by which a detector watches now, 0 for its other methods. `none` is 1 where no method worked at \
           the start and the setting `best` lets the detector stay off. All 0: it lost its method and is blind.",
};

/// From the kernel to the API.
pub const EVENT_DELAY: Metric = Metric {
    name: "detector_event_delay_seconds",
    kind: Kind::Histogram,
    unit: Some("seconds"),
    labels: &[words("stage", &["written"])],
    help: "From the time that the kernel did it to the answer of the API server to the write that tells it.",
};

/// Upper bounds of its buckets, in seconds: from a write at once to one after an outage of an hour.
pub const EVENT_DELAY_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

/// The kernel's count less ours.
pub const OOM_UNACCOUNTED: Metric = Metric {
    name: "detector_oom_unaccounted_kills",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "The kernel's own count of OOM kills less ours since the start. Absent until it was compared.",
};

/// Kills waiting for names.
pub const HELD_KILLS: Metric = Metric {
    name: "detector_held_kills",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Kills that wait for the names of their container before they are told.",
};

/// Ends of waits for names.
pub const HELD_ENDED: Metric = Metric {
    name: "detector_held_ended_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("end", HoldEnd::WORDS)],
    help: "Kills and hangs that waited for names, by how that ended: all of them were told.",
};

/// Writes that wait.
pub const QUEUE_DEPTH: Metric = Metric {
    name: "detector_queue_depth",
    kind: Kind::Gauge,
    unit: None,
    labels: &[words("queue", Queue::WORDS)],
    help: "Writes to the API that wait.",
};

/// Writes that ended.
pub const API_WRITES: Metric = Metric {
    name: "detector_api_writes_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("kind", WriteKind::WORDS), words("result", WriteResult::WORDS)],
    help: "Writes to the API by how they ended.",
};

/// Writes that no budget had room for.
pub const BUDGET_REFUSALS: Metric = Metric {
    name: "detector_budget_refusals_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("budget", BudgetKind::WORDS)],
    help: "Times that a write to the API had to wait because a budget was spent.",
};

/// Series that were not made.
pub const SERIES_REFUSED: Metric = Metric {
    name: "detector_series_refused_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("metric", BoundedMetric::WORDS)],
    help: "Times that a metric had no room for one more series: it was not made, or that of a pod long gone ended early.",
};

/// Bounds of the number of series.
pub const SERIES_LIMIT: Metric = Metric {
    name: "detector_series_limit",
    kind: Kind::Gauge,
    unit: None,
    labels: &[words("metric", BoundedMetric::WORDS)],
    help: "Series that a metric may have, as metrics.series says; for detector_hung_tasks tasks that are told apart.",
};

/// Lines that were not written.
pub const LINES_DROPPED: Metric = Metric {
    name: "detector_lines_dropped_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("what", DroppedLine::WORDS)],
    help: "Lines of the agent's own log and of its standard output that were not written.",
};

/// Reloads of the configuration.
pub const CONFIG_RELOADS: Metric = Metric {
    name: "detector_config_reloads_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("result", Reload::WORDS)],
    help: "Reloads of the configuration.",
};

/// Whether the file of settings is refused.
pub const CONFIG_REFUSED: Metric = Metric {
    name: "detector_config_refused",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "1 while the configuration file breaks a rule, so that an older one is in force; 0 else.",
};

/// State that was not saved.
pub const STATE_WRITE_FAILURES: Metric = Metric {
    name: "detector_state_write_failures_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("reason", StateFailure::WORDS)],
    help: "Times that the state which survives a restart could not be saved.",
};

/// The build.
pub const BUILD_INFO: Metric = Metric {
    name: "detector_build_info",
    kind: Kind::Gauge,
    unit: None,
    labels: &[
        Label { name: "version", values: Values::Names("of the program") },
        Label { name: "abi", values: Values::Names("version of the layout of records") },
    ],
    help: "Always 1.",
};

/// Processor time of the agent.
pub const PROCESS_CPU: Metric = Metric {
    name: "process_cpu_seconds_total",
    kind: Kind::Counter,
    unit: Some("seconds"),
    labels: &[],
    help: "Processor time that the agent used, in user mode and in the kernel.",
};

/// Memory of the agent.
pub const PROCESS_RESIDENT: Metric = Metric {
    name: "process_resident_memory_bytes",
    kind: Kind::Gauge,
    unit: Some("bytes"),
    labels: &[],
    help: "Resident memory of the agent.",
};

/// Start of the agent.
pub const PROCESS_START: Metric = Metric {
    name: "process_start_time_seconds",
    kind: Kind::Gauge,
    unit: Some("seconds"),
    labels: &[],
    help: "When the agent started, since 1970 UTC.",
};

/// Open files of the agent.
pub const PROCESS_OPEN_FDS: Metric = Metric {
    name: "process_open_fds",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "File descriptors that the agent has open.",
};

/// Limit of open files.
pub const PROCESS_MAX_FDS: Metric = Metric {
    name: "process_max_fds",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "File descriptors that the agent may have open.",
};

/// All of them, in the order in which they are served.
pub const METRICS: &[&Metric] = &[
    &CONTAINER_OOM_KILLS,
    &CONTAINER_OOM_DECISIONS,
    &CONTAINER_OOM_KILLS_BY,
    &NODE_OOM_KILLS,
    &HUNG_TASKS,
    &PREVIOUS_BOOT_CRASHES,
    &EVENTS,
    &EVENTS_UNRESOLVED,
    &EVENTS_LOST,
    &RECORDS_READ,
    &RECORDS_UNSPOOLED,
    &NAME_READS,
    &LOCATE_REFUSALS,
    &PROBE_ATTACHED,
    &EVENT_DELAY,
    &OOM_UNACCOUNTED,
    &HELD_KILLS,
    &HELD_ENDED,
    &QUEUE_DEPTH,
    &API_WRITES,
    &BUDGET_REFUSALS,
    &SERIES_REFUSED,
    &SERIES_LIMIT,
    &LINES_DROPPED,
    &CONFIG_RELOADS,
    &CONFIG_REFUSED,
    &STATE_WRITE_FAILURES,
    &BUILD_INFO,
    &PROCESS_CPU,
    &PROCESS_RESIDENT,
    &PROCESS_START,
    &PROCESS_OPEN_FDS,
    &PROCESS_MAX_FDS,
];

impl Metric {
    /// Name of the metric family as OpenMetrics has it: without `_total`.
    #[must_use]
    pub fn family(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_rules_of_the_format() {
        let mut seen = BTreeSet::new();
        for metric in METRICS {
            assert!(seen.insert(metric.family()), "{} stands twice", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            if let Some(unit) = metric.unit {
                assert!(metric.family().ends_with(&format!("_{unit}")), "{} ends with its unit", metric.name);
            }
            assert!(!metric.help.contains(['\n', '\\']) && metric.help.ends_with('.'), "{}", metric.help);
        }
    }

    #[test]
    fn a_bounded_metric_is_one_of_ours() {
        for word in BoundedMetric::WORDS {
            assert!(METRICS.iter().any(|metric| metric.name == *word), "{word}");
        }
    }
}
