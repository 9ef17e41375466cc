//! Holds back what happened to a container whose names are still being looked for. Pure: times come in as numbers.
//!
//! ```text
//! report ─▶ names known? ─ yes ─────────────────────────────▶ out
//!                └─ no ─▶ waits ─ names come, or time is up ─┘
//! ```
//!
//! Reports of one container leave in the order in which they came: one whose names are known waits behind an earlier one
//! that lacks them.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::report::{HangReport, KillReport, Subject};
use crate::{
    agent::locate::{ContainerChange, cgroup_path},
    clock::nanoseconds,
};

/// Most reports that wait. Beyond it the oldest is released without its names, and counted.
pub const HOLD_CAPACITY: usize = 1024;

/// A report that comes long after its happening (the agent was down) may wait this long all the same: names may be read
/// only now.
pub const LATE_GRACE_NS: u64 = 5_000_000_000;

/// What can be held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// A kill.
    Kill(KillReport),
    /// A task that hangs, or hangs no more.
    Hang(HangReport),
}

impl Report {
    /// Whom it is about.
    #[must_use]
    pub const fn subject(&self) -> &Subject {
        match self {
            Self::Kill(kill) => &kill.subject,
            Self::Hang(hang) => &hang.subject,
        }
    }

    fn subject_mut(&mut self) -> &mut Subject {
        match self {
            Self::Kill(kill) => &mut kill.subject,
            Self::Hang(hang) => &mut hang.subject,
        }
    }

    fn boot_ns(&self) -> u64 {
        match self {
            Self::Kill(kill) => kill.boot_ns,
            Self::Hang(hang) => hang.boot_ns,
        }
    }

    fn boot_id(&self) -> &str {
        match self {
            Self::Kill(kill) => &kill.id.boot_id,
            Self::Hang(hang) => &hang.id.boot_id,
        }
    }
}

/// The reports that wait, as they are written to disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldSnapshot {
    /// Oldest first.
    pub waiting: Vec<Report>,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldCounts {
    /// Reports that got their names while they waited.
    pub named: u64,
    /// Those whose time was over before, or that nobody would name any more.
    pub nameless: u64,
    /// Those that went early, because [`HOLD_CAPACITY`] others waited.
    pub crowded_out: u64,
}

#[derive(Clone, Debug)]
struct Waiting {
    report: Report,
    /// Nanoseconds since boot.
    until_ns: u64,
    /// The pod as the cgroup's path has it: of a static pod another uid than the API's.
    pod: Option<String>,
}

impl Waiting {
    fn key(&self) -> Option<&str> {
        self.report.subject().container_id.as_deref().or(self.pod.as_deref())
    }

    /// One may name the other, or must not overtake it.
    fn is_related_to(&self, other: &Self) -> bool {
        self.key() == other.key() || self.pod.is_some() && self.pod == other.pod
    }
}

/// Reports that lack names, oldest first.
#[derive(Debug)]
pub struct Hold {
    limit_ns: u64,
    waiting: VecDeque<Waiting>,
    counts: HoldCounts,
}

impl Hold {
    /// Nothing yet. `limit`: longest wait, counted from the happening; zero holds nothing.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        let limit_ns = nanoseconds(limit);
        Self { limit_ns, waiting: VecDeque::new(), counts: HoldCounts::default() }
    }

    /// Takes in a report at the time `now_ns`, nanoseconds since boot; returns those that leave now, in order.
    #[must_use]
    pub fn take(&mut self, report: Report, now_ns: u64) -> Vec<Report> {
        let grace = now_ns.saturating_add(LATE_GRACE_NS.min(self.limit_ns));
        let until_ns = report.boot_ns().saturating_add(self.limit_ns).max(grace);
        let new = Waiting { pod: pod_of(report.subject()), until_ns, report };
        let (subject, lacks) = (new.report.subject(), new.report.subject().lacks_names());
        let related = self.waiting.iter().any(|other| other.is_related_to(&new));
        if !related && (!lacks || until_ns <= now_ns) {
            self.counts.nameless += u64::from(lacks);
            return vec![new.report];
        }
        // It may know what those before it lack.
        if related && subject.pod.is_some() {
            self.learn(subject, new.pod.as_deref());
        }
        self.waiting.push_back(new);
        let mut out = if related { self.release(now_ns) } else { Vec::new() };
        while self.waiting.len() > HOLD_CAPACITY
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.counts.crowded_out += 1;
            out.push(oldest.report);
        }
        out
    }

    /// Takes in what became of a container; returns the reports that got their names by it, in order.
    #[must_use]
    pub fn hear(&mut self, change: &ContainerChange, now_ns: u64) -> Vec<Report> {
        let ContainerChange::Seen(place) = change else { return Vec::new() };
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let subject = Subject::of(Some(place));
        let pod = pod_of(&subject);
        self.learn(&subject, pod.as_deref());
        self.release(now_ns)
    }

    /// The reports whose time is over at `now_ns`, nanoseconds since boot, and those of their containers before them.
    #[must_use]
    pub fn due(&mut self, now_ns: u64) -> Vec<Report> {
        self.release(now_ns)
    }

    /// When [`Hold::due`] has something to return, nanoseconds since boot.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.waiting.iter().map(|waiting| waiting.until_ns).min()
    }

    /// All that wait: the end has come.
    #[must_use]
    pub fn release_all(&mut self) -> Vec<Report> {
        self.waiting.drain(..).map(|waiting| waiting.report).collect()
    }

    /// Whom names are wanted for.
    pub fn subjects(&self) -> impl Iterator<Item = &Subject> {
        self.waiting.iter().map(|waiting| waiting.report.subject()).filter(|subject| subject.lacks_names())
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Counts since the start.
    #[must_use]
    pub fn counts(&self) -> HoldCounts {
        self.counts
    }

    /// What waits, to be written down.
    #[must_use]
    pub fn snapshot(&self) -> HoldSnapshot {
        HoldSnapshot { waiting: self.waiting.iter().map(|waiting| waiting.report.clone()).collect() }
    }

    /// Takes in what waited when it was written down; returns those that leave at once. What is left of another boot than
    /// `boot_id` has nobody to name it any more.
    #[must_use]
    pub fn restore(&mut self, snapshot: HoldSnapshot, boot_id: &str, now_ns: u64) -> Vec<Report> {
        let mut out = Vec::new();
        for report in snapshot.waiting {
            if report.boot_id() == boot_id {
                out.append(&mut self.take(report, now_ns));
            } else {
                self.counts.nameless += u64::from(report.subject().lacks_names());
                out.push(report);
            }
        }
        out
    }

    /// Fills in what `names` knows, whose pod has the uid `pod` in its path.
    fn learn(&mut self, names: &Subject, pod: Option<&str>) {
        let counts = &mut self.counts;
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.report.subject().lacks_names()) {
            let subject = waiting.report.subject_mut();
            let same_container = names.container_id.is_some() && subject.container_id == names.container_id;
            if !same_container && (pod.is_none() || waiting.pod.as_deref() != pod) {
                continue;
            }
            if names.namespace.is_some() && names.pod.is_some() {
                subject.namespace.clone_from(&names.namespace);
                subject.pod.clone_from(&names.pod);
                subject.pod_uid.clone_from(&names.pod_uid);
            }
            if same_container && names.container.is_some() {
                subject.container.clone_from(&names.container);
            }
            counts.named += u64::from(!subject.lacks_names());
        }
    }

    /// Takes out all that wait for nothing: named ones that no earlier one of their container holds up, and those whose
    /// time is over with all of their container before them.
    fn release(&mut self, now_ns: u64) -> Vec<Report> {
        let mut over: HashSet<String> = HashSet::new();
        let mut leaves = vec![false; self.waiting.len()];
        for (at, waiting) in self.waiting.iter().enumerate().rev() {
            let key = waiting.key().unwrap_or_default();
            if waiting.until_ns <= now_ns || over.contains(key) {
                leaves[at] = true;
                over.insert(key.to_owned());
            }
        }
        let mut blocked: HashSet<String> = HashSet::new();
        for (at, waiting) in self.waiting.iter().enumerate() {
            let key = waiting.key().unwrap_or_default();
            if !leaves[at] && (waiting.report.subject().lacks_names() || blocked.contains(key)) {
                blocked.insert(key.to_owned());
            } else {
                leaves[at] = true;
            }
        }
        let mut out = Vec::new();
        for (waiting, leaves) in std::mem::take(&mut self.waiting).into_iter().zip(leaves) {
            if leaves {
                self.counts.nameless += u64::from(waiting.report.subject().lacks_names());
                out.push(waiting.report);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        out
    }
}

/// The uid in the path of the subject's cgroup, else the one that is told.
fn pod_of(subject: &Subject) -> Option<String> {
    let in_path = subject.cgroup.as_deref().and_then(|path| Some(cgroup_path::parse(path).pod?.uid()));
    in_path.or_else(|| subject.pod_uid.clone())
}

#[cfg(test)]
mod tests;
