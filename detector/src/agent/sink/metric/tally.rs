//! Counts of the whole node: kills by limit, happenings, losses, tasks that hang, methods in use. Pure.

use std::collections::BTreeMap;

use super::snapshot::{self, Snapshot};
use crate::{
    agent::{
        options::{Detector, Method},
        sink::report::{HangEdge, HangReport, KillReport, Subject},
    },
    contract::metric::{Happening, HitLimit, HungClass, LOSSES, Loss, LossStage, Unresolved},
};

/// Hung tasks told apart at most: more than the kernel's own watch tells of in one scan by far
/// (`kernel.hung_task_check_count` ends a scan, and a machine with so many serves no scrape).
pub(super) const HUNG_TASKS: usize = 4096;

/// A task: thread id, and when it started.
type Task = (u32, Option<u64>);

/// What cannot be told of a subject.
const UNRESOLVED: usize = Unresolved::ALL.len();

/// What a detector does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It watches by this method.
    By(Method),
    /// It lost its method, and no other works.
    Blind,
    /// It found no method at the start, and may do without.
    Off,
}

/// Counts of the node.
#[derive(Debug)]
pub(super) struct Tally {
    /// Kills by limit, in the order of its words.
    pub(super) node: [u64; HitLimit::ALL.len()],
    /// Happenings told.
    pub(super) events: [u64; Happening::ALL.len()],
    /// Happenings told in part.
    pub(super) unresolved: [[u64; UNRESOLVED]; Happening::ALL.len()],
    /// What was lost, with a zero for all that can be.
    pub(super) lost: BTreeMap<Loss, u64>,
    /// What each detector that is wanted does.
    pub(super) probes: BTreeMap<Detector, Probe>,
    /// The kernel's count of kills less ours.
    pub(super) unaccounted: Option<i64>,
    hung: BTreeMap<Task, HungClass>,
    /// Hung tasks that had no room.
    pub(super) hung_refused: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            node: Default::default(),
            events: Default::default(),
            unresolved: Default::default(),
            lost: LOSSES.iter().map(|loss| (*loss, 0)).collect(),
            probes: BTreeMap::new(),
            unaccounted: None,
            hung: BTreeMap::new(),
            hung_refused: 0,
        }
    }
}

impl Tally {
    /// A process was killed, and that was told.
    pub(super) fn kill(&mut self, report: &KillReport) {
        add(&mut self.node[snapshot::limit_of(&report.limit) as usize], 1);
        self.told(Happening::OomKill, &report.subject);
    }

    /// The kernel counted `kills` of which no record came.
    pub(super) fn missed(&mut self, kills: u64) {
        add(&mut self.node[HitLimit::Unknown as usize], kills);
    }

    /// A task hangs, or hangs no more.
    pub(super) fn hang(&mut self, report: &HangReport, class: HungClass) {
        if report.edge == HangEdge::Raised {
            self.told(Happening::HungTask, &report.subject);
        }
        // Without a thread id nothing tells when it ran again.
        let Some(tid) = report.tid else { return };
        let task = (tid, report.start_ns);
        match report.edge {
            HangEdge::Ran | HangEdge::Exited => {
                self.hung.remove(&task);
            }
            HangEdge::Raised | HangEdge::Sustained if self.hung.len() < HUNG_TASKS => {
                self.hung.insert(task, class);
            }
            HangEdge::Raised | HangEdge::Sustained => {
                if !self.hung.contains_key(&task) {
                    self.hung_refused += 1;
                }
            }
        }
    }

    fn told(&mut self, what: Happening, subject: &Subject) {
        add(&mut self.events[what as usize], 1);
        let missing = if subject.lacks_names() {
            Unresolved::Names
        } else if *subject == Subject::default() {
            Unresolved::Cgroup
        } else {
            return;
        };
        add(&mut self.unresolved[what as usize][missing as usize], 1);
    }

    /// Tasks of `class` that hang now.
    pub(super) fn hung(&self, class: HungClass) -> usize {
        self.hung.values().filter(|hung| **hung == class).count()
    }

    /// `count` were lost.
    pub(super) fn lost(&mut self, loss: Loss, count: u64) {
        add(self.lost.entry(loss).or_default(), count);
    }

    pub(super) fn save(&self, into: &mut Snapshot) {
        let counts = |words: &[&'static str], counts: &[u64]| {
            words.iter().map(|word| (*word).to_owned()).zip(counts.iter().copied()).collect()
        };
        into.node = counts(HitLimit::WORDS, &self.node);
        into.events = counts(Happening::WORDS, &self.events);
        for (loss, count) in self.lost.iter().filter(|(_, count)| **count > 0) {
            into.lost.entry(loss.stage().word().to_owned()).or_default().insert(loss.kind().to_owned(), *count);
        }
    }

    pub(super) fn restore(&mut self, saved: &Snapshot) {
        for (word, count) in &saved.node {
            add(&mut self.node[snapshot::limit_of(word) as usize], *count);
        }
        for (word, count) in &saved.events {
            if let Some(what) = Happening::of_word(word) {
                add(&mut self.events[what as usize], *count);
            }
        }
        for (stage, kinds) in &saved.lost {
            let Some(stage) = LossStage::of_word(stage) else { continue };
            // What another version lost, and this one cannot, has no series.
            for (loss, count) in kinds.iter().filter_map(|(kind, count)| Some((Loss::of(stage, kind)?, *count))) {
                self.lost(loss, count);
            }
        }
    }
}

fn add(to: &mut u64, count: u64) {
    *to = to.saturating_add(count);
}
