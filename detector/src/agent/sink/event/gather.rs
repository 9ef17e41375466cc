//! Victims of one group kill arrive one by one, and are told as one.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use super::{note, object::digest, pace::nanoseconds};
use crate::agent::sink::report::KillReport;

/// A group is complete when no victim came for so long.
const QUIET: Duration = Duration::from_millis(250);
/// Groups that are gathered at once; beyond it the oldest is taken for complete.
const GROUPS: usize = 64;
/// Complete groups that are remembered, so that a late victim is no kill of its own.
const REMEMBERED: usize = 256;

/// Victims of one decision in one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) first: KillReport,
    /// The first few, in words.
    pub(super) named: Vec<String>,
    pub(super) count: u32,
    /// When the last was killed, microseconds since 1970.
    pub(super) last_us: i64,
    /// When it counts as complete, nanoseconds since boot.
    complete_ns: u64,
}

impl Group {
    fn identity(&self) -> u64 {
        identity(&self.first)
    }
}

/// Names the group that a victim belongs to.
fn identity(report: &KillReport) -> u64 {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().as_bytes().to_vec();
    digest([
        report.id.boot_id.as_bytes(),
        &report.incident.to_le_bytes(),
        &text(&report.subject.pod_uid),
        &text(&report.subject.container_id),
    ])
}

/// Groups that may still grow.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    open: Vec<Group>,
    /// Identities of complete groups.
    complete: VecDeque<u64>,
}

impl Gathering {
    /// Takes a victim of a group kill. Gives a group that had to be completed to make room.
    pub(super) fn add(&mut self, report: &KillReport, now_ns: u64) -> Option<Group> {
        let complete_ns = now_ns.saturating_add(nanoseconds(QUIET));
        let identity = identity(report);
        if let Some(group) = self.open.iter_mut().find(|group| group.identity() == identity) {
            group.count = group.count.saturating_add(1);
            group.last_us = group.last_us.max(report.time_us);
            group.complete_ns = complete_ns;
            if group.named.len() < note::NAMED {
                group.named.push(note::process(report));
            }
            return None;
        }
        if self.complete.contains(&identity) {
            return None;
        }
        let full = (self.open.len() >= GROUPS).then(|| self.open.remove(0)).inspect(|group| self.remember(group));
        let named = vec![note::process(report)];
        self.open.push(Group { first: report.clone(), named, count: 1, last_us: report.time_us, complete_ns });
        full
    }

    /// Groups that are complete by now.
    pub(super) fn completed(&mut self, now_ns: u64) -> Vec<Group> {
        let completed: Vec<Group> = self.open.extract_if(.., |group| group.complete_ns <= now_ns).collect();
        completed.iter().for_each(|group| self.remember(group));
        completed
    }

    fn remember(&mut self, group: &Group) {
        if self.complete.len() >= REMEMBERED {
            self.complete.pop_front();
        }
        self.complete.push_back(group.identity());
    }

    /// When the next group is complete, nanoseconds since boot.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.open.iter().map(|group| group.complete_ns).min()
    }

    /// Groups that may still grow.
    pub(super) fn open(&self) -> &[Group] {
        &self.open
    }

    /// Those of an earlier run: complete, because numbers of incidents begin anew with each run.
    pub(super) fn restored(groups: Vec<Group>) -> Self {
        let open = groups.into_iter().map(|group| Group { complete_ns: 0, ..group }).collect();
        Self { open, complete: VecDeque::new() }
    }
}
