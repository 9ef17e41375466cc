//! Testimonies on their way to the API: the latest about each incident, the longest waiting first. Bounded by number and by
//! bytes; what finds no room goes back to whoever said it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    StoreError,
    pace::{MAX_WAITING, Pace},
};
use crate::controller::incident::Testimony;

/// Bytes of logs that wait, roughly. What would go beyond leaves its log behind: what it tells counts for more.
const MAX_LOGS: usize = 16 << 20;

/// What is to be delivered.
#[derive(Debug, Default)]
pub struct Pending {
    waiting: BTreeMap<String, Waiting>,
    under_way: BTreeSet<String>,
    pace: Pace,
    /// How many have come.
    count: u64,
    /// Bytes of the logs that wait.
    logs: usize,
}

#[derive(Debug)]
struct Waiting {
    testimony: Testimony,
    /// Who came first goes first.
    order: u64,
}

impl Pending {
    /// Takes what there is to say about the incident `name` by now; what was to be said before is not said any more.
    ///
    /// # Errors
    ///
    /// If there is no room for it.
    pub fn put(&mut self, name: String, mut testimony: Testimony) -> Result<(), Testimony> {
        self.count += 1;
        let before = self.waiting.get(&name).map(|before| (before.order, bytes(&before.testimony)));
        if self.waiting.len() >= MAX_WAITING && before.is_none() {
            return Err(testimony);
        }
        let (order, instead) = before.unwrap_or((self.count, 0));
        self.logs -= instead;
        if self.logs + bytes(&testimony) > MAX_LOGS {
            testimony.log = None;
        }
        self.logs += bytes(&testimony);
        self.waiting.insert(name, Waiting { testimony, order });
        Ok(())
    }

    /// The next one that may be sent at `now`; it is under way then.
    pub fn next(&mut self, now: Duration) -> Option<(String, Testimony)> {
        let free = self.waiting.iter().filter(|(name, _)| !self.under_way.contains(*name) && self.pace.may(name, now));
        let name = free.min_by_key(|(_, waiting)| waiting.order)?.0.clone();
        let waiting = self.waiting.remove(&name)?;
        self.logs -= bytes(&waiting.testimony);
        self.under_way.insert(name.clone());
        Some((name, waiting.testimony))
    }

    /// When [`Self::next`] has one; `None`: not before one comes or ends.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let free = self.waiting.keys().filter(|name| !self.under_way.contains(*name));
        free.map(|name| self.pace.until(name)).min()
    }

    /// One that was under way ended so. What may stand later waits again, unless there is more to say by now; gives back what
    /// does not.
    pub fn ended(
        &mut self,
        name: &str,
        testimony: Testimony,
        result: &Result<(), StoreError>,
        now: Duration,
    ) -> Option<Testimony> {
        self.under_way.remove(name);
        let after = match result {
            Err(StoreError::Later { after, .. }) => *after,
            Err(StoreError::Changed) => None,
            Ok(()) | Err(StoreError::Gone | StoreError::Refused(_)) => {
                self.pace.ended(name);
                return Some(testimony);
            }
        };
        self.pace.failed(name, after, now);
        if self.waiting.contains_key(name) {
            return None;
        }
        self.put(name.to_owned(), testimony).err()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn bytes(testimony: &Testimony) -> usize {
    testimony.log.as_ref().map_or(0, |excerpt| excerpt.text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::incident::{LogExcerpt, Origin};

    const NOW: Duration = Duration::from_secs(100);

    fn testimony(text: &str) -> Testimony {
        let log =
            LogExcerpt { id: "a".to_owned(), origin: Origin::Netconsole, text: text.to_owned(), lines_missing: 0 };
        Testimony { evidence: Vec::new(), log: Some(log) }
    }

    fn later() -> Result<(), StoreError> {
        Err(StoreError::Later { after: None, reason: String::new() })
    }

    #[test]
    fn the_latest_about_each_incident_is_sent_in_the_order_of_the_first() {
        let mut pending = Pending::default();
        for (name, text) in [("b", "1"), ("a", "2"), ("b", "3")] {
            pending.put(name.to_owned(), testimony(text)).unwrap();
        }
        assert_eq!(pending.next(NOW), Some(("b".to_owned(), testimony("3"))));
        assert_eq!(pending.next(NOW), Some(("a".to_owned(), testimony("2"))));
        assert_eq!(pending.next(NOW), None);
    }

    #[test]
    fn two_of_one_incident_are_never_under_way_at_once() {
        let mut pending = Pending::default();
        pending.put("a".to_owned(), testimony("1")).unwrap();
        let (name, first) = pending.next(NOW).expect("the first");
        pending.put("a".to_owned(), testimony("2")).unwrap();
        assert_eq!((pending.next(NOW), pending.due()), (None, None));
        pending.ended(&name, first, &Ok(()), NOW);
        assert_eq!(pending.next(NOW), Some(("a".to_owned(), testimony("2"))));
    }

    #[test]
    fn what_failed_waits_and_gives_way_to_what_is_newer() {
        let mut pending = Pending::default();
        pending.put("a".to_owned(), testimony("1")).unwrap();
        let (name, first) = pending.next(NOW).expect("the first");
        pending.put("a".to_owned(), testimony("2")).unwrap();
        pending.ended(&name, first, &later(), NOW);
        assert_eq!(pending.next(NOW), None);
        let due = pending.due().expect("a time");
        assert!(due > NOW);
        assert_eq!(pending.next(due), Some(("a".to_owned(), testimony("2"))));
        pending.ended("a", testimony("2"), &later(), due);
        assert_eq!(pending.next(due + NOW), Some(("a".to_owned(), testimony("2"))));
    }

    #[test]
    fn what_cannot_stand_is_given_up() {
        let mut pending = Pending::default();
        for error in [StoreError::Gone, StoreError::Refused(String::new())] {
            pending.put("a".to_owned(), testimony("1")).unwrap();
            let (name, first) = pending.next(NOW).expect("the first");
            pending.ended(&name, first, &Err(error), NOW);
            assert!(pending.is_empty());
        }
    }

    #[test]
    fn it_has_a_bound_and_gives_back_what_finds_no_room() {
        let mut pending = Pending::default();
        let put = |number: usize| pending.put(number.to_string(), Testimony::default()).is_ok();
        assert_eq!((0..MAX_WAITING + 2).map(put).filter(|kept| *kept).count(), MAX_WAITING);
    }

    #[test]
    fn logs_are_bounded_by_their_bytes() {
        let mut pending = Pending::default();
        let large = testimony(&"x".repeat(MAX_LOGS / 4));
        (0..6).for_each(|number| pending.put(format!("i-{number}"), large.clone()).unwrap());
        pending.put("i-0".to_owned(), testimony("less")).unwrap();
        pending.put("i-9".to_owned(), testimony("more")).unwrap();
        let logs = std::iter::from_fn(|| pending.next(NOW)).map(|(_, one)| bytes(&one)).collect::<Vec<_>>();
        assert_eq!(logs, [4, MAX_LOGS / 4, MAX_LOGS / 4, MAX_LOGS / 4, 0, 0, 4]);
        assert_eq!(pending.logs, 0);
    }
}
