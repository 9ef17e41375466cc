//! Remembers what the runtimes' files said of each container, so that they are read once, early, and off the hot path.
//!
//! A container is *wanted* as its cgroup is made and read when the flow has time ([`NameCache::fetch`]). What is still
//! missing when somebody asks is read then, at most once a second for each container. A dead container's names stay as
//! long as its cgroup is remembered.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    cgroup_path::ContainerPart,
    cgroups::RETENTION_NS,
    place::Runtime,
    runtime::{self, NameError, Names, Wanted},
};

/// Most containers whose names are kept, the dead included.
pub(super) const NAMES_CAPACITY: usize = 16_384;

/// Most containers that wait for their first read. Further ones are read when somebody asks.
pub(super) const WAITING_CAPACITY: usize = 4096;

/// How often [`NameCache::fetch`] tries a container whose files are not there or not complete.
const ATTEMPTS: u8 = 3;

/// Least time between two reads for the same container when somebody asks.
pub(super) const RETRY_NS: u64 = 1_000_000_000;

/// Most errors kept for the flow to tell.
pub(super) const ERRORS_CAPACITY: usize = 8;

/// Counts of what the search for names came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameCounters {
    /// Reads that found a container's file.
    pub found: u64,
    /// Reads that found none.
    pub missing: u64,
    /// Files that could not be read or understood.
    pub errors: u64,
    /// Containers that were not put in line, because too many waited already.
    pub not_queued: u64,
    /// Names forgotten early or not kept, because there was no room.
    pub evicted_early: u64,
}

/// An answer to the question for a container's names.
pub(super) struct Answer {
    /// What is known.
    pub(super) names: Option<Arc<Names>>,
    /// Nothing can be added to it.
    pub(super) complete: bool,
    /// Not worth another question before, nanoseconds since boot.
    pub(super) retry_at: u64,
}

/// The names of containers by id.
#[derive(Debug)]
pub(super) struct NameCache {
    root: PathBuf,
    known: HashMap<Box<str>, Known>,
    fresh: VecDeque<Box<str>>,
    again: VecDeque<Box<str>>,
    dead: VecDeque<(u64, Box<str>)>,
    generation: u64,
    counters: NameCounters,
    errors: Vec<NameError>,
}

#[derive(Debug)]
struct Known {
    runtime: Runtime,
    user: Option<u32>,
    names: Option<Arc<Names>>,
    attempts: u8,
    asked_at: Option<u64>,
    removed_at: Option<u64>,
}

impl Known {
    fn complete(&self) -> bool {
        self.names.as_ref().is_some_and(|names| names.sandbox || names.init_pid.is_some())
    }
}

impl NameCache {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            known: HashMap::new(),
            fresh: VecDeque::new(),
            again: VecDeque::new(),
            dead: VecDeque::new(),
            generation: 0,
            counters: NameCounters::default(),
            errors: Vec::new(),
        }
    }

    /// A container's cgroup was made: puts it in line. A container that starts again keeps its names, but its pid is a
    /// new one.
    pub(super) fn want(&mut self, part: ContainerPart<'_>, user: Option<u32>) {
        let Some(known) = self.entry(part, user) else { return };
        known.removed_at = None;
        known.attempts = 0;
        if let Some(names) = known.names.as_mut().filter(|names| names.init_pid.is_some()) {
            Arc::make_mut(names).init_pid = None;
            self.generation += 1;
        }
        if self.fresh.len() < WAITING_CAPACITY {
            self.fresh.push_back(part.id.into());
        } else {
            self.counters.not_queued += 1;
        }
    }

    /// A container's cgroup was removed at `boot_ns`.
    pub(super) fn forget(&mut self, id: &str, boot_ns: u64) {
        self.expire(boot_ns);
        if let Some(known) = self.known.get_mut(id).filter(|known| known.removed_at.is_none()) {
            known.removed_at = Some(boot_ns);
            self.dead.push_back((boot_ns, id.into()));
            // One container that is started over and over leaves an entry each time.
            if self.dead.len() > NAMES_CAPACITY {
                self.drop_oldest_dead(true);
            }
        }
    }

    /// Reads files for at most `budget` containers in line; returns how many still wait for their first read.
    pub(super) fn fetch(&mut self, budget: usize) -> usize {
        let again = self.again.len().min(budget.saturating_sub(self.fresh.len()));
        for _ in 0..budget {
            let Some(id) = self.fresh.pop_front() else { break };
            self.try_in_line(id);
        }
        for _ in 0..again {
            let Some(id) = self.again.pop_front() else { break };
            self.try_in_line(id);
        }
        self.fresh.len()
    }

    /// The names of a container, read now if they are not complete and were not asked for within a second.
    /// `removed_at`: when its cgroup was removed, if it was.
    pub(super) fn ask(
        &mut self,
        part: ContainerPart<'_>,
        user: Option<u32>,
        removed_at: Option<u64>,
        boot_ns: u64,
    ) -> Answer {
        let retry_at = boot_ns.saturating_add(RETRY_NS);
        let new = !self.known.contains_key(part.id);
        let Some(known) = self.entry(part, user) else {
            // No room: the answer lives in the cgroup's node alone.
            let names = self.read(part.runtime, part.id, user).map(Arc::new);
            return Answer { names, complete: false, retry_at };
        };
        let due = known.asked_at.is_none_or(|asked_at| boot_ns.saturating_sub(asked_at) >= RETRY_NS);
        if !known.complete() && due {
            known.asked_at = Some(boot_ns);
            self.refresh(part.id);
        }
        if let Some(removed_at) = removed_at.filter(|_| new) {
            self.forget(part.id, removed_at);
        }
        let known = self.known.get(part.id);
        Answer {
            names: known.and_then(|known| known.names.clone()),
            complete: known.is_some_and(Known::complete),
            retry_at,
        }
    }

    /// Drops the names of containers that died too long before `now_ns`.
    pub(super) fn expire(&mut self, now_ns: u64) {
        while let Some((removed_at, _)) = self.dead.front()
            && now_ns.saturating_sub(*removed_at) > RETENTION_NS
        {
            self.drop_oldest_dead(false);
        }
    }

    /// Rises whenever something became known or ceased to hold.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn counters(&self) -> NameCounters {
        self.counters
    }

    pub(super) fn take_errors(&mut self) -> Vec<NameError> {
        std::mem::take(&mut self.errors)
    }

    /// The entry of a container, made if there is room.
    fn entry(&mut self, part: ContainerPart<'_>, user: Option<u32>) -> Option<&mut Known> {
        if !self.known.contains_key(part.id) {
            while self.known.len() >= NAMES_CAPACITY {
                if !self.drop_oldest_dead(true) {
                    self.counters.evicted_early += 1;
                    return None;
                }
            }
            let known =
                Known { runtime: part.runtime, user, names: None, attempts: 0, asked_at: None, removed_at: None };
            self.known.insert(part.id.into(), known);
        }
        self.known.get_mut(part.id)
    }

    /// Takes one entry off the line of the dead; `false` if it is empty. `early`: for want of room, not of its age.
    fn drop_oldest_dead(&mut self, early: bool) -> bool {
        let Some((removed_at, id)) = self.dead.pop_front() else { return false };
        if self.known.get(&id).is_some_and(|known| known.removed_at == Some(removed_at)) {
            self.known.remove(&id);
            self.counters.evicted_early += u64::from(early);
        }
        true
    }

    fn try_in_line(&mut self, id: Box<str>) {
        let Some(known) = self.known.get_mut(&id) else { return };
        if known.complete() {
            return;
        }
        known.attempts = known.attempts.saturating_add(1);
        self.refresh(&id);
        let more = self.known.get(&id).is_some_and(|known| !known.complete() && known.attempts < ATTEMPTS);
        if more && self.again.len() < WAITING_CAPACITY {
            self.again.push_back(id);
        }
    }

    fn refresh(&mut self, id: &str) {
        let Some((runtime, user)) = self.known.get(id).map(|known| (known.runtime, known.user)) else { return };
        let Some(mut names) = self.read(runtime, id, user) else { return };
        let Some(known) = self.known.get_mut(id) else { return };
        if let Some(before) = &known.names {
            names.init_pid = names.init_pid.or(before.init_pid);
            if **before == names {
                return;
            }
        }
        known.names = Some(Arc::new(names));
        self.generation += 1;
    }

    fn read(&mut self, runtime: Runtime, id: &str, user: Option<u32>) -> Option<Names> {
        match runtime::names(&self.root, Wanted { runtime, id, user }) {
            Ok(Some(names)) => {
                self.counters.found += 1;
                Some(names)
            }
            Ok(None) => {
                self.counters.missing += 1;
                None
            }
            Err(error) => {
                self.counters.errors += 1;
                if self.errors.len() < ERRORS_CAPACITY {
                    self.errors.push(error);
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &str) -> ContainerPart<'_> {
        ContainerPart { runtime: Runtime::Docker, id, level: 2 }
    }

    fn empty() -> (tempfile::TempDir, NameCache) {
        let root = tempfile::tempdir().unwrap();
        let cache = NameCache::new(root.path());
        (root, cache)
    }

    #[test]
    fn names_outlive_their_container_by_ten_minutes() {
        let (_root, mut cache) = empty();
        cache.want(part("aa"), None);
        cache.forget("aa", 1);
        cache.expire(1 + RETENTION_NS);
        assert_eq!(cache.known.len(), 1);
        cache.expire(2 + RETENTION_NS);
        assert_eq!((cache.known.len(), cache.dead.len()), (0, 0));
        assert_eq!(cache.counters().evicted_early, 0);
    }

    #[test]
    fn a_container_that_started_again_is_not_evicted_by_its_earlier_death() {
        let (_root, mut cache) = empty();
        cache.want(part("aa"), None);
        cache.forget("aa", 1);
        cache.want(part("aa"), None);
        cache.expire(10 * RETENTION_NS);
        assert_eq!(cache.known.len(), 1);
    }

    #[test]
    fn the_oldest_dead_make_room_and_without_any_the_newcomer_is_answered_but_not_kept() {
        let (_root, mut cache) = empty();
        let id = |number: usize| format!("{number:x}");
        for number in 0..NAMES_CAPACITY {
            cache.want(part(&id(number)), None);
        }
        assert_eq!(cache.fresh.len(), WAITING_CAPACITY);
        assert_eq!(cache.counters().not_queued, (NAMES_CAPACITY - WAITING_CAPACITY) as u64);
        assert!(cache.ask(part("ffffff"), None, None, 1).names.is_none());
        assert_eq!((cache.known.len(), cache.counters().evicted_early), (NAMES_CAPACITY, 1));
        cache.forget(&id(3), 1);
        cache.want(part("ffffff"), None);
        assert!(cache.known.contains_key("ffffff") && !cache.known.contains_key(id(3).as_str()));
        assert_eq!((cache.known.len(), cache.counters().evicted_early), (NAMES_CAPACITY, 2));
    }

    #[test]
    fn a_container_started_over_and_over_does_not_grow_the_line_of_the_dead() {
        let (_root, mut cache) = empty();
        for at in 1..=2 * NAMES_CAPACITY as u64 {
            cache.want(part("aa"), None);
            cache.forget("aa", at);
        }
        assert!(cache.dead.len() <= NAMES_CAPACITY);
        assert_eq!(cache.known.len(), 1);
    }

    #[test]
    fn a_container_first_asked_for_after_its_death_is_not_kept_for_ever() {
        let (_root, mut cache) = empty();
        cache.ask(part("aa"), None, Some(5), 6);
        cache.expire(6 + RETENTION_NS);
        assert_eq!(cache.known.len(), 0);
    }
}
