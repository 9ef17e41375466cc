//! Kubernetes events: what happened becomes a bounded queue of writes to the API server, one at a time.
//!
//! ```text
//! kill ──┬────────────▶ series ──▶ next ──▶ create or update ──▶ done
//!        └▶ gathering ─▲   │        ▲ budgets, turns, back-off
//! hang, crash ─────────┘   └▶ further (no room: one event about the node)
//! ```
//!
//! Pure: values and a time in, writes out. Nothing that happened is dropped but what the API server refuses for good and
//! what belongs to a namespace that is gone; what has to wait is counted on in its series, and a write always carries the
//! whole count, so that writing it twice is harmless.

pub mod deliver;
mod further;
mod gather;
mod note;
mod object;
mod pace;
mod pick;
mod series;
mod taken;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::object::{Action, EventWrite};
use self::{
    further::Further,
    gather::{Gathering, Group},
    pace::{Backoff, Bucket, nanoseconds},
    pick::{Owners, Pick},
    series::{Happening, Key, Series},
    taken::Taken,
};
use super::{
    delivery::Next,
    report::{CrashReport, HangEdge, HangReport, KillReport},
};
use crate::{
    cluster::{Answer, Identity, Outcome},
    config,
};

/// Events that are remembered, waiting or open for more. Each takes about 2 KiB.
pub const SERIES: usize = 512;

/// Answers in a row that a write is not allowed (403) after which it counts as refused for good: about half an hour, with
/// waits of up to a minute in between. A server that has just started forbids what it will allow once it has read roles and
/// quotas, and an operator needs time to give a right.
const REFUSALS: u32 = 40;

/// An update waits so long for what else happens.
const SETTLE: Duration = Duration::from_secs(1);

/// What was done so far by this run, and what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Happenings that wait to be told.
    pub waiting: u64,
    /// Series that are remembered, at most [`SERIES`].
    pub series: u64,
    /// Writes that had to wait for the budget of the node.
    pub refused_by_node_budget: u64,
    /// Writes that had to wait for the budget of a pod.
    pub refused_by_pod_budget: u64,
    /// Happenings that became part of a series instead of an event of their own.
    pub coalesced: u64,
    /// Happenings told together in an event about the node, because there was no room to remember them one by one.
    pub told_together: u64,
    /// Happenings that the API server refused for good, or for too long. What is told to nobody any more, because the
    /// namespace is gone, is not among them.
    pub dropped: u64,
    /// Reports of what was known already.
    pub duplicates: u64,
}

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    series: Vec<Series>,
    gathering: Vec<Group>,
    further: Further,
    seen: Taken,
    node: Option<Bucket>,
    owners: Owners,
    order: u64,
}

/// The queue.
#[derive(Debug)]
pub struct Events {
    settings: config::Events,
    identity: Identity,
    boot_id: String,
    series: BTreeMap<Key, Series>,
    gathering: Gathering,
    further: Further,
    seen: Taken,
    node: Bucket,
    owners: Owners,
    backoff: Backoff,
    in_flight: Option<InFlight>,
    order: u64,
    /// See [`Events::revision`].
    revision: u64,
    counts: Counts,
}

/// The write whose end is awaited.
#[derive(Debug)]
struct InFlight {
    key: Key,
    action: Action,
    /// The count that it tells.
    count: u64,
}

impl Events {
    /// An empty queue of the agent `identity` in the boot `boot_id`.
    #[must_use]
    pub fn new(settings: config::Events, identity: Identity, boot_id: &str) -> Self {
        Self::restore(settings, identity, boot_id, Snapshot::default(), 0)
    }

    /// The queue of an earlier run. What that run had sent without learning how it ended is sent again.
    #[must_use]
    pub fn restore(
        settings: config::Events,
        identity: Identity,
        boot_id: &str,
        snapshot: Snapshot,
        now_ns: u64,
    ) -> Self {
        let Snapshot { series, gathering, further, seen, node, owners, order } = snapshot;
        let node = node
            .map_or_else(|| Bucket::full(settings.node_budget), |bucket| bucket.restored(settings.node_budget, now_ns));
        Self {
            backoff: Backoff::new(object::digest([identity.node.as_bytes(), boot_id.as_bytes()])),
            series: series.into_iter().take(SERIES + 1).map(|series| (series.key.clone(), series.restored())).collect(),
            gathering: Gathering::restored(gathering),
            further,
            seen,
            node,
            owners: owners.restored(settings.pod_budget, now_ns),
            in_flight: None,
            order,
            revision: 0,
            counts: Counts::default(),
            boot_id: boot_id.to_owned(),
            settings,
            identity,
        }
    }

    /// What a later run needs to go on from here.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            series: self.series.values().cloned().collect(),
            gathering: self.gathering.open().to_vec(),
            further: self.further.clone(),
            seen: self.seen.clone(),
            node: Some(self.node),
            owners: self.owners.clone(),
            order: self.order,
        }
    }

    /// Rises with each write whose end changed what a later run has to know.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes in a kill.
    pub fn kill(&mut self, report: &KillReport, now_ns: u64) {
        if !self.settings.enabled {
            return;
        }
        if !self.seen.is_first(&report.id, "kill") {
            self.counts.duplicates += 1;
            return;
        }
        if !report.group_kill {
            self.file(&Happening::Kill(report), now_ns);
        } else if let Some(group) = self.gathering.add(report, now_ns) {
            self.file(&Happening::Group(&group), now_ns);
        }
    }

    /// Takes in a task that begins to hang; that it hangs on or no more is no event.
    pub fn hang(&mut self, report: &HangReport, now_ns: u64) {
        if !self.settings.enabled || report.edge != HangEdge::Raised {
            return;
        }
        if self.seen.is_first(&report.id, "hang") {
            self.file(&Happening::Hang(report), now_ns);
        } else {
            self.counts.duplicates += 1;
        }
    }

    /// Takes in that a boot before this one ended in a crash.
    pub fn crash(&mut self, report: &CrashReport, now_ns: u64) {
        if !self.settings.enabled {
            return;
        }
        if self.seen.is_first(&report.id, "crash") {
            self.file(&Happening::Crash(report), now_ns);
        } else {
            self.counts.duplicates += 1;
        }
    }

    /// The next write, or when there may be one. While a write is under way there is none.
    pub fn next(&mut self, now_ns: u64) -> Next<EventWrite> {
        for group in self.gathering.completed(now_ns) {
            self.file(&Happening::Group(&group), now_ns);
        }
        if self.in_flight.is_some() {
            return Next::Nothing;
        }
        self.tell_together();
        let gathered = self.gathering.next_ns().map(|at| at.max(self.backoff.until_ns));
        match self.pick(now_ns) {
            Pick::Now(key) => self.issue(key, now_ns),
            Pick::Later(at) => Next::At(gathered.map_or(at, |gathered| gathered.min(at))),
            Pick::Nothing => gathered.map_or(Next::Nothing, Next::At),
        }
    }

    /// How the write under way ended.
    pub fn done(&mut self, answer: &Answer, now_ns: u64) {
        let Some(InFlight { key, action, count }) = self.in_flight.take() else { return };
        let Some(series) = self.series.get_mut(&key) else { return };
        match (&answer.outcome, action) {
            (Outcome::Done, _) => series.wrote(count, now_ns),
            // Its count is not known, but that it stands.
            (Outcome::AlreadyThere, Action::Create) => series.wrote(1, now_ns),
            // Its time to live is over, or somebody deleted it.
            (Outcome::Gone(_), Action::Update) => series.expired(),
            // Who would read it is gone, too.
            (Outcome::Gone(_), Action::Create) => drop(self.series.remove(&key)),
            (Outcome::Final(_), _) => self.give_up(&key),
            (Outcome::AlreadyThere, Action::Update) => return self.failed(&key, answer, None, now_ns),
            (Outcome::Retry { after, .. }, _) => return self.failed(&key, answer, *after, now_ns),
        }
        self.revision += 1;
        self.backoff.succeeded();
    }

    /// From now on these settings hold.
    pub fn configure(&mut self, settings: config::Events) {
        self.settings = settings;
    }

    /// Nobody will ever learn how the write under way ended. It is made again, which is harmless.
    pub fn forgotten(&mut self) {
        self.in_flight = None;
    }

    /// What was done, and what waits.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let in_series: u64 = self.series.values().map(Series::waiting).sum();
        let waiting = in_series.saturating_add(self.further.count()).saturating_add(self.gathering.open().len() as u64);
        Counts { waiting, series: self.series.len() as u64, ..self.counts }
    }

    /// What is under way is tried again, this series later and later; the others only if the server as a whole cannot.
    fn failed(&mut self, key: &Key, answer: &Answer, after: Option<Duration>, now_ns: u64) {
        self.node.give_back(self.settings.node_budget);
        self.owners.give_back(&key.owner, self.settings.pod_budget);
        let Some(series) = self.series.get_mut(key) else { return };
        // What is forbidden after an outage waits as after a first failure: that may be over soon.
        let failures = if answer.is_forbidden() { series.refusals } else { series.failures };
        let wait_ns = self.backoff.wait_ns(failures, after.filter(|_| !answer.is_about_server()));
        series.failed(answer.is_forbidden(), now_ns.saturating_add(wait_ns));
        if answer.is_about_server() {
            self.backoff.failed(after, now_ns);
        } else {
            self.backoff.answered(now_ns);
        }
        if series.refusals >= REFUSALS {
            self.give_up(key);
            self.revision += 1;
        }
    }

    /// The API server will never take it.
    fn give_up(&mut self, key: &Key) {
        if let Some(series) = self.series.remove(key) {
            self.counts.dropped += series.waiting();
        }
    }

    fn file(&mut self, happening: &Happening<'_>, now_ns: u64) {
        let key = happening.key();
        let window_ns = nanoseconds(self.settings.series);
        if let Some(series) = self.series.get_mut(&key).filter(|series| series.takes(happening, window_ns)) {
            series.join(happening, now_ns.saturating_add(nanoseconds(SETTLE)));
            self.counts.coalesced += 1;
            return;
        }
        if self.series.len() >= SERIES && !self.series.contains_key(&key) {
            self.make_room();
        }
        self.order += 1;
        let series = Series::begin(happening, &self.identity.node, &self.settings.node_namespace, self.order);
        self.series.insert(key, series);
    }

    /// Forgets the series that is missed least: the oldest with nothing to tell, else the oldest that the API server has not
    /// been told of, else the oldest.
    fn make_room(&mut self) {
        let in_flight = self.in_flight.as_ref().map(|in_flight| &in_flight.key);
        let spared = |series: &Series| {
            let further = series.key == Key::further() && series.is_due();
            further || Some(&series.key) == in_flight || !series.may_make_room()
        };
        let candidates = self.series.values().filter(|series| !spared(series));
        let least =
            candidates.min_by_key(|series| (series.is_due(), series.in_doubt || !series.is_new(), series.order));
        let Some(series) = least.map(|series| series.key.clone()).and_then(|key| self.series.remove(&key)) else {
            return;
        };
        if series.is_due() {
            self.counts.told_together += series.waiting();
            self.further.add(series);
        }
    }

    /// Makes one event of what had to make room, when the last such event is written.
    fn tell_together(&mut self) {
        let key = Key::further();
        if self.series.get(&key).is_some_and(Series::is_due) {
            return;
        }
        if let Some(series) = self.further.take(&self.identity.node, &self.settings.node_namespace) {
            self.series.insert(key, series);
        }
    }

    fn issue(&mut self, key: Key, now_ns: u64) -> Next<EventWrite> {
        let Some(series) = self.series.get_mut(&key) else { return Next::Nothing };
        self.node.take(self.settings.node_budget, now_ns);
        self.owners.take(&key.owner, self.settings.pod_budget, now_ns);
        series.held_up = false;
        series.in_doubt = true;
        let write = object::write(series, &self.identity, &self.boot_id);
        self.in_flight = Some(InFlight { key, action: write.action, count: series.count });
        Next::Write(write)
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
