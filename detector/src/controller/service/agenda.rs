//! Which incident has its turn next: of those that are due the one with the earliest evidence, each once at a time. Pure.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

/// Incidents that have something due, or may have.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Time of the first evidence: who died first goes first.
    first: Timestamp,
    /// When it is due; `None`: not by itself.
    at: Option<Duration>,
    /// Its turn is under way.
    running: bool,
}

impl Agenda {
    /// The incident `name`, whose first evidence is of the time `first`, is due at `now`; if its turn is under way, once
    /// more after it.
    pub(super) fn wake(&mut self, name: &str, first: Timestamp, now: Duration) {
        match self.entries.get_mut(name) {
            Some(entry) => entry.at = Some(entry.at.map_or(now, |at| at.min(now))),
            None => {
                self.entries.insert(name.to_owned(), Entry { first, at: Some(now), running: false });
            }
        }
    }

    /// The next one that is due at `now`; its turn is under way then.
    pub(super) fn next(&mut self, now: Duration) -> Option<String> {
        let due = |entry: &Entry| !entry.running && entry.at.is_some_and(|at| at <= now);
        let (name, entry) = self
            .entries
            .iter_mut()
            .filter(|(_, entry)| due(entry))
            .min_by(|(one, a), (other, b)| (a.first, one.as_str()).cmp(&(b.first, other.as_str())))?;
        (entry.running, entry.at) = (true, None);
        Some(name.clone())
    }

    /// The turn of `name` is over; it is due again at `again` without further news. `None`: not before there are some.
    pub(super) fn ended(&mut self, name: &str, again: Option<Duration>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.running = false;
        entry.at = match (entry.at, again) {
            (Some(woken), Some(again)) => Some(woken.min(again)),
            (woken, again) => woken.or(again),
        };
        if entry.at.is_none() {
            self.entries.remove(name);
        }
    }

    /// When [`Self::next`] has one.
    pub(super) fn due(&self) -> Option<Duration> {
        self.entries.values().filter(|entry| !entry.running).filter_map(|entry| entry.at).min()
    }

    /// Forgets all, turns that were under way too.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn who_died_first_goes_first_and_each_once_at_a_time() {
        let mut agenda = Agenda::default();
        for (name, first) in [("a", 30), ("b", 10), ("c", 20), ("b", 10)] {
            agenda.wake(name, at(first), NOW);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.next(NOW)).collect();
        assert_eq!(order, ["b", "c", "a"]);
    }

    #[test]
    fn what_happens_during_a_turn_is_looked_at_after_it() {
        let mut agenda = Agenda::default();
        agenda.wake("a", at(1), NOW);
        assert_eq!(agenda.next(NOW).as_deref(), Some("a"));
        agenda.wake("a", at(1), NOW);
        assert_eq!((agenda.next(NOW), agenda.due()), (None, None));
        agenda.ended("a", Some(NOW * 2));
        assert_eq!((agenda.due(), agenda.next(NOW).as_deref()), (Some(NOW), Some("a")));
        agenda.ended("a", Some(NOW * 2));
        assert_eq!((agenda.next(NOW), agenda.due()), (None, Some(NOW * 2)));
    }

    #[test]
    fn one_with_nothing_due_is_forgotten() {
        let mut agenda = Agenda::default();
        agenda.wake("a", at(1), NOW);
        agenda.next(NOW);
        agenda.ended("a", None);
        assert_eq!((agenda.due(), agenda.entries.len()), (None, 0));
    }
}
