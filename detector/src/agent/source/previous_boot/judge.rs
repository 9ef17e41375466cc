//! How boots before this one ended, by all that was found. Pure.
//!
//! What the agent wrote down of the last boot that it saw is *its note*; a record is *new* if it was not there when the
//! agent looked last. In this order:
//!
//! | found | claimed | boot |
//! |---|---|---|
//! | a new dump of a panic, made since the noted boot began; without a note, in the half hour before this boot | `Panic`, for each | the noted one, for the first of them, if the agent was never told to stop |
//! | a new crash of kdump in that time, which no such dump tells | `Panic` | the same |
//! | a console that the kernel kept, with the line of a panic, and no such dump or crash | `Panic` | the same |
//! | a dump made for a shutdown as the newest of all; that console ends with the kernel's word of a restart; wtmp has a shutdown between the last two boots | `Clean` | the noted one, if that is the boot that was shut down |
//! | none of these, a note of another boot, and the agent was never told to stop | `Unclean`; new records that cannot be read are named as witnesses | the noted one |
//! | none of these, and the agent was told to stop before | nothing: it may have been an upgrade and a power cut later, or a shutdown | |
//! | none of these, and no note | nothing | |
//!
//! A note of this very boot means that the agent was restarted: nothing is looked for. A kernel that panics while it
//! panics leaves two dumps, numbered one after the other, within seconds: one death.
//!
//! Clocks may be wrong, and be set: what was noted of a boot counts from the earliest time that the agent saw in it, and a
//! record with a time that cannot be counts by not having been there before.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{
    boots::Boot,
    kdump::Crash,
    lines,
    piece::Reason,
    pstore::{Console, Dump, Records},
    wtmp::Shutdown,
};
use crate::contract::problem::previous_boot::{End, PreviousBoot};

/// Without a note, a record is of the boot before if it was made so shortly before this boot: servers test their memory
/// for long.
const BEFORE_BOOT: SignedDuration = SignedDuration::from_mins(30);
/// Clocks of two boots of one machine differ by less.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(60);
/// kdump writes its log within this time after the dump of pstore.
const DUMPING: SignedDuration = SignedDuration::from_mins(15);
/// Dumps of one death are made within this time of each other.
const DYING: SignedDuration = SignedDuration::from_secs(60);
/// What two programs say of the begin of one boot differs by less.
const SAME_BOOT: SignedDuration = SignedDuration::from_mins(10);

/// All that was found.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Of pstore.
    pub records: Records,
    /// Of kdump.
    pub crashes: Vec<Crash>,
    /// Of wtmp.
    pub shutdown: Option<Shutdown>,
}

impl Evidence {
    /// Digests of all records: what is known from now on.
    pub fn digests(&self) -> impl Iterator<Item = u64> {
        let Records { dumps, consoles, unreadable } = &self.records;
        let of_pstore = dumps.iter().map(|dump| dump.digest).chain(consoles.iter().map(|console| console.digest));
        of_pstore.chain(self.crashes.iter().map(|crash| crash.digest)).chain(unreadable.iter().map(|one| one.digest))
    }
}

/// How one boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Tells it from all others.
    pub id: u64,
    /// What is told.
    pub found: PreviousBoot,
}

/// Judges. `noted`: the last boot that the agent saw, which is not this one; `known`: digests of records that were there
/// then; `booted`: when this boot began. The last of the findings is of the boot before this one.
#[must_use]
pub fn judge(noted: Option<&Boot>, known: &BTreeSet<u64>, evidence: &Evidence, booted: Timestamp) -> Vec<Finding> {
    let case = Case { noted, known, booted };
    let panics = case.panics(evidence);
    if !panics.is_empty() {
        return panics;
    }
    let clean = case.clean(evidence);
    clean.or_else(|| case.unclean(evidence)).into_iter().collect()
}

struct Case<'a> {
    noted: Option<&'a Boot>,
    known: &'a BTreeSet<u64>,
    booted: Timestamp,
}

impl Case<'_> {
    fn panics(&self, evidence: &Evidence) -> Vec<Finding> {
        let is_panic = |dump: &&Dump| dump.reason == Reason::Panic && self.is_new(dump.digest, dump.at);
        let mut dumps: Vec<&Dump> = evidence.records.dumps.iter().filter(is_panic).collect();
        dumps.dedup_by(|later, first| goes_on(first, later));
        let tells = |dump: &&Dump, crash: &Crash| {
            dump.at.zip(crash.at).is_some_and(|(dump, crash)| dump.duration_until(crash).abs() <= DUMPING)
        };
        let crashes: Vec<&Crash> = evidence
            .crashes
            .iter()
            .filter(|crash| self.is_new(crash.digest, crash.at) && !dumps.iter().any(|dump| tells(dump, crash)))
            .collect();
        let mut found: Vec<Finding> = dumps
            .into_iter()
            .map(|dump| self.panic(dump.digest, dump.at, format!("pstore ({})", dump.backend), &dump.text))
            .chain(crashes.into_iter().map(|crash| {
                let name: String = crash.name.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
                let witness = format!("kdump ({}/{name})", super::kdump::PLACE);
                self.panic(crash.digest, crash.at, witness, &crash.text)
            }))
            .collect();
        if found.is_empty() {
            let console = self.console(evidence).filter(|console| lines::ends_in_panic(&console.text));
            found.extend(console.map(|console| {
                let witness = format!("the console in pstore ({})", console.backend);
                self.panic(console.digest, None, witness, &console.text)
            }));
        }
        found.sort_by_key(|finding| finding.found.at);
        if let Some(first) = found.first_mut() {
            first.found.boot_id = self.noted.filter(|boot| boot.stopped.is_none()).map(|boot| boot.id.clone());
        }
        found
    }

    fn panic(&self, id: u64, at: Option<Timestamp>, witness: String, text: &str) -> Finding {
        let at = self.own(at);
        let found = PreviousBoot { end: End::Panic, boot_id: None, at, witness, lines: lines::decisive(text) };
        Finding { id, found }
    }

    /// The time of a record, if it is one of its own. A kernel that lives has neither panicked nor shut down: what seems to
    /// be of this boot was stored without a time, and shows that at which pstore was mounted.
    fn own(&self, at: Option<Timestamp>) -> Option<Timestamp> {
        at.filter(|at| *at <= self.booted)
    }

    /// Whether a record is none of an older boot.
    fn is_new(&self, digest: u64, at: Option<Timestamp>) -> bool {
        let since = match self.noted {
            Some(boot) => boot.began.min(boot.alive).saturating_sub(TOLERANCE),
            None => self.booted.saturating_sub(BEFORE_BOOT),
        };
        let in_time = match (self.own(at), since) {
            (Some(at), Ok(since)) => at >= since,
            // It was not there when the agent looked last; if it never looked, nobody knows.
            _ => self.noted.is_some(),
        };
        in_time && !self.known.contains(&digest)
    }

    /// The console of the boot before this one, which is shown since this boot began.
    fn console<'e>(&self, evidence: &'e Evidence) -> Option<&'e Console> {
        let begin = self.booted.saturating_sub(TOLERANCE).ok()?;
        let mut consoles = evidence.records.consoles.iter().rev();
        consoles.find(|console| console.shown.is_some_and(|at| at >= begin) && !self.known.contains(&console.digest))
    }

    fn clean(&self, evidence: &Evidence) -> Option<Finding> {
        let found = |at: Option<Timestamp>, witness: String, boot: Option<&Boot>| PreviousBoot {
            end: End::Clean,
            boot_id: boot.map(|boot| boot.id.clone()),
            at,
            witness,
            lines: Vec::new(),
        };
        let newest = evidence.records.dumps.last();
        let dump = newest.filter(|dump| dump.reason == Reason::Shutdown && self.is_new(dump.digest, dump.at));
        if let Some(dump) = dump {
            let found = found(self.own(dump.at), format!("pstore ({})", dump.backend), self.noted);
            return Some(Finding { id: dump.digest, found });
        }
        if let Some(console) = self.console(evidence).filter(|console| lines::ends_in_order(&console.text)) {
            let found = found(None, format!("the console in pstore ({})", console.backend), self.noted);
            return Some(Finding { id: console.digest, found });
        }
        let near = |a: Timestamp, b: Timestamp| a.duration_until(b).abs() <= SAME_BOOT;
        let shutdown = evidence.shutdown.filter(|shutdown| near(shutdown.next, self.booted))?;
        let at = shutdown.shut_down?;
        let noted = self.noted.filter(|boot| near(boot.began, shutdown.began));
        let id = u64::try_from(at.as_second()).unwrap_or_default();
        Some(Finding { id, found: found(Some(at), "wtmp".to_owned(), noted) })
    }

    fn unclean(&self, evidence: &Evidence) -> Option<Finding> {
        let boot = self.noted.filter(|boot| boot.stopped.is_none())?;
        let unreadable = evidence.records.unreadable.iter().find(|one| self.is_new(one.digest, one.at));
        let record = unreadable.map(|one| format!(" and a record in pstore ({}) that cannot be read", one.backend));
        let found = PreviousBoot {
            end: End::Unclean,
            boot_id: Some(boot.id.clone()),
            at: None,
            witness: format!("boot id (the agent was seen last at {:.0}){}", boot.alive, record.unwrap_or_default()),
            lines: Vec::new(),
        };
        let id = crate::digest::Digest::EMPTY.with(b"unclean").with(boot.id.as_bytes()).value();
        Some(Finding { id, found })
    }
}

/// Whether the kernel made `later` while it died of what `first` tells.
fn goes_on(first: &Dump, later: &Dump) -> bool {
    let near = match (first.at, later.at) {
        (Some(first), Some(later)) => first.duration_until(later).abs() <= DYING,
        (None, None) => true,
        _ => false,
    };
    near && first.backend == later.backend && first.count < later.count
}
