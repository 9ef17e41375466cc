//! The flow of hung tasks: as that of kills, and polled while any hangs.

use std::sync::Arc;

use super::{Pipeline, Progress, hangs};
use crate::agent::{
    decode::HungTask,
    locate::Place,
    options::{Detector, Method},
    problem::{
        Hang, Transition,
        hung_task::{MAX_OPEN, OpenHang},
    },
    source::Records,
    watch::AgentError,
};

impl Pipeline<'_> {
    /// Takes over the hangs that an earlier run of this boot told of ([`Handover::hangs`]); to be called before any record is
    /// read.
    ///
    /// [`Handover::hangs`]: crate::agent::sink::Handover::hangs
    pub fn inherit_hangs(&mut self, hangs: &[OpenHang]) {
        let now = (self.clock)();
        for hang in hangs.iter().take(MAX_OPEN) {
            let place = hang.cgroup().and_then(|key| self.locator.place(key, None, now));
            self.hangs.inherit(hang, place, now);
        }
    }

    /// Looks at the tasks that hang, if it is time, and tells which hang no more.
    pub(super) fn poll_hangs(&mut self) -> Result<(), AgentError> {
        let told = self.hangs.poll(self.clock);
        self.tell_hangs(told).map(drop)
    }

    /// Takes in a record of a hung task.
    pub(super) fn hung(&mut self, mut event: HungTask, records: &mut impl Records) -> Result<Progress, AgentError> {
        let now = (self.clock)();
        if let Some(tid) = event.task.pid {
            self.saw_record(Detector::HungTask, tid);
        }
        self.hangs.complete(&mut event);
        self.hangs.doubt_holder(&mut event);
        let (task, boot_ns) = (event.task, event.stamp.boot_ns);
        let place = match task.cgroup {
            Some(_) => self.place(task.cgroup, task.pid, boot_ns, records)?,
            None => self.place_of_task(&mut event),
        };
        let holder_place = match event.lock.flatten().and_then(|lock| lock.holder) {
            Some(holder) => self.place(holder.task.cgroup, holder.task.pid, boot_ns, records)?,
            None => None,
        };
        let method = self.hung_task_method.unwrap_or(Method::RawTracepoint);
        let told = self.hangs.record(event, place, holder_place, method, now);
        self.tell_hangs(told)
    }

    /// Takes in a hung task that the kernel's log told of.
    pub(super) fn hung_by_log(&mut self, mut event: HungTask) -> Result<Progress, AgentError> {
        self.hangs.complete(&mut event);
        let place = self.place_of_task(&mut event);
        let holder = event.lock.flatten().and_then(|lock| lock.holder).map(|holder| holder.task);
        let holder_place = holder.and_then(|task| self.place_of_living(task.pid?, task.comm, event.stamp.boot_ns));
        let holder_place = holder_place.map(|(_, place)| place);
        let told = self.hangs.record(event, place, holder_place, Method::Kmsg, (self.clock)());
        self.tell_hangs(told)
    }

    /// Where a task lives whose record does not tell: `/proc` knows as long as it hangs.
    fn place_of_task(&mut self, event: &mut HungTask) -> Option<Arc<Place>> {
        // Its start is known only of a task that was found to be the very one that hangs.
        let tid = event.task.pid.filter(|_| event.task.start_ns.is_some() && self.sees_tasks)?;
        if !self.hangs.tells_cgroup(tid) {
            return None;
        }
        let (key, place) = self.locator.place_by_pid(tid, event.stamp.boot_ns)?;
        event.task.cgroup = Some(key);
        Some(place)
    }

    fn tell_hangs(&mut self, told: Vec<Hang>) -> Result<Progress, AgentError> {
        let begun = told.iter().filter(|hang| hangs::begins(hang)).count();
        for hang in told {
            self.tell_container_at(hang.place.as_deref())?;
            self.sink.transition(&Transition::HungTask(Box::new(hang))).map_err(AgentError::Output)?;
        }
        Ok(self.count_down(begun as u64))
    }
}
