//! Which task is the cause of which condition.
//!
//! A task is found again by its thread id and its start, as far as both are told: a record may lack the start, and `/proc`
//! rounds it. A thread id names one living task, so that another start under it means that the former is gone.

use super::{
    Conditions,
    cause::{Cause, Task},
    slot::Slot,
};

impl Conditions {
    /// Takes in that a task hangs.
    pub(super) fn begin(&mut self, task: Task, mut cause: Cause, at_ns: u64, time_us: i64) {
        if self.knows_later(task.tid, at_ns) {
            return;
        }
        let known = self.find(&task);
        if let Some((index, known)) = known {
            if let Some(before) = self.slots[index].causes.cause(&known) {
                cause.fill(before);
            }
            self.restored.remove(&known);
        } else {
            self.end_others_of(task.tid, at_ns, time_us);
        }
        let condition = cause.condition(&self.config.runtime_processes);
        let task = known.map_or(task, |(_, known)| known);
        let target = self.slots.iter().position(|slot| slot.condition.kind == condition.kind);
        if let Some(slot) = target.and_then(|index| self.slots.get_mut(index)) {
            slot.begin(task, cause, at_ns, time_us);
        }
        // More was learned of it, and it belongs to another condition.
        if let Some((index, known)) = known.filter(|(index, _)| Some(*index) != target) {
            self.slots[index].end(&known, at_ns, time_us);
        }
    }

    /// Takes in that a task hangs no more.
    pub(super) fn end(&mut self, task: &Task, at_ns: u64, time_us: i64) {
        let found = self.find(task);
        let named = found.map_or(*task, |(_, known)| known);
        self.restored.remove(&named);
        if found.is_none() {
            self.end_predecessors_of(task, at_ns, time_us);
        }
        // The end of an unknown task is remembered by all: its begin may be told late.
        for slot in &mut self.slots {
            slot.end(&named, at_ns, time_us);
        }
    }

    /// Whether this account of a task is older than one of a task of the same number that hangs: that one is the living. Or
    /// older than a task of that number which hangs no more.
    fn knows_later(&self, tid: u32, at_ns: u64) -> bool {
        let open = self.slots.iter().flat_map(|slot| slot.causes.causes().map(move |(task, _)| (slot, task)));
        let mut ended = self.slots.iter().flat_map(|slot| slot.causes.ended());
        open.filter(|(_, task)| task.tid == tid).any(|(slot, task)| slot.causes.told_at(task) > Some(at_ns))
            || ended.any(|task| task.tid == tid && task.start_ns > Some(at_ns))
    }

    /// A task of this number that was last told of before this one began is gone.
    fn end_predecessors_of(&mut self, task: &Task, at_ns: u64, time_us: i64) {
        let Some((index, before)) = self.find(&Task { start_ns: None, ..*task }) else { return };
        let slot = &mut self.slots[index];
        if slot.causes.told_at(&before) < task.start_ns {
            self.restored.remove(&before);
            slot.end(&before, at_ns, time_us);
        }
    }

    /// The number is another task's by now.
    fn end_others_of(&mut self, tid: u32, at_ns: u64, time_us: i64) {
        let number = Task { tid, start_ns: None };
        while let Some((index, other)) = self.find(&number) {
            self.restored.remove(&other);
            if self.slots[index].end(&other, at_ns, time_us).is_none() {
                return;
            }
        }
    }

    /// The condition that has `task` as a cause, and under which name.
    fn find(&self, task: &Task) -> Option<(usize, Task)> {
        let known = |slot: &Slot| slot.causes.causes().map(|(known, _)| *known).find(|known| known.may_be(task));
        self.slots.iter().enumerate().find_map(|(index, slot)| Some((index, known(slot)?)))
    }
}
