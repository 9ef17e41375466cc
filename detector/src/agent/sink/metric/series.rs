//! Kills by container: which series there are, how long they live, and how many there may be. Pure.
//!
//! A series is named by namespace, pod and container, and belongs to a pod's uid: that of the pod which bore the name
//! last. It begins with zero when the container is seen, and ends a set time after its pod is gone. What nobody has seen
//! alive (restored, or named by a late kill alone) has an end from the beginning, which a sighting takes away.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use super::snapshot::SavedContainer;
use crate::{
    agent::{
        locate::{ContainerChange, Place},
        sink::report::Subject,
    },
    contract::metric::{HitLimit, KilledProcess},
    text,
};

/// Digits of a container's id that name it where its name was never learned.
const SHORT_ID: usize = 12;

/// Longest value of a label, in bytes: no Kubernetes name is longer (RFC 1123), but these come out of foreign files.
const LABEL_BYTES: usize = 253;

/// Labels that name a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) namespace: Box<str>,
    pub(super) pod: Box<str>,
    pub(super) container: Box<str>,
}

/// With whom a series ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// The pod with this uid.
    Pod(Box<str>),
    /// The container with this id, where there is no pod.
    Container(Box<str>),
}

/// Kills of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Count {
    owner: Owner,
    /// All of them.
    pub(super) kills: u64,
    /// Decisions of the OOM killer that they were.
    pub(super) decisions: u64,
    /// Number of the group kill that was counted last: further victims of it are no further decision.
    last_group: Option<u64>,
    /// The same by process and limit, as far as there was room for the series.
    pub(super) by: BTreeMap<(KilledProcess, HitLimit), u64>,
    /// When the series ends, nanoseconds since boot; `None` while its owner lives.
    end: Option<u64>,
}

/// What had no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// Containers without series, or whose series ended early.
    pub(super) containers: u64,
    /// Kills without a series by process and limit.
    pub(super) by: u64,
}

/// Processes that were killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kills {
    pub(super) process: KilledProcess,
    pub(super) limit: HitLimit,
    pub(super) count: u64,
    /// Number of the decision to kill a whole group, of which each victim is told on its own; `None`: each is a decision.
    pub(super) group: Option<u64>,
}

/// All series of containers.
#[derive(Debug)]
pub(super) struct Series {
    /// Series of one metric at most.
    limit: usize,
    keep_ns: u64,
    counts: BTreeMap<Arc<Key>, Count>,
    /// Series by process and limit, of all containers together.
    by: usize,
    /// Ends of series, first one first.
    ends: BTreeSet<(u64, Arc<Key>)>,
    /// Who is known to live. As long as the nodes's pods; what goes beyond `limit` is not remembered.
    alive: BTreeSet<Owner>,
    refused: Refused,
}

impl Series {
    /// At most `limit` series of each metric, which are kept `keep_ns` after the pod is gone.
    pub(super) fn new(limit: usize, keep_ns: u64) -> Self {
        Self {
            limit,
            keep_ns,
            counts: BTreeMap::new(),
            by: 0,
            ends: BTreeSet::new(),
            alive: BTreeSet::new(),
            refused: Refused::default(),
        }
    }

    /// A container or pod was seen or is gone.
    pub(super) fn change(&mut self, change: &ContainerChange, now_ns: u64) {
        match change {
            ContainerChange::Seen(place) => self.seen(place, now_ns),
            ContainerChange::Gone { id } => self.gone(&Owner::Container(label(id)), now_ns),
            ContainerChange::PodGone { uid } => self.gone(&Owner::Pod(label(uid)), now_ns),
        }
    }

    fn seen(&mut self, place: &Place, now_ns: u64) {
        let subject = Subject::of(Some(place));
        let Some((key, owner)) = identify(&subject) else { return };
        if self.alive.len() < self.limit {
            self.alive.insert(owner.clone());
        }
        self.revive(&owner);
        // A pod's own cgroup and its sandbox are no containers, and what has no name yet is told again with it.
        if subject.lacks_names() || subject.container.is_none() {
            return;
        }
        let end = now_ns.saturating_add(self.keep_ns);
        if let Some(count) = self.touch(key, &owner, end).and_then(|key| self.counts.get_mut(&key)) {
            // A new pod that bears the name of an older one, which may not be told as gone yet.
            count.owner = owner;
        }
    }

    /// The owner lives: none of its series has an end.
    fn revive(&mut self, owner: &Owner) {
        if self.ends.is_empty() {
            return;
        }
        for (key, count) in self.counts.iter_mut().filter(|(_, count)| count.owner == *owner) {
            if let Some(end) = count.end.take() {
                self.ends.remove(&(end, Arc::clone(key)));
            }
        }
    }

    fn gone(&mut self, owner: &Owner, now_ns: u64) {
        // Many are told that have no series: sandboxes, containers of pods.
        if !self.alive.remove(owner) {
            return;
        }
        let at = now_ns.saturating_add(self.keep_ns);
        for (key, count) in self.counts.iter_mut().filter(|(_, count)| count.owner == *owner) {
            set_end(&mut self.ends, key, count, Some(at));
        }
    }

    /// Processes of `subject` were killed. What lives in no pod and no container has no series.
    pub(super) fn kill(&mut self, subject: &Subject, kills: Kills, now_ns: u64) {
        let Some((key, owner)) = identify(subject) else { return };
        let Some(key) = self.touch(key, &owner, now_ns.saturating_add(self.keep_ns)) else { return };
        if let Some(count) = self.counts.get_mut(&key) {
            // Victims of one group follow each other: the kernel decides one thing at a time.
            let known = kills.group.is_some() && count.last_group == kills.group;
            count.last_group = kills.group;
            count.decisions = count.decisions.saturating_add(if known { 0 } else { kills.count });
        }
        self.add(&key, kills.count, [((kills.process, kills.limit), kills.count)]);
    }

    /// Makes the series `key` if there is room, and gives it the end that follows from whether `owner` lives:
    /// `otherwise`, if nobody saw it alive.
    fn touch(&mut self, key: Key, owner: &Owner, otherwise: u64) -> Option<Arc<Key>> {
        if !self.counts.contains_key(&key) && !self.make_room() {
            return None;
        }
        let key = Arc::new(key);
        let count = self.counts.entry(Arc::clone(&key)).or_insert_with(|| Count::of(owner));
        let mut lives = self.alive.contains(&count.owner);
        if !lives && self.alive.contains(owner) {
            count.owner.clone_from(owner);
            lives = true;
        }
        if lives {
            set_end(&mut self.ends, &key, count, None);
        } else {
            let end = otherwise.max(count.end.unwrap_or(0));
            set_end(&mut self.ends, &key, count, Some(end));
        }
        Some(key)
    }

    /// Adds kills to a series: all of them, and the same by process and limit as far as there is room.
    fn add(&mut self, key: &Key, kills: u64, by: impl IntoIterator<Item = ((KilledProcess, HitLimit), u64)>) {
        let Some(count) = self.counts.get_mut(key) else { return };
        count.kills = count.kills.saturating_add(kills);
        for (what, kills) in by {
            match count.by.entry(what) {
                Entry::Occupied(mut booked) => *booked.get_mut() = booked.get().saturating_add(kills),
                Entry::Vacant(free) if self.by < self.limit => {
                    free.insert(kills);
                    self.by += 1;
                }
                Entry::Vacant(_) => self.refused.by = self.refused.by.saturating_add(kills),
            }
        }
    }

    /// Whether one more container may have series. The one that would end first gives way, so that a pod that comes and
    /// goes takes nothing from one that lives.
    fn make_room(&mut self) -> bool {
        if self.counts.len() < self.limit {
            return true;
        }
        self.refused.containers += 1;
        let Some((_, key)) = self.ends.pop_first() else { return false };
        self.remove(&key);
        true
    }

    fn remove(&mut self, key: &Key) {
        if let Some(count) = self.counts.remove(key) {
            self.by -= count.by.len();
        }
    }

    /// Ends the series whose time has come.
    pub(super) fn expire(&mut self, now_ns: u64) {
        while self.ends.first().is_some_and(|(end, _)| *end <= now_ns) {
            let Some((_, key)) = self.ends.pop_first() else { return };
            self.remove(&key);
        }
    }

    /// When the next series ends, nanoseconds since boot.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// All containers with their counts, in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Count)> {
        self.counts.iter().map(|(key, count)| (&**key, count))
    }

    /// Series of one metric at most.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// What had no room.
    pub(super) fn refused(&self) -> Refused {
        self.refused
    }

    /// What is to survive a restart.
    pub(super) fn save(&self, now_ns: u64) -> Vec<SavedContainer> {
        self.counts.iter().map(|(key, count)| SavedContainer::of(key, &count.owner, count, now_ns)).collect()
    }

    /// Takes over what an earlier run counted. Nobody has been seen yet: all of it ends unless its owner is seen.
    pub(super) fn restore(&mut self, saved: Vec<SavedContainer>, now_ns: u64) {
        for container in saved {
            let keep_ns = container.remaining_ns.unwrap_or(self.keep_ns).min(self.keep_ns);
            let (key, owner, by) = container.parts();
            if let Some(key) = self.touch(key, &owner, now_ns.saturating_add(keep_ns)) {
                if let Some(count) = self.counts.get_mut(&key) {
                    count.decisions = count.decisions.saturating_add(container.decisions);
                }
                self.add(&key, container.kills, by);
            }
        }
    }
}

impl Count {
    fn of(owner: &Owner) -> Self {
        Self { owner: owner.clone(), kills: 0, decisions: 0, last_group: None, by: BTreeMap::new(), end: None }
    }

    /// When the series ends, nanoseconds since boot; `None` while its owner lives.
    pub(super) fn end(&self) -> Option<u64> {
        self.end
    }
}

fn set_end(ends: &mut BTreeSet<(u64, Arc<Key>)>, key: &Arc<Key>, count: &mut Count, end: Option<u64>) {
    if let Some(before) = std::mem::replace(&mut count.end, end) {
        ends.remove(&(before, Arc::clone(key)));
    }
    if let Some(end) = end {
        ends.insert((end, Arc::clone(key)));
    }
}

/// Labels and owner of `subject`; `None` outside of pods and containers.
fn identify(subject: &Subject) -> Option<(Key, Owner)> {
    let owner = match (&subject.pod_uid, &subject.container_id) {
        (Some(uid), _) => Owner::Pod(label(uid)),
        (None, Some(id)) => Owner::Container(label(id)),
        (None, None) => return None,
    };
    let short = || subject.container_id.as_deref().map(|id| id.chars().take(SHORT_ID).collect::<String>());
    let container = subject.container.clone().or_else(short).unwrap_or_default();
    let (namespace, pod) = match (&subject.namespace, &subject.pod) {
        (Some(namespace), Some(pod)) => (namespace.as_str(), pod.as_str()),
        _ => ("", subject.pod_uid.as_deref().unwrap_or_default()),
    };
    Some((Key { namespace: label(namespace), pod: label(pod), container: label(&container) }, owner))
}

/// `text` as a label, cut to what a name can be.
pub(super) fn label(text: &str) -> Box<str> {
    text::start(text, LABEL_BYTES).into()
}

#[cfg(test)]
mod tests {
    use super::super::{
        Metrics,
        tests::{kill, metrics, place, samples, samples_with, seen, total_of},
    };
    use crate::agent::{locate::Place, sink::report::KillReport};

    /// What is counted of kills of the container `app` of the pod `cart` by process.
    fn by_process(metrics: &Metrics, process: &str) -> f64 {
        samples_with(metrics, &format!("process=\"{process}\"")).iter().map(|(_, value)| value).sum()
    }

    fn decisions_of(metrics: &Metrics, pod: &str) -> f64 {
        let labels = format!("{{namespace=\"shop\",pod=\"{pod}\",container=\"app\"}}");
        samples(metrics)[&format!("detector_container_oom_decisions_total{labels}")]
    }

    /// Kills all processes of the container at once: the first one, and `children` others.
    fn kill_group(metrics: &mut Metrics, place: &Place, incident: u64, children: u32) {
        for victim in 1..=children + 1 {
            let process = if victim == 3 { "init" } else { "child" }.to_owned();
            metrics.kill(&KillReport { process, incident, victim, group_kill: true, ..kill(place) }, 2);
        }
    }

    #[test]
    fn a_group_kill_is_no_kill_of_children_and_one_decision_but_each_process_counts() {
        let mut metrics = metrics();
        let app = place("cart", "u1", "app");
        metrics.container(&seen(app.clone()), 1);
        assert_eq!(decisions_of(&metrics, "cart"), 0.0);
        kill_group(&mut metrics, &app, 7, 10);
        assert_eq!(total_of(&metrics, "cart", "app"), Some(11.0), "as many as the kernel killed");
        assert_eq!(["group", "child", "init"].map(|process| by_process(&metrics, process)), [11.0, 0.0, 0.0]);
        assert_eq!(decisions_of(&metrics, "cart"), 1.0);
        kill_group(&mut metrics, &app, 8, 10);
        metrics.kill(&kill(&app), 3);
        metrics.kill(&kill(&app), 3);
        assert_eq!(decisions_of(&metrics, "cart"), 4.0, "two groups and two children");
        assert_eq!(by_process(&metrics, "child"), 2.0);
    }

    #[test]
    fn a_group_kill_that_hits_two_containers_is_one_decision_of_each() {
        let mut metrics = metrics();
        let places = [place("cart", "u1", "app"), place("till", "u2", "app")];
        for victim in 1..=6 {
            let place = &places[victim as usize % 2];
            metrics.kill(&KillReport { incident: 7, victim, group_kill: true, ..kill(place) }, 2);
        }
        assert_eq!((decisions_of(&metrics, "cart"), decisions_of(&metrics, "till")), (1.0, 1.0));
    }

    #[test]
    fn a_group_within_the_container_counts_by_its_processes() {
        let mut metrics = metrics();
        let app = place("cart", "u1", "app");
        metrics.kill(&KillReport { limit: "nested".into(), group_kill: true, ..kill(&app) }, 2);
        assert_eq!((by_process(&metrics, "child"), by_process(&metrics, "group")), (1.0, 0.0));
    }

    #[test]
    fn decisions_go_on_after_a_restart() {
        let mut before = metrics();
        let app = place("cart", "u1", "app");
        kill_group(&mut before, &app, 7, 10);
        let mut after = metrics();
        after.restore(serde_json::from_str(&serde_json::to_string(&before.snapshot(3)).unwrap()).unwrap(), 50);
        kill_group(&mut after, &app, 7, 10);
        assert_eq!(decisions_of(&after, "cart"), 2.0, "numbers of decisions begin anew with each run");
    }
}
