//! The kernel's log as witness: what it tells and a better method did not.
//!
//! While a better method is in use, each kill and each hung task that the log tells must be told by a record too, within
//! [`GRACE_NS`] before or after. A line without its record is overdue: then the better method missed it.
//!
//! Times are those at which line and record were *read*: the log's own clock strays (see `decode::log_clock`). A reader that
//! was held up proves nothing: a record is forgotten only once the log was read to its end, a line is overdue only once the
//! rings were. Lines must
//! be shown once for each happening: kills as `problem::oom_log` tells them, not as lines, because the log names the
//! first victim of a group kill twice.

use std::collections::{HashMap, VecDeque};

use crate::agent::options::Detector;

/// How far apart line and record of one happening may be read.
pub const GRACE_NS: u64 = 2_000_000_000;
/// Most lines that wait for their record.
pub const WAITING_LINES: usize = 4096;
/// Most records that are remembered; the oldest goes first.
pub const REMEMBERED_RECORDS: usize = 8192;

/// What lines and records have in common.
type Key = (Detector, u32);

/// Lines that wait for their record, and records that lines may yet refer to. `T` is what is wanted back of a line
/// without record.
#[derive(Debug)]
pub struct Witness<T> {
    /// Oldest first.
    lines: VecDeque<Line<T>>,
    /// How many of them wait for each task.
    waiting: HashMap<Key, usize>,
    /// When the last record of each task was read.
    records: HashMap<Key, u64>,
    /// The same, oldest first; a task has several entries if it has several records.
    order: VecDeque<(Key, u64)>,
}

#[derive(Debug)]
struct Line<T> {
    key: Key,
    read_ns: u64,
    payload: T,
}

impl<T> Default for Witness<T> {
    fn default() -> Self {
        Self { lines: VecDeque::new(), waiting: HashMap::new(), records: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Witness<T> {
    /// A record on the thread `tid` was read at `now_ns`, nanoseconds since boot: of whatever verdict.
    pub fn saw_record(&mut self, detector: Detector, tid: u32, now_ns: u64) {
        let key = (detector, tid);
        // However late this is read: it may have waited in its ring.
        if self.waiting.remove(&key).is_some() {
            self.lines.retain(|line| line.key != key);
        }
        self.records.insert(key, now_ns);
        self.order.push_back((key, now_ns));
        if self.order.len() > REMEMBERED_RECORDS {
            self.forget_oldest_record();
        }
    }

    /// A line on the thread `tid` was read at `now_ns`, nanoseconds since boot. Gives it back if too many wait already.
    pub fn saw_line(&mut self, detector: Detector, tid: u32, now_ns: u64, payload: T) -> Option<T> {
        let key = (detector, tid);
        if self.records.contains_key(&key) {
            return None;
        }
        if self.lines.len() >= WAITING_LINES {
            return Some(payload);
        }
        *self.waiting.entry(key).or_default() += 1;
        self.lines.push_back(Line { key, read_ns: now_ns, payload });
        None
    }

    /// The log was read to its end at `now_ns`: a record read [`GRACE_NS`] before has had its line.
    pub fn log_was_read(&mut self, now_ns: u64) {
        self.forget_records(now_ns);
    }

    /// The lines whose record has not come by `now_ns`, when the rings were last read; each once.
    pub fn overdue(&mut self, now_ns: u64) -> Vec<(Detector, T)> {
        let mut overdue = Vec::new();
        while let Some(line) = self.lines.pop_front_if(|line| now_ns.saturating_sub(line.read_ns) > GRACE_NS) {
            self.wait_less(line.key, 1);
            overdue.push((line.key.0, line.payload));
        }
        overdue
    }

    /// When the next line becomes overdue, unless its record comes: nanoseconds since boot.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        Some(self.lines.front()?.read_ns.saturating_add(GRACE_NS + 1))
    }

    /// Lines of `detector` that wait no more: it is told by the log itself from now on, or by nothing.
    pub fn take(&mut self, detector: Detector) -> Vec<T> {
        let (taken, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.lines).into_iter().partition(|line| line.key.0 == detector);
        self.lines = kept;
        self.waiting.retain(|key, _| key.0 != detector);
        taken.into_iter().map(|line| line.payload).collect()
    }

    fn wait_less(&mut self, key: Key, lines: usize) {
        if let Some(waiting) = self.waiting.get_mut(&key) {
            *waiting = waiting.saturating_sub(lines);
            if *waiting == 0 {
                self.waiting.remove(&key);
            }
        }
    }

    fn forget_records(&mut self, now_ns: u64) {
        while self.order.front().is_some_and(|(_, read_ns)| now_ns.saturating_sub(*read_ns) > GRACE_NS) {
            self.forget_oldest_record();
        }
    }

    fn forget_oldest_record(&mut self) {
        // A newer record of the same task stays.
        if let Some((key, read_ns)) = self.order.pop_front()
            && self.records.get(&key) == Some(&read_ns)
        {
            self.records.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const OOM: Detector = Detector::Oom;

    #[test]
    fn a_record_answers_for_a_line_in_either_order() {
        let mut witness = Witness::default();
        witness.saw_record(OOM, 1, 10);
        witness.saw_line(OOM, 1, 10 + GRACE_NS, "after");
        witness.saw_line(OOM, 2, 10 + GRACE_NS, "before");
        witness.saw_record(OOM, 2, 10 + 2 * GRACE_NS);
        assert_eq!(witness.next_due(), None);
        assert_eq!(witness.overdue(u64::MAX), []);
    }

    #[test]
    fn a_line_without_record_is_overdue_once_and_not_before_its_time() {
        let mut witness = Witness::default();
        witness.saw_line(OOM, 1, 10, "lost");
        assert_eq!(witness.next_due(), Some(11 + GRACE_NS));
        assert_eq!(witness.overdue(10 + GRACE_NS), []);
        assert_eq!(witness.overdue(11 + GRACE_NS), [(OOM, "lost")]);
        assert_eq!(witness.overdue(u64::MAX), []);
    }

    #[test]
    fn a_pid_used_again_needs_a_record_of_its_own() {
        let mut witness = Witness::default();
        witness.saw_record(OOM, 1, 10);
        witness.saw_line(OOM, 1, 20, "first");
        witness.log_was_read(11 + GRACE_NS);
        witness.saw_line(OOM, 1, 11 + GRACE_NS, "second");
        assert_eq!(witness.overdue(u64::MAX), [(OOM, "second")]);
    }

    #[test]
    fn detectors_do_not_answer_for_each_other() {
        let mut witness = Witness::default();
        witness.saw_record(Detector::HungTask, 1, 10);
        witness.saw_line(OOM, 1, 10, "kill");
        assert_eq!(witness.overdue(u64::MAX), [(OOM, "kill")]);
    }

    #[test]
    fn what_waits_is_given_back_when_a_detector_changes_its_method() {
        let mut witness = Witness::default();
        witness.saw_line(OOM, 1, 10, "kill");
        witness.saw_line(Detector::HungTask, 1, 10, "hang");
        assert_eq!(witness.take(OOM), ["kill"]);
        assert_eq!(witness.overdue(u64::MAX), [(Detector::HungTask, "hang")]);
        assert!(witness.waiting.is_empty());
    }

    #[test]
    fn a_reader_that_was_held_up_proves_nothing() {
        let mut witness = Witness::default();
        witness.saw_record(OOM, 1, 10);
        witness.saw_line(OOM, 1, 10 + 5 * GRACE_NS, "its record was read long before");
        witness.saw_line(OOM, 2, 10, "its record is still in the ring");
        // The rings were last read before the line became overdue.
        assert_eq!(witness.overdue(10 + GRACE_NS), []);
        witness.saw_record(OOM, 2, 10 + 5 * GRACE_NS);
        assert_eq!(witness.overdue(u64::MAX), []);
    }

    #[test]
    fn lines_beyond_the_bound_are_given_back_and_memory_is_bounded() {
        let mut witness = Witness::default();
        let mut back = 0;
        for tid in 0..20_000 {
            back += usize::from(witness.saw_line(OOM, tid, 10, ()).is_some());
            witness.saw_record(Detector::HungTask, tid, 10);
        }
        assert_eq!(back, 20_000 - WAITING_LINES);
        assert_eq!((witness.lines.len(), witness.waiting.len()), (WAITING_LINES, WAITING_LINES));
        assert_eq!((witness.records.len(), witness.order.len()), (REMEMBERED_RECORDS, REMEMBERED_RECORDS));
        assert_eq!(witness.overdue(u64::MAX).len(), WAITING_LINES);
        witness.log_was_read(u64::MAX);
        assert_eq!((witness.order.len(), witness.records.len(), witness.waiting.len()), (0, 0, 0));
    }

    proptest! {
        /// With a reader that is never held up: rings and log are read to their ends at each step.
        #[test]
        fn a_line_is_overdue_if_and_only_if_no_record_comes_within_the_grace(
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0..4_u32, 0..GRACE_NS), 1..80),
        ) {
            let mut witness = Witness::default();
            let (mut now, mut records, mut lines) = (0, Vec::new(), Vec::new());
            let mut overdue: BTreeMap<usize, u32> = BTreeMap::new();
            for (is_record, hung, tid, pause) in steps {
                now += pause;
                let detector = if hung { Detector::HungTask } else { OOM };
                witness.log_was_read(now);
                for (_, line) in witness.overdue(now) {
                    *overdue.entry(line).or_default() += 1;
                }
                if is_record {
                    records.push((detector, tid, now));
                    witness.saw_record(detector, tid, now);
                } else {
                    prop_assert!(witness.saw_line(detector, tid, now, lines.len()).is_none());
                    lines.push((detector, tid, now));
                }
            }
            for (_, line) in witness.overdue(u64::MAX) {
                *overdue.entry(line).or_default() += 1;
            }
            for (number, (detector, tid, at)) in lines.into_iter().enumerate() {
                let answered = records.iter().any(|record| (record.0, record.1) == (detector, tid)
                    && record.2.abs_diff(at) <= GRACE_NS);
                prop_assert_eq!(overdue.get(&number).copied().unwrap_or(0), u32::from(!answered));
            }
            prop_assert!(witness.lines.is_empty() && witness.waiting.is_empty());
        }
    }
}
