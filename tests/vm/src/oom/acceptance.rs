//! What each method of the OOM detector must tell. The better ones tell all; the others must never tell what is wrong.

/// What must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acceptance {
    /// Each fact but the process itself may be unknown.
    pub(crate) lenient: bool,
    /// The thread that the kernel names may stand for its process.
    pub(crate) thread_for_process: bool,
    /// The memory of the victim must be told.
    pub(crate) memory: bool,
    /// Tasks that were already dying are marked, and must be counted as such.
    pub(crate) already_dying: bool,
    /// Group kills must be told as such, so that the kernel's counting their first victim twice is explained.
    pub(crate) groups: bool,
}

/// Every fact.
const WHOLE: Acceptance =
    Acceptance { lenient: false, thread_for_process: false, memory: true, already_dying: true, groups: true };

impl Acceptance {
    /// That of a method. `memory_in_tracepoint`: whether the running kernel's `mark_victim` tells the victim's memory.
    pub(crate) fn of(method: &str, memory_in_tracepoint: bool) -> Self {
        match method {
            "tracepoint" => Self { lenient: true, memory: memory_in_tracepoint, groups: false, ..WHOLE },
            // The log has no line for a mark without a kill.
            "kmsg" => Self { lenient: true, thread_for_process: true, already_dying: false, ..WHOLE },
            _ => WHOLE,
        }
    }

    /// Whether all methods with it must tell the same.
    pub(crate) fn is_whole(self) -> bool {
        self == WHOLE
    }
}

/// Whether the running kernel's tracepoint `mark_victim` tells more than a number: so does Linux 6.10 and what it was
/// ported back to.
pub(crate) fn memory_in_tracepoint() -> bool {
    let format = std::fs::read_to_string("/sys/kernel/tracing/events/oom/mark_victim/format");
    format.is_ok_and(|text| text.contains("anon_rss"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lower_rungs_may_leave_something_out() {
        for method in ["fentry", "kprobe", "raw_tracepoint"] {
            assert!(Acceptance::of(method, false).is_whole(), "{method}");
        }
        assert!(Acceptance::of("tracepoint", true).lenient && Acceptance::of("kmsg", true).lenient);
        assert!(Acceptance::of("tracepoint", true).memory && !Acceptance::of("tracepoint", false).memory);
    }
}
