//! What the kernel's log tells, on its way to the sink; and what else is due without a record.

use std::time::Duration;

use super::{Pipeline, Progress, log::Logged};
use crate::{
    agent::{
        decode::log_clock::Now,
        options::{Detector, Method},
        problem::{
            oom::{Located, Verdict},
            oom_log::{LoggedDomain, LoggedKill},
            witness::GRACE_NS,
        },
        sink::{MethodChange, Stage},
        watch::AgentError,
    },
    clock::{self, BootClock},
};

/// Kills without their decision after which its probe counts as dead. The kernel passes a kprobe over now and then, if
/// its CPU is in another BPF program (`trace_call_bpf`, `kernel/trace/bpf_trace.c`): one of a thousand under load.
const UNDECIDED: u32 = 3;

/// Records in a row that may be missing of classic tracepoints, for the same reason.
const PASSED_OVER: u32 = 3;

/// A detector whose method missed what the log told.
pub struct Silent {
    /// Which one.
    pub detector: Detector,
    /// What was missed, in a sentence.
    pub reason: String,
}

impl Pipeline<'_> {
    /// Takes in a record of the kernel's log; `lost`: so many before it were overwritten unread.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn take_line(&mut self, record: &[u8], lost: u64) -> Result<Progress, AgentError> {
        if lost > 0 {
            // A witness alone may miss a line.
            if Detector::ALL.into_iter().any(|detector| self.method_of(detector) == Some(Method::Kmsg)) {
                self.losses.log_overrun(lost);
            }
            self.note_many(Stage::Source, "log_overrun", lost, || {
                "the kernel's log was overwritten before it was read".to_owned()
            });
            for logged in self.log.lost() {
                self.hear(logged)?;
            }
        }
        self.reads.line();
        match self.log.line(record, now(self.clock)) {
            Ok(told) => {
                if self.log.takes_silence() && self.hung_task_method == Some(Method::Kmsg) {
                    self.note(Stage::Source, "log_silent_on_hangs", || {
                        "the kernel's log tells of no further hung task (kernel.hung_task_warnings is used up)"
                            .to_owned()
                    });
                }
                for logged in told {
                    self.hear(logged)?;
                }
            }
            Err(error) => {
                self.losses.unreadable_line(error);
                self.note(Stage::Decode, error.reason(), || error.to_string());
            }
        }
        Ok(self.progress())
    }

    /// The log was read to its end.
    pub fn log_was_read(&mut self) {
        // A kill that is held back was read, but its record not yet asked for.
        if !self.log.holds() {
            let now = (self.clock)();
            self.log.witness().log_was_read(now);
        }
    }

    /// Does what is due without a record: looks at hung tasks, gives up on records that the log says should have come,
    /// tells notices. Returns the detectors that missed something.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn look_after(&mut self) -> Result<Vec<Silent>, AgentError> {
        let now = (self.clock)();
        self.locator.look_after(now);
        for logged in self.log.release(now) {
            self.hear(logged)?;
        }
        let mut silent: Vec<Silent> = Vec::new();
        for (detector, logged) in self.log.witness().overdue(self.drained_ns) {
            let (reason, boot_ns) = (missed(&logged), logged.boot_ns());
            let dying = self.rules.counts().already_dying;
            self.tell_logged(logged)?;
            // Its record came, and called it already dying.
            let seen = self.rules.counts().already_dying < dying;
            if seen || self.is_excused(detector, boot_ns, now) {
                continue;
            }
            let misses = self.misses.entry(detector).or_default();
            *misses += 1;
            let passed_over = if self.method_of(detector) == Some(Method::Tracepoint) { PASSED_OVER } else { 1 };
            if self.misses.get(&detector).is_some_and(|misses| *misses >= passed_over) {
                self.misses.remove(&detector);
                silent.push(Silent { detector, reason });
            }
        }
        if self.undecided >= UNDECIDED {
            self.undecided = 0;
            let reason = format!("{UNDECIDED} kills in a row came without their decision: its probe is called no more");
            silent.push(Silent { detector: Detector::Oom, reason });
        }
        self.poll_hangs()?;
        self.end_batch()?;
        Ok(silent)
    }

    /// Whether nothing follows from a missing record: records were lost of late, or the method changed, and what happened
    /// meanwhile no program could see.
    fn is_excused(&self, detector: Detector, boot_ns: u64, now: u64) -> bool {
        let in_the_gap = self.changed_ns.get(&detector).is_some_and(|at| boot_ns <= at.saturating_add(GRACE_NS));
        in_the_gap || self.losses.last_of(detector).is_some_and(|at| now.saturating_sub(at) <= 2 * GRACE_NS)
    }

    /// How long until [`Pipeline::look_after`] has something to do; `None`: nothing waits.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let own = [self.notices.next_due(), self.log.next_due(), self.hangs.poll_at_ns()];
        let others = [self.locator.next_due(), self.sink.next_due()];
        let due = own.into_iter().chain(others).flatten().min()?;
        Some(Duration::from_nanos(due.saturating_sub((self.clock)())))
    }

    /// A detector goes on by another method. What the log told and still waits for a record of the former is told.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn method_changed(&mut self, change: &MethodChange) -> Result<(), AgentError> {
        self.sink.method_changed(change).and_then(|()| self.sink.flush()).map_err(AgentError::Output)?;
        for logged in self.log.witness().take(change.detector) {
            self.tell_logged(logged)?;
        }
        self.set_method(change.detector, change.now);
        self.attached_anew(change.detector);
        Ok(())
    }

    /// The programs of a detector were attached anew: what happened just before they could not see.
    pub fn attached_anew(&mut self, detector: Detector) {
        self.changed_ns.insert(detector, (self.clock)());
    }

    /// Tells what the log told and no record did, now that all records have been read.
    pub(super) fn end_of_log(&mut self) -> Result<(), AgentError> {
        for logged in self.log.finish() {
            self.hear(logged)?;
        }
        for detector in Detector::ALL {
            for logged in self.log.witness().take(detector) {
                self.tell_logged(logged)?;
            }
        }
        Ok(())
    }

    /// Records of cgroup life ceased to come, for `reason`; `mended`: the method by which they come again. What was made
    /// meanwhile is learned by a walk.
    pub fn cgroup_life_broke(&mut self, reason: &str, mended: Result<Method, String>) {
        self.note(Stage::Source, "cgroup_life_broke", || match mended {
            Ok(method) => format!("{reason}; attached anew by {method}"),
            Err(refused) => format!("{reason}; new cgroups will have no known path: {refused}"),
        });
        self.walk_owed = true;
        self.walk_if_owed((self.clock)());
    }

    /// What the log tells is told if the detector lives by the log, else it waits for its record.
    fn hear(&mut self, logged: Logged) -> Result<(), AgentError> {
        let detector = logged.detector();
        match (self.method_of(detector), logged.tid()) {
            (None, _) => Ok(()),
            (Some(Method::Kmsg), _) | (Some(_), None) => self.tell_logged(logged),
            (Some(_), Some(tid)) => {
                let read_ns = self.log.read_ns();
                match self.log.witness().saw_line(detector, tid, read_ns, logged) {
                    Some(beyond) => self.tell_logged(beyond),
                    None => Ok(()),
                }
            }
        }
    }

    fn tell_logged(&mut self, logged: Logged) -> Result<(), AgentError> {
        if self.progress() == Progress::Enough {
            return Ok(());
        }
        match logged {
            Logged::Kill(kill) => self.tell_logged_kill(*kill).map(drop),
            Logged::Hang(event) => self.hung_by_log(*event).map(drop),
        }
    }

    fn tell_logged_kill(&mut self, kill: LoggedKill) -> Result<Progress, AgentError> {
        let boot_ns = kill.mark.stamp.boot_ns;
        let (mut located, exact) = (Located::default(), kill.cgroup_path.is_some());
        if let Some(path) = kill.located_path() {
            let (key, place) = self.locator.place_by_path(path, boot_ns);
            located.cgroup = key.filter(|_| exact);
            located.place = Some(place);
        } else if let Some((key, place)) =
            kill.mark.victim.pid.and_then(|pid| self.place_of_living(pid, kill.mark.victim.comm, boot_ns))
        {
            // It may not be gone yet.
            located.cgroup = Some(key);
            located.place = Some(place);
        }
        if let LoggedDomain::Cgroup(path) = &kill.domain {
            located.domain = self.locator.place_by_path(path, boot_ns).0;
        }
        match self.rules.judge_logged(kill, located, Method::Kmsg) {
            Verdict::Kill(kill) => self.tell(kill),
            Verdict::AlreadyDying | Verdict::Duplicate => Ok(Progress::Waiting),
        }
    }
}

/// The clocks by which lines are dated.
pub(super) fn now(clock: BootClock) -> Now {
    let boot_ns = clock();
    Now { boot_ns, monotonic_ns: boot_ns.saturating_sub(clock::suspended_ns()) }
}

fn missed(logged: &Logged) -> String {
    let tid = logged.tid().unwrap_or(0);
    match logged {
        Logged::Kill(_) => format!("the kernel's log told of the kill of thread {tid}, and no record came"),
        Logged::Hang(_) => format!("the kernel's log told that thread {tid} hangs, and no record came"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_names_the_thread() {
        let mut log = crate::agent::pipeline::log::Log::new(4096, 4_000_000, now(&|| 5_000_000_000));
        let line = b"3,1,4000000,-;INFO: task cp:812 blocked for more than 122 seconds.\n";
        log.line(line, now(&|| 5_000_000_000)).expect("a record");
        assert_eq!(missed(&log.finish()[0]), "the kernel's log told that thread 812 hangs, and no record came");
    }
}
