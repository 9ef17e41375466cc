//! The flow of kills: a mark is completed, placed, judged and told.

use std::sync::Arc;

use super::{Pipeline, Progress, completion};
use crate::agent::{
    decode::{CgroupKey, OomMark, event::Comm},
    locate::Place,
    options::{Detector, Method},
    problem::{OomKill, Transition, oom::Verdict},
    source::Records,
    watch::AgentError,
};

impl Pipeline<'_> {
    /// Takes in the mark of a task.
    pub(super) fn marked(&mut self, mut mark: OomMark, records: &mut impl Records) -> Result<Progress, AgentError> {
        let tid = mark.victim.pid;
        if self.sees_tasks {
            completion::complete(&mut mark, &self.root);
        }
        let place = match (mark.victim.cgroup, mark.victim.pid) {
            (None, Some(tid)) => self.place_of_living(tid, mark.victim.comm, mark.stamp.boot_ns).map(|(key, place)| {
                mark.victim.cgroup = Some(key);
                place
            }),
            (cgroup, tid) => self.place(cgroup, tid, mark.stamp.boot_ns, records)?,
        };
        let verdict = self.rules.judge(mark, place, self.oom_method.unwrap_or(Method::RawTracepoint));
        // The kernel logs no kill of a task that was already dying: if it does, the record was wrong.
        if let (Some(tid), Verdict::Kill(_) | Verdict::Duplicate) = (tid, &verdict) {
            self.saw_record(Detector::Oom, tid);
        }
        match verdict {
            Verdict::Kill(kill) => {
                self.decided(&kill);
                self.tell(kill)
            }
            Verdict::AlreadyDying | Verdict::Duplicate => Ok(Progress::Waiting),
        }
    }

    /// A record came: lines of the log on the same task need no other.
    pub(super) fn saw_record(&mut self, detector: Detector, tid: u32) {
        self.misses.remove(&detector);
        self.log.witness().saw_record(detector, tid, (self.clock)());
    }

    /// Where a task lives, if it does: the dead are shown in the root cgroup (Linux 7).
    pub(super) fn place_of_living(
        &mut self,
        tid: u32,
        comm: Option<Comm>,
        boot_ns: u64,
    ) -> Option<(CgroupKey, Arc<Place>)> {
        let found = self.locator.place_by_pid(tid, boot_ns).filter(|_| self.sees_tasks)?;
        completion::is_alive(&self.root, tid, comm, boot_ns).then_some(found)
    }

    /// Counts kills in a row whose decision a probe should have told and did not.
    fn decided(&mut self, kill: &OomKill) {
        let by_probe = matches!(kill.method, Method::Fentry | Method::Kprobe);
        self.undecided = if by_probe && kill.mark.decision.is_none() { self.undecided + 1 } else { 0 };
    }

    /// Tells a kill.
    pub(super) fn tell(&mut self, kill: Box<OomKill>) -> Result<Progress, AgentError> {
        self.reckoning.killed(&kill);
        self.unresolved += u64::from(kill.place.is_none());
        self.tell_container_at(kill.place.as_deref())?;
        self.sink.transition(&Transition::OomKilled(kill)).map_err(AgentError::Output)?;
        Ok(self.count_down(1))
    }
}
