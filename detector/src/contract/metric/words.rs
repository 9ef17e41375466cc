//! Closed sets of words: the only values that most labels of our metrics can have.

/// Declares an enum whose members are words, with the doc comment that the reference shows.
macro_rules! words {
    ($(
        $(#[doc = $doc:literal])+
        pub enum $name:ident {
            $( $(#[doc = $member_doc:literal])+ $member:ident = $word:literal, )+
        }
    )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $( $(#[doc = $member_doc])+ $member, )+
        }

        impl $name {
            /// All members.
            pub const ALL: &[Self] = &[$(Self::$member),+];
            /// Their words, in the same order.
            pub const WORDS: &[&str] = &[$($word),+];

            /// Its word in every output.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$member => $word),+ }
            }

            /// The member with that word.
            #[must_use]
            pub fn of_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|member| member.word() == word)
            }
        }
    )+ };
}

#[cfg(feature = "controller")]
pub(super) use words;

words! {
    /// Which process of a container was killed.
    pub enum KilledProcess {
        /// Its first one alone: the container ends.
        Init = "init",
        /// Another one alone: the container lives on.
        Child = "child",
        /// One of all its processes, which the kernel killed at once (`memory.oom.group`): the container ends.
        Group = "group",
        /// Not known.
        Unknown = "unknown",
    }

    /// Whose limit was hit.
    pub enum HitLimit {
        /// The container's own.
        Container = "container",
        /// That of its pod.
        Pod = "pod",
        /// That of a cgroup above the pod.
        Ancestor = "ancestor",
        /// The machine's memory.
        Node = "node",
        /// That of a cgroup within the container.
        Nested = "nested",
        /// That of a cgroup outside of containers.
        Cgroup = "cgroup",
        /// Not known.
        Unknown = "unknown",
    }

    /// Whose task hangs.
    pub enum HungClass {
        /// A process that the node needs to run containers: kubelet, container runtimes, shims, init.
        Runtime = "runtime",
        /// Any other.
        Workload = "workload",
    }

    /// How a boot ended that ended badly.
    pub enum CrashEnd {
        /// In a panic of which a record was found.
        Panic = "panic",
        /// Without a shutdown.
        Unclean = "unclean",
    }

    /// What happened.
    pub enum Happening {
        /// A process was killed by the OOM killer.
        OomKill = "oom_kill",
        /// A task began to hang.
        HungTask = "hung_task",
    }

    /// What could not be found out about whom something happened to.
    pub enum Unresolved {
        /// The path of its cgroup.
        Cgroup = "cgroup",
        /// Names of its pod or container.
        Names = "names",
    }

    /// Stages that can lose something.
    pub enum LossStage {
        /// Reading records.
        Source = "source",
        /// Understanding them.
        Decode = "decode",
        /// Finding who owns a cgroup.
        Locate = "locate",
        /// Making problems of them.
        Problem = "problem",
        /// Handing them on.
        Sink = "sink",
    }

    /// How the wait of a kill or hang for names ended.
    pub enum HoldEnd {
        /// They came.
        Named = "named",
        /// Its time was over before they came.
        Time = "time",
        /// Too many others waited.
        Room = "room",
    }

    /// What came of looking for the names of a container.
    pub enum NameRead {
        /// Its file was read.
        Found = "found",
        /// There was none.
        Missing = "missing",
        /// It could not be read or understood.
        Error = "error",
        /// Reading took too long: who asked went on without.
        Late = "late",
    }

    /// What had no room where owners of cgroups are known.
    pub enum Unlocated {
        /// A cgroup: the path of what happens there is not known.
        Cgroup = "cgroup",
        /// A pod that the API server told of.
        Pod = "pod",
        /// A search for the names of a container.
        Names = "names",
        /// Something dead that was forgotten before its time: a cgroup, a pod, names.
        Forgotten = "forgotten",
    }

    /// Lines that the agent could not write.
    pub enum DroppedLine {
        /// Of its own log: standard error had no room.
        Log = "log",
        /// Of its own log, like many before it: left out, and told as a number with the next.
        LogRepeated = "log_repeated",
        /// Of happenings: standard output had no room.
        Output = "output",
    }

    /// How targets of netconsole are counted.
    pub enum NetconsoleTargets {
        /// Receivers that should have one.
        Wanted = "wanted",
        /// Those of them that have one, enabled as it should be.
        Enabled = "enabled",
        /// Enabled ones that lead elsewhere: to a former receiver, or by a former way.
        Other = "other",
    }

    /// What was done to a target of netconsole.
    pub enum NetconsoleChange {
        /// It was made and enabled.
        Made = "made",
        /// It was told who the node is.
        Labelled = "labelled",
        /// It was removed.
        Removed = "removed",
        /// One of these failed.
        Failed = "failed",
    }

    /// What became of a test at one receiver.
    pub enum SelfTestResult {
        /// It heard the line.
        Heard = "heard",
        /// It did not.
        NotHeard = "not_heard",
        /// It could not be asked, or no line could be written.
        Unknown = "unknown",
    }

    /// Queues of writes.
    pub enum Queue {
        /// Kubernetes events.
        Event = "event",
        /// Node conditions that stand otherwise than they should.
        Condition = "condition",
    }

    /// Writes to the API.
    pub enum WriteKind {
        /// A new event about a pod.
        PodEvent = "pod_event",
        /// A new event about the node.
        NodeEvent = "node_event",
        /// An event that is there, counted on.
        EventSeries = "event_series",
        /// Node conditions.
        Condition = "condition",
    }

    /// How a write ended.
    pub enum WriteResult {
        /// It stands.
        Done = "done",
        /// It stood already.
        AlreadyThere = "already_there",
        /// The event to be counted on is there no more and is made anew, or the namespace is gone and nobody is left to tell.
        Gone = "gone",
        /// It will never stand.
        Final = "final",
        /// It is tried again.
        Retry = "retry",
    }

    /// Budgets of writes.
    pub enum BudgetKind {
        /// That of the whole node.
        Node = "node",
        /// That of one pod.
        Pod = "pod",
    }

    /// How a reload of the configuration ended.
    pub enum Reload {
        /// The new one is in force.
        Applied = "applied",
        /// The new one breaks a rule; the old one stays in force.
        Refused = "refused",
    }

    /// Why the state could not be saved.
    pub enum StateFailure {
        /// No room on the disk, or in a quota.
        DiskFull = "disk_full",
        /// The file system is read-only.
        ReadOnly = "read_only",
        /// No right to write there.
        Permission = "permission",
        /// The state is larger than a state may be.
        TooLarge = "too_large",
        /// Anything else.
        Other = "other",
    }

    /// Metrics whose number of series is bounded.
    pub enum BoundedMetric {
        /// `detector_container_oom_kills_total`.
        Containers = "detector_container_oom_kills_total",
        /// `detector_container_oom_kills_by_total`.
        By = "detector_container_oom_kills_by_total",
        /// `detector_hung_tasks`: tasks that are told apart, not series.
        HungTasks = "detector_hung_tasks",
    }
}

/// Records that are read.
pub const RECORDS: &[&str] = &["oom_mark", "hung_task", "cgroup_made", "cgroup_removed", "kernel_log"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_again_and_a_foreign_one_is_not() {
        for member in HitLimit::ALL {
            assert_eq!(HitLimit::of_word(member.word()), Some(*member));
        }
        assert_eq!(HitLimit::of_word("the moon"), None);
        assert_eq!(HitLimit::WORDS[HitLimit::Node as usize], "node");
    }
}
