//! What the flow on one node is asked to do, in its checked form; and the names of detectors and their methods.

use std::{fmt, time::Duration};

use thiserror::Error;

/// What is said where this process lives in a pid namespace of its own.
pub const FOREIGN_PIDS: &str = "this process lives in a pid namespace of its own (a container without the host's): tasks that the \
    kernel names cannot be looked up in /proc, so that the end of a hang shows late and method `tracepoint` finds no process";

/// Settings of one run. What is `None` is left to the program or has no end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Stop after so many happenings (kills, and tasks that begin to hang); at least 1.
    pub count: Option<u64>,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// What to watch: which detectors run, and how.
    pub detectors: Chosen,
}

/// Detectors that run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// OOM kills.
    pub oom: Choice,
    /// Hung tasks.
    pub hung_task: Choice,
    /// Last words of the kernel.
    pub panic: Choice,
}

impl Chosen {
    /// What was chosen for `detector`.
    #[must_use]
    pub const fn of(&self, detector: Detector) -> Choice {
        match detector {
            Detector::Oom => self.oom,
            Detector::HungTask => self.hung_task,
            Detector::Panic => self.panic,
        }
    }
}

/// Whether a detector runs, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// By the best method that works; without any it stays off, and that is told.
    #[default]
    Best,
    /// By the best method that works; without any the program fails, because the detector was asked for by name.
    Required,
    /// By this method and no other.
    Forced(Method),
    /// Not at all.
    Off,
}

/// What can be watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Detector {
    /// Kills by the OOM killer.
    Oom,
    /// Tasks that hang in uninterruptible sleep.
    HungTask,
    /// Last words of a kernel that dies: it tells nothing to this program, and the kernel's log names the suspect.
    Panic,
}

impl Detector {
    /// All of them, in the order in which outputs list them.
    pub const ALL: [Self; 3] = [Self::Oom, Self::HungTask, Self::Panic];

    /// Its name on the command line and in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oom => "oom",
            Self::HungTask => "hung_task",
            Self::Panic => "panic",
        }
    }

    /// Whether it tells this program of anything. One that does not is no reason to run, or to be called ready.
    #[must_use]
    pub const fn tells(self) -> bool {
        !matches!(self, Self::Panic)
    }

    /// Its ladder: methods, best first.
    #[must_use]
    pub const fn methods(self) -> &'static [Method] {
        match self {
            Self::Oom => &[Method::Fentry, Method::Kprobe, Method::RawTracepoint, Method::Tracepoint, Method::Kmsg],
            Self::HungTask => &[Method::BtfTracepoint, Method::RawTracepoint, Method::Tracepoint, Method::Kmsg],
            // No trampoline takes a function with a variable number of arguments, which `panic` is.
            Self::Panic => &[Method::Kprobe],
        }
    }

    /// The detector of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn of_name(name: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|detector| detector.name() == name).ok_or_else(|| UnknownName::Detector {
            name: name.to_owned(),
            known: listed(Self::ALL.iter().map(|detector| detector.name())),
        })
    }

    /// Its method of that name.
    ///
    /// # Errors
    /// If it has no such method.
    pub fn method_of_name(self, name: &str) -> Result<Method, UnknownName> {
        self.methods().iter().copied().find(|method| method.name() == name).ok_or_else(|| UnknownName::Method {
            name: name.to_owned(),
            detector: self.name(),
            known: listed(self.methods().iter().map(|method| method.name())),
        })
    }
}

impl fmt::Display for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A way to learn of something: a rung of a ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// OOM: raw tracepoint `mark_victim`, joined with the decision by a trampoline on `oom_kill_process`.
    Fentry,
    /// OOM: the same with a kprobe in place of the trampoline. Panic: kprobes on `panic` and on what leads to it.
    Kprobe,
    /// Hung tasks: a program that the kernel gives typed arguments, so that it may ask for the task's stack.
    BtfTracepoint,
    /// Raw tracepoints alone. For hung tasks the stack is then read from `/proc`.
    RawTracepoint,
    /// Classic tracepoints, whose fields tracefs describes, and `/proc`: needs no BTF.
    Tracepoint,
    /// The kernel's log, read from `/dev/kmsg`: needs no BPF.
    Kmsg,
}

impl Method {
    /// Its name on the command line and in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::BtfTracepoint => "btf_tracepoint",
            Self::RawTracepoint => "raw_tracepoint",
            Self::Tracepoint => "tracepoint",
            Self::Kmsg => "kmsg",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnknownName {
    /// No detector.
    #[error("`{name}` is no detector: must be {known}")]
    Detector {
        /// What was given.
        name: String,
        /// What there is.
        known: String,
    },
    /// No method of a detector.
    #[error("`{name}` is no method of detector `{detector}`: must be {known}")]
    Method {
        /// What was given.
        name: String,
        /// Whose method it was to be.
        detector: &'static str,
        /// What there is.
        known: String,
    },
}

/// Names as a sentence lists them: `a`, `b` or `c`.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.pop() {
        Some(last) if !names.is_empty() => format!("{} or {last}", names.join(", ")),
        last => last.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_detector_and_each_method_is_found_by_its_name() {
        for detector in Detector::ALL {
            assert_eq!(Detector::of_name(detector.name()), Ok(detector));
            for method in detector.methods() {
                assert_eq!(detector.method_of_name(method.name()), Ok(*method));
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_all_that_there_are() {
        let error = Detector::Oom.method_of_name("FENTRY").expect_err("names are exact");
        assert_eq!(
            error.to_string(),
            "`FENTRY` is no method of detector `oom`: must be `fentry`, `kprobe`, `raw_tracepoint`, `tracepoint` or `kmsg`"
        );
        let error = Detector::of_name("tcp").expect_err("no such detector");
        assert_eq!(error.to_string(), "`tcp` is no detector: must be `oom`, `hung_task` or `panic`");
    }

    #[test]
    fn a_detector_has_no_method_of_another() {
        assert!(Detector::Oom.method_of_name("btf_tracepoint").is_err());
        assert!(Detector::HungTask.method_of_name("fentry").is_err());
    }
}
