//! When to look again for names that are missing. Pure: times come in as numbers.
//!
//! For a kill that waits for its names somebody looks once a second, for as long as it may wait. A container that is
//! merely there without names is looked at ever more seldom, and then no more: so a machine at rest is left at rest.

use std::collections::BTreeMap;

/// Most cgroups whose names are sought at a time. Further ones are named if their files tell when somebody asks.
pub(in crate::agent::locate) const SEEK_CAPACITY: usize = 1_024;

/// Longest search for the sake of one kill: the longest that it may be held back.
pub const SEEK_NS: u64 = 30 * SECOND;

/// How long a container without names is looked at on its own account; the pauses double from a second on.
pub(in crate::agent::locate) const FADE_NS: u64 = 127 * SECOND;

const SECOND: u64 = 1_000_000_000;

#[derive(Debug)]
struct Search {
    next_ns: u64,
    pause_ns: u64,
    until_ns: u64,
    fades: bool,
}

/// Cgroups, by path, whose names are sought.
#[derive(Debug, Default)]
pub(in crate::agent::locate) struct Seek {
    open: BTreeMap<Box<str>, Search>,
    refused: u64,
}

impl Seek {
    /// Once a second until `until_ns`.
    pub(in crate::agent::locate) fn urgently(&mut self, path: &str, now_ns: u64, until_ns: u64) {
        let until_ns = until_ns.min(now_ns.saturating_add(SEEK_NS));
        let Some(search) = self.entry(path, now_ns) else { return };
        search.until_ns = if search.fades { until_ns } else { until_ns.max(search.until_ns) };
        (search.pause_ns, search.fades) = (SECOND, false);
        search.next_ns = search.next_ns.min(now_ns.saturating_add(SECOND));
    }

    /// Ever more seldom, unless it is sought already.
    pub(in crate::agent::locate) fn now_and_then(&mut self, path: &str, now_ns: u64) {
        self.entry(path, now_ns);
    }

    /// Those to look at now.
    pub(in crate::agent::locate) fn due(&mut self, now_ns: u64) -> Vec<Box<str>> {
        let mut due = Vec::new();
        self.open.retain(|path, search| {
            if search.next_ns <= now_ns {
                due.push(path.clone());
                search.pause_ns = if search.fades { search.pause_ns.saturating_mul(2) } else { search.pause_ns };
                search.next_ns = now_ns.saturating_add(search.pause_ns);
            }
            search.next_ns <= search.until_ns
        });
        due
    }

    /// When [`Seek::due`] has something to return, nanoseconds since boot.
    pub(in crate::agent::locate) fn next_due(&self) -> Option<u64> {
        self.open.values().map(|search| search.next_ns).min()
    }

    /// Its names are known, or nobody wants them any more.
    pub(in crate::agent::locate) fn end(&mut self, path: &str) {
        self.open.remove(path);
    }

    /// Searches not begun, because [`SEEK_CAPACITY`] others went on.
    pub(in crate::agent::locate) fn refused(&self) -> u64 {
        self.refused
    }

    fn entry(&mut self, path: &str, now_ns: u64) -> Option<&mut Search> {
        if !self.open.contains_key(path) {
            if self.open.len() >= SEEK_CAPACITY {
                self.refused += 1;
                return None;
            }
            let search = Search {
                next_ns: now_ns.saturating_add(SECOND),
                pause_ns: SECOND,
                until_ns: now_ns.saturating_add(FADE_NS),
                fades: true,
            };
            self.open.insert(path.into(), search);
        }
        self.open.get_mut(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which a search that began at second 0 looks.
    fn looks(seek: &mut Seek) -> Vec<u64> {
        let mut looks = Vec::new();
        while let Some(at) = seek.next_due() {
            assert_eq!(seek.due(at).len(), 1);
            looks.push(at / SECOND);
        }
        looks
    }

    #[test]
    fn for_a_kill_somebody_looks_once_a_second_as_long_as_it_waits() {
        let mut seek = Seek::default();
        seek.urgently("/a", 0, 5 * SECOND);
        assert_eq!(looks(&mut seek), [1, 2, 3, 4, 5]);
        seek.urgently("/a", 0, 500 * SECOND);
        assert_eq!(looks(&mut seek).len(), 30);
    }

    #[test]
    fn a_container_without_names_is_looked_at_ever_more_seldom() {
        let mut seek = Seek::default();
        seek.now_and_then("/a", 0);
        assert_eq!(looks(&mut seek), [1, 3, 7, 15, 31, 63, 127]);
    }

    #[test]
    fn a_kill_makes_a_slow_search_urgent_and_one_that_is_found_ends() {
        let mut seek = Seek::default();
        seek.now_and_then("/a", 0);
        for at in [1, 3, 7] {
            assert_eq!(seek.due(at * SECOND).len(), 1);
        }
        seek.urgently("/a", 8 * SECOND, 10 * SECOND);
        seek.now_and_then("/a", 8 * SECOND);
        assert_eq!(seek.next_due(), Some(9 * SECOND));
        seek.end("/a");
        assert_eq!(seek.next_due(), None);
    }

    #[test]
    fn more_than_there_is_room_for_are_refused_and_counted() {
        let mut seek = Seek::default();
        for number in 0..=SEEK_CAPACITY {
            seek.now_and_then(&format!("/{number}"), 0);
        }
        assert_eq!((seek.open.len(), seek.refused()), (SEEK_CAPACITY, 1));
    }
}
