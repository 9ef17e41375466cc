//! The containers whose names are known or being read, and for how long: as long as their cgroup is remembered.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::agent::{
    decode::event::CgroupKey,
    locate::{cgroup_path::ContainerPart, cgroups::RETENTION_NS, place::Runtime, runtime::Names},
};

/// Most containers whose names are kept, the dead included.
pub(in crate::agent::locate) const NAMES_CAPACITY: usize = 16_384;

/// What is known of one container.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) runtime: Runtime,
    pub(super) user: Option<u32>,
    /// Its cgroup, the last one that was made for it.
    pub(super) key: Option<CgroupKey>,
    pub(super) names: Option<Arc<Names>>,
    /// The reader has answered for it, whatever it found.
    pub(super) answered: bool,
    /// Number of the request whose answer counts.
    pub(super) pending: Option<u64>,
    /// How often it came to its turn in the line.
    pub(super) attempts: u8,
    /// The pending request came from the line, to which it may return.
    pub(super) in_line: bool,
    /// When somebody last asked, nanoseconds since boot.
    pub(super) asked_at: Option<u64>,
    /// When its cgroup was removed, nanoseconds since boot.
    pub(super) removed_at: Option<u64>,
}

impl Known {
    fn new(runtime: Runtime, user: Option<u32>) -> Self {
        Self {
            runtime,
            user,
            key: None,
            names: None,
            answered: false,
            pending: None,
            attempts: 0,
            in_line: false,
            asked_at: None,
            removed_at: None,
        }
    }

    /// Nothing can be added.
    pub(super) fn complete(&self) -> bool {
        self.names.as_ref().is_some_and(|names| names.sandbox || names.init_pid.is_some())
    }

    /// Takes over what was read; whether that says anything new.
    pub(super) fn learn(&mut self, mut names: Names) -> bool {
        if let Some(before) = &self.names {
            names.init_pid = names.init_pid.or(before.init_pid);
            if **before == names {
                return false;
            }
        }
        self.names = Some(Arc::new(names));
        true
    }
}

/// Containers by id.
#[derive(Debug, Default)]
pub(super) struct KnownNames {
    map: HashMap<Box<str>, Known>,
    /// The dead, oldest first. An entry whose time differs from the container's is of an earlier life.
    dead: VecDeque<(u64, Box<str>)>,
    evicted_early: u64,
}

impl KnownNames {
    /// The entry of a container, made if there is room.
    pub(super) fn entry(&mut self, part: ContainerPart<'_>, user: Option<u32>) -> Option<&mut Known> {
        if !self.map.contains_key(part.id) {
            while self.map.len() >= NAMES_CAPACITY {
                if !self.drop_oldest_dead(true) {
                    self.evicted_early += 1;
                    return None;
                }
            }
            self.map.insert(part.id.into(), Known::new(part.runtime, user));
        }
        self.map.get_mut(part.id)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Known> {
        self.map.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Known> {
        self.map.get_mut(id)
    }

    /// A container's cgroup was removed at `boot_ns`.
    pub(super) fn forget(&mut self, id: &str, boot_ns: u64) {
        self.expire(boot_ns);
        if let Some(known) = self.map.get_mut(id).filter(|known| known.removed_at.is_none()) {
            known.removed_at = Some(boot_ns);
            self.dead.push_back((boot_ns, id.into()));
            // One container that is started over and over leaves an entry each time.
            if self.dead.len() > NAMES_CAPACITY {
                self.drop_oldest_dead(true);
            }
        }
    }

    /// Drops containers that died too long before `now_ns`.
    fn expire(&mut self, now_ns: u64) {
        while let Some((removed_at, _)) = self.dead.front()
            && now_ns.saturating_sub(*removed_at) > RETENTION_NS
        {
            self.drop_oldest_dead(false);
        }
    }

    /// Names forgotten early or not kept, because there was no room.
    pub(super) fn evicted_early(&self) -> u64 {
        self.evicted_early
    }

    /// Takes one entry off the line of the dead; `false` if it is empty. `early`: for want of room, not of its age.
    fn drop_oldest_dead(&mut self, early: bool) -> bool {
        let Some((removed_at, id)) = self.dead.pop_front() else { return false };
        if self.map.get(&id).is_some_and(|known| known.removed_at == Some(removed_at)) {
            self.map.remove(&id);
            self.evicted_early += u64::from(early);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &str) -> ContainerPart<'_> {
        ContainerPart { runtime: Runtime::Docker, id, level: 2 }
    }

    fn begin(known: &mut KnownNames, id: &str) {
        known.entry(part(id), None).expect("room").removed_at = None;
    }

    #[test]
    fn names_outlive_their_container_by_ten_minutes() {
        let mut known = KnownNames::default();
        begin(&mut known, "aa");
        known.forget("aa", 1);
        known.expire(1 + RETENTION_NS);
        assert!(known.get("aa").is_some());
        known.expire(2 + RETENTION_NS);
        assert_eq!((known.map.len(), known.dead.len(), known.evicted_early()), (0, 0, 0));
    }

    #[test]
    fn a_container_that_started_again_is_not_evicted_by_its_earlier_death() {
        let mut known = KnownNames::default();
        begin(&mut known, "aa");
        known.forget("aa", 1);
        begin(&mut known, "aa");
        known.expire(10 * RETENTION_NS);
        assert_eq!(known.map.len(), 1);
    }

    #[test]
    fn the_oldest_dead_make_room_and_without_any_there_is_none() {
        let mut known = KnownNames::default();
        for number in 0..NAMES_CAPACITY {
            begin(&mut known, &format!("{number:x}"));
        }
        assert!(known.entry(part("ffffff"), None).is_none());
        assert_eq!(known.evicted_early(), 1);
        known.forget("3", 1);
        begin(&mut known, "ffffff");
        assert!(known.get("3").is_none());
        assert_eq!((known.map.len(), known.evicted_early()), (NAMES_CAPACITY, 2));
    }

    #[test]
    fn a_container_started_over_and_over_does_not_grow_the_line_of_the_dead() {
        let mut known = KnownNames::default();
        for at in 1..=2 * NAMES_CAPACITY as u64 {
            begin(&mut known, "aa");
            known.forget("aa", at);
        }
        assert!(known.dead.len() <= NAMES_CAPACITY);
        assert_eq!(known.map.len(), 1);
    }
}
