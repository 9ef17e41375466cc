//! Who leads, as one candidate sees it. Pure: what was read and the clocks in, what to write out.
//!
//! The rules are those of client-go's `tools/leaderelection`: another one's Lease has run out when this candidate has seen it
//! unchanged for the Lease's duration by its own clock; times of day in it are for people. A leader writes every few
//! seconds, and is none any more when its last write that stands was *asked* [`Timing::renew_deadline`] ago: sooner than
//! anybody else can see the Lease run out.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Moment;

/// How fast a leader is found and lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Others take the Lease when they have seen it unchanged for this time. A whole number of seconds.
    pub lease: Duration,
    /// A leader that has not renewed for this time is none any more. Less than `lease`.
    pub renew_deadline: Duration,
    /// Pause between two tries, lengthened at random by up to a fifth.
    pub retry: Duration,
}

impl Timing {
    /// As client-go's defaults: 15 s, 10 s, 2 s.
    pub const DEFAULT: Self =
        Self { lease: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry: Duration::from_secs(2) };
}

/// A Lease as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `spec.holderIdentity`; empty: nobody.
    pub holder: String,
    /// `spec.leaseDurationSeconds`.
    pub seconds: u64,
    /// `spec.acquireTime`, as it is written.
    pub acquired: String,
    /// `spec.renewTime`, as it is written.
    pub renewed: String,
    /// `spec.leaseTransitions`.
    pub transitions: u64,
}

/// What a candidate writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Make the Lease.
    Create(Record),
    /// Write this over the version that was read.
    Write(Record),
    /// Wait: somebody else leads.
    Wait,
}

/// One candidate.
#[derive(Clone, Debug)]
pub struct Candidate {
    identity: String,
    timing: Timing,
    /// The Lease and since when ([`Moment::monotonic`]) it is seen so; `None`: it was not read yet, or there is none.
    seen: Option<(Record, Duration)>,
    /// It leads until then ([`Moment::boot`]).
    until: Option<Duration>,
}

impl Candidate {
    /// A candidate with an identity that no other process ever has.
    #[must_use]
    pub fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, seen: None, until: None }
    }

    /// Takes what was read at `now`; `None`: there is no Lease.
    pub fn read(&mut self, record: Option<Record>, now: Moment) {
        let same = |one: &Record, other: &Record| {
            Record { version: String::new(), ..one.clone() } == Record { version: String::new(), ..other.clone() }
        };
        self.seen = match (record, self.seen.take()) {
            (Some(record), Some((before, since))) if same(&record, &before) => Some((record, since)),
            (record, _) => record.map(|record| (record, now.monotonic)),
        };
        if self.seen.as_ref().is_none_or(|(record, _)| record.holder != self.identity) {
            self.until = None;
        }
    }

    /// What to write at `now`.
    #[must_use]
    pub fn wish(&self, now: Moment) -> Wish {
        let Some((record, since)) = &self.seen else { return Wish::Create(self.mine(None, now.wall)) };
        let held = !record.holder.is_empty() && record.holder != self.identity;
        let lasts = self.timing.lease.max(Duration::from_secs(record.seconds));
        if held && now.monotonic < since.saturating_add(lasts) {
            return Wish::Wait;
        }
        Wish::Write(self.mine(Some(record), now.wall))
    }

    fn mine(&self, before: Option<&Record>, wall: Timestamp) -> Record {
        let now = format!("{wall:.6}");
        let still = before.filter(|before| before.holder == self.identity);
        Record {
            version: before.map(|before| before.version.clone()).unwrap_or_default(),
            holder: self.identity.clone(),
            seconds: self.timing.lease.as_secs(),
            acquired: still.map_or_else(|| now.clone(), |still| still.acquired.clone()),
            renewed: now,
            transitions: match (before, still) {
                (_, Some(still)) => still.transitions,
                (Some(before), None) => before.transitions.saturating_add(1),
                (None, None) => 0,
            },
        }
    }

    /// What it wrote stands as `record`; it was asked at `asked`.
    pub fn wrote(&mut self, record: Record, asked: Moment) {
        self.until = (record.holder == self.identity).then(|| asked.boot.saturating_add(self.timing.renew_deadline));
        self.seen = Some((record, asked.monotonic));
    }

    /// What gives the Lease free, if it is held: others need not wait then.
    #[must_use]
    pub fn farewell(&self, now: Moment) -> Option<Record> {
        let (record, _) = self.seen.as_ref().filter(|(record, _)| record.holder == self.identity)?;
        let renewed = format!("{:.6}", now.wall);
        Some(Record { holder: String::new(), seconds: 1, acquired: renewed.clone(), renewed, ..record.clone() })
    }

    /// It does not lead any more, whatever the Lease says.
    pub fn resign(&mut self) {
        self.until = None;
    }

    /// Until when it leads ([`Moment::boot`]); `None`: it does not.
    #[must_use]
    pub fn until(&self, now: Moment) -> Option<Duration> {
        self.until.filter(|until| now.boot < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Moment {
        let since = Duration::from_secs(second);
        Moment { monotonic: since, boot: since, wall: Timestamp::from_second(second.cast_signed()).expect("a time") }
    }

    fn candidate(identity: &str) -> Candidate {
        Candidate::new(identity.to_owned(), Timing::DEFAULT)
    }

    fn held_by(holder: &str, renewed: &str) -> Record {
        let version = format!("v-{renewed}");
        Record { version, holder: holder.to_owned(), seconds: 15, renewed: renewed.to_owned(), ..Record::default() }
    }

    #[test]
    fn the_first_makes_the_lease_and_leads_until_its_deadline() {
        let mut one = candidate("one");
        let Wish::Create(record) = one.wish(at(100)) else { panic!("a lease") };
        assert_eq!((record.holder.as_str(), record.transitions, record.seconds), ("one", 0, 15));
        assert_eq!(one.until(at(100)), None);
        one.wrote(Record { version: "1".to_owned(), ..record }, at(100));
        assert_eq!(one.until(at(109)), Some(Duration::from_secs(110)));
        assert_eq!(one.until(at(110)), None, "nobody else can lead before 115");
    }

    #[test]
    fn a_lease_runs_out_by_how_long_it_is_seen_unchanged_whatever_time_it_tells() {
        let mut two = candidate("two");
        for told in ["1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"] {
            two.read(Some(held_by("one", told)), at(100));
            assert_eq!(two.wish(at(114)), Wish::Wait, "{told}");
            two.read(Some(held_by("one", told)), at(114));
            assert!(matches!(two.wish(at(115)), Wish::Write(_)), "{told}");
        }
    }

    #[test]
    fn a_renewal_that_is_seen_begins_the_wait_anew() {
        let mut two = candidate("two");
        two.read(Some(held_by("one", "a")), at(100));
        two.read(Some(held_by("one", "b")), at(114));
        assert_eq!(two.wish(at(128)), Wish::Wait);
        // Another version with the same words is no renewal.
        two.read(Some(Record { version: "v-x".to_owned(), ..held_by("one", "b") }), at(128));
        let Wish::Write(record) = two.wish(at(129)) else { panic!("it has run out") };
        assert_eq!((record.version.as_str(), record.transitions), ("v-x", 1));
    }

    #[test]
    fn a_longer_lease_of_another_version_of_the_program_is_kept() {
        let mut two = candidate("two");
        two.read(Some(Record { seconds: 60, ..held_by("one", "a") }), at(100));
        assert_eq!(two.wish(at(159)), Wish::Wait);
        assert!(matches!(two.wish(at(160)), Wish::Write(_)));
    }

    #[test]
    fn what_was_given_free_is_taken_at_once() {
        let mut one = candidate("one");
        one.read(None, at(1));
        let Wish::Create(record) = one.wish(at(1)) else { panic!("a lease") };
        one.wrote(record, at(1));
        let free = one.farewell(at(2)).expect("it holds the lease");
        let mut two = candidate("two");
        assert_eq!(two.farewell(at(2)), None);
        two.read(Some(free), at(2));
        let Wish::Write(record) = two.wish(at(2)) else { panic!("it is free") };
        assert_eq!((record.holder.as_str(), record.transitions), ("two", 1));
    }

    #[test]
    fn a_leader_that_reads_of_another_one_leads_no_more() {
        let mut one = candidate("one");
        one.wrote(held_by("one", "a"), at(1));
        assert!(one.until(at(2)).is_some());
        one.read(Some(held_by("two", "b")), at(3));
        assert_eq!(one.until(at(3)), None);
    }

    #[test]
    fn who_renews_keeps_the_time_at_which_it_began() {
        let mut one = candidate("one");
        one.wrote(Record { acquired: "then".to_owned(), transitions: 7, ..held_by("one", "a") }, at(1));
        let Wish::Write(record) = one.wish(at(3)) else { panic!("a renewal") };
        assert_eq!((record.acquired.as_str(), record.transitions), ("then", 7));
    }
}
