//! Open hangs as one run of the agent hands them over to the next of the same boot, so that a hang is told once however
//! often the agent restarts.

use std::{sync::Arc, time::Duration};

use arrayvec::ArrayVec;
use detector_common::oom::COMM_LENGTH;
use serde::{Deserialize, Serialize};

use super::{HungTaskRules, MAX_OPEN, Open};
use crate::agent::{
    decode::event::{CgroupKey, Comm, HungTask, Stamp, Task},
    locate::Place,
    options::{Detector, Method},
    problem::{Hang, HangState},
};

/// A hang that is open, as it is written down. Lock and stack are told anew by the kernel's next scan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenHang {
    /// Thread id.
    pub tid: u32,
    /// Start of the task, nanoseconds since boot.
    pub start_ns: Option<u64>,
    /// Times that it was switched away from.
    pub switches: Option<u64>,
    /// Its process.
    pub tgid: Option<u32>,
    /// Start of the process's leading thread, nanoseconds since boot.
    pub leader_start_ns: Option<u64>,
    /// Name of the task, NUL padded.
    pub comm: Option<[u8; COMM_LENGTH]>,
    /// Name of the leading thread, NUL padded.
    pub leader_comm: Option<[u8; COMM_LENGTH]>,
    /// Its memory cgroup: number of the hierarchy, id.
    pub cgroup: Option<(u32, u64)>,
    /// The record that told it first: CPU, number, nanoseconds since boot.
    pub first: (u32, u64, u64),
    /// How long it had hung by that record, nanoseconds.
    pub hung_ns: u64,
    /// When it was last seen to stand, nanoseconds since boot.
    pub stood_ns: u64,
    /// Name of the method by which it was learned of.
    pub method: String,
}

impl OpenHang {
    /// Its memory cgroup.
    #[must_use]
    pub fn cgroup(&self) -> Option<CgroupKey> {
        self.cgroup.map(|(hierarchy, id)| CgroupKey { hierarchy, id })
    }
}

impl HungTaskRules {
    /// Hangs that are open, for a later run of this boot.
    #[must_use]
    pub fn handover(&self) -> Vec<OpenHang> {
        self.open.iter().map(|(tid, open)| open.written_down(*tid)).collect()
    }

    /// Takes over a hang that an earlier run of this boot told of, in a task that lives at `place`; to be called before any
    /// record is taken in. It is told once somebody has looked: as going on, or as over.
    pub fn inherit(&mut self, saved: &OpenHang, place: Option<Arc<Place>>) {
        if self.open.len() >= MAX_OPEN || self.open.contains_key(&saved.tid) {
            return;
        }
        let (cpu, sequence, boot_ns) = saved.first;
        let first = Stamp { boot_ns, cpu, sequence };
        // What is in the file may be any number.
        let hung = Duration::from_nanos(saved.hung_ns.min(boot_ns));
        let hang = Hang {
            number: self.next_number(),
            state: HangState::Sustained,
            boot_ns,
            hung,
            event: saved.event(first),
            place,
            holder_place: None,
            stack: Vec::new(),
            method: Detector::HungTask.method_of_name(&saved.method).unwrap_or(Method::RawTracepoint),
        };
        let open = Open { hang, first, hung_then: hung, stood_ns: saved.stood_ns.max(boot_ns), is_inherited: true };
        self.open.insert(saved.tid, open);
    }

    /// Tells that a hang of an earlier run goes on, at the time `now_ns`; once, and only if it has not been told otherwise.
    pub fn take_over(&mut self, tid: u32, now_ns: u64) -> Option<Hang> {
        let open = self.open.get_mut(&tid)?;
        if !std::mem::take(&mut open.is_inherited) {
            return None;
        }
        open.hang.boot_ns = now_ns;
        open.hang.hung = open.length_at(open.stood_ns);
        Some(open.hang.clone())
    }
}

impl Open {
    fn written_down(&self, tid: u32) -> OpenHang {
        let Self { hang, first, hung_then, stood_ns, .. } = self;
        let task = &hang.event.task;
        OpenHang {
            tid,
            start_ns: task.start_ns,
            switches: hang.event.switches,
            tgid: task.tgid,
            leader_start_ns: task.leader_start_ns,
            comm: task.comm.map(|comm| comm.0),
            leader_comm: task.leader_comm.map(|comm| comm.0),
            cgroup: task.cgroup.map(|key| (key.hierarchy, key.id)),
            first: (first.cpu, first.sequence, first.boot_ns),
            hung_ns: u64::try_from(hung_then.as_nanos()).unwrap_or(u64::MAX),
            stood_ns: *stood_ns,
            method: hang.method.name().to_owned(),
        }
    }
}

impl OpenHang {
    /// What a record with this in it would say.
    fn event(&self, stamp: Stamp) -> HungTask {
        let task = Task {
            tgid: self.tgid,
            pid: Some(self.tid),
            start_ns: self.start_ns,
            leader_start_ns: self.leader_start_ns,
            comm: self.comm.map(Comm),
            leader_comm: self.leader_comm.map(Comm),
            cgroup: self.cgroup(),
        };
        HungTask { stamp, task, switches: self.switches, hung_jiffies: None, lock: None, stack: ArrayVec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use crate::agent::source::task::{Look, State};

    /// What an earlier run told of at 100 s, after a journey through a file.
    fn inherited() -> HungTaskRules {
        let mut before = rules();
        before.record(full(100, 5));
        let text = serde_json::to_string(&before.handover()).unwrap();
        let saved: Vec<OpenHang> = serde_json::from_str(&text).unwrap();
        let mut rules = rules();
        saved.iter().for_each(|saved| rules.inherit(saved, None));
        assert_eq!(rules.handover(), before.handover());
        rules
    }

    #[test]
    fn the_next_scan_after_a_restart_sustains_and_raises_nothing() {
        let mut rules = inherited();
        assert_eq!(told(&rules.record(full(130, 5))), [(1, HangState::Sustained)]);
        assert_eq!(rules.counts().raised, 0);
        assert_eq!(rules.looked(TID, &seen(SECOND, 5, State::Uninterruptible), 131 * SECOND), None);
    }

    #[test]
    fn the_first_look_after_a_restart_tells_that_it_goes_on_and_the_second_nothing() {
        let mut rules = inherited();
        let told = rules.looked(TID, &seen(SECOND, 5, State::Uninterruptible), 120 * SECOND).unwrap();
        assert_eq!((told.state, told.boot_ns, told.event.stamp.sequence), (HangState::Sustained, 120 * SECOND, 100));
        assert_eq!(told.hung, Duration::from_secs(20));
        assert_eq!(rules.looked(TID, &seen(SECOND, 5, State::Uninterruptible), 121 * SECOND), None);
    }

    #[test]
    fn what_ended_while_no_agent_ran_is_over_at_the_first_look() {
        let cases = [
            (Look::Gone, HangState::Exited),
            (seen(SECOND, 6, State::Uninterruptible), HangState::Ran),
            (seen(90 * SECOND, 5, State::Uninterruptible), HangState::Exited),
        ];
        for (look, state) in cases {
            let mut rules = inherited();
            assert_eq!(rules.looked(TID, &look, 120 * SECOND).map(|hang| hang.state), Some(state));
            assert_eq!(rules.counts().open, 0);
        }
    }

    #[test]
    fn a_task_that_ran_while_no_agent_did_and_hangs_again_hangs_anew() {
        let mut rules = inherited();
        assert_eq!(told(&rules.record(full(130, 6))), [(1, HangState::Ran), (2, HangState::Raised)]);
    }

    #[test]
    fn no_more_are_taken_over_than_may_be_open() {
        let mut rules = rules();
        for tid in 0..=u32::try_from(MAX_OPEN).unwrap() {
            rules.inherit(&OpenHang { tid, ..OpenHang::default() }, None);
        }
        assert_eq!(rules.counts().open, MAX_OPEN as u64);
    }

    #[test]
    fn a_file_with_strange_numbers_makes_no_strange_hang() {
        let mut rules = rules();
        let saved = OpenHang { tid: TID, hung_ns: u64::MAX, stood_ns: u64::MAX, ..OpenHang::default() };
        rules.inherit(&saved, None);
        let told = rules.take_over(TID, SECOND).unwrap();
        assert_eq!(told.event.task.cgroup, None);
        assert!(rules.looked(TID, &Look::Gone, u64::MAX).is_some());
    }
}
