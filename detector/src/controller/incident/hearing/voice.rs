//! What one boot of one Node says: its lines, and when they are told as evidence.
//!
//! ```text
//! lines ─▶ panic? ─ yes ─▶ at once ─▶ findings grew: every PAUSE at most ─▶ SILENCE: the whole log ─▶ SPENT: forgotten
//!            └── no ─▶ only while an incident of the Node is open: a sign of life, every LIFE_PAUSE at most
//! ```

use core::net::IpAddr;
use std::{sync::Arc, time::Duration};

use super::Around;
use crate::{
    clock::WallClock,
    contract::{
        incident::Confidence,
        metric::controller::{LineKind, Telling},
    },
    controller::{
        decode::{
            Line, Userdata,
            boot::Boot,
            reassemble::Stream,
            signature::{self, Note},
        },
        incident::{Evidence, Fact},
    },
};

/// Between two pieces of evidence of one voice, at least.
pub const PAUSE: Duration = Duration::from_millis(200);

/// A panic that was told is told for the last time when nothing was heard for so long.
pub const SILENCE: Duration = Duration::from_secs(2);

/// Between two signs of life of one voice, at least.
pub const LIFE_PAUSE: Duration = Duration::from_secs(10);

/// Lines of a kernel that did not panic are held so long after the last: older ones have nothing to do with a panic.
pub const HELD: Duration = signature::MAX_AGE;

/// A panic is held so long after its last line, so that what is heard again is not told as a new one.
pub const HELD_PANIC: Duration = Duration::from_secs(600);

/// The lines of a panic that was told to its end are kept so long after the last: a dead kernel says nothing more.
pub const SPENT: Duration = Duration::from_secs(60);

/// What a voice is reckoned at besides its lines, in bytes.
const BOOKKEEPING: usize = 1024;

/// One boot of one Node, as it is heard.
#[derive(Debug)]
pub(super) struct Voice {
    /// The Node.
    pub(super) node: Arc<str>,
    /// What each record says of itself, if that is proof. `None`: the Node is known by the address alone.
    pub(super) signature: Option<Userdata>,
    /// Where it was heard from, last.
    pub(super) address: IpAddr,
    /// When it was heard, last.
    pub(super) heard: Duration,
    pub(super) stream: Stream,
    /// When the agenda has it.
    pub(super) scheduled: Option<Duration>,
    /// Bytes that the total was charged.
    pub(super) charged: usize,
    boot: Boot,
    panicked_at: Option<Duration>,
    /// The panic of this boot was told.
    panic_told: bool,
    /// Findings grew since they were told.
    grown: bool,
    /// There are lines that were not told.
    unsaid: bool,
    /// A line of the kernel has just come.
    spoke: bool,
    /// All was told, and the lines are gone: what comes now is passed over.
    spent: bool,
    told_at: Option<Duration>,
    /// When a sign of life was told.
    lived_at: Option<Duration>,
    /// Another boot was heard under the same address: what is said now is no life of the one that ended.
    resumed: bool,
}

impl Voice {
    pub(super) fn new(node: Arc<str>, signature: Option<Userdata>, address: IpAddr, now: Duration) -> Self {
        Self {
            node,
            signature,
            address,
            heard: now,
            stream: Stream::new(),
            scheduled: None,
            charged: 0,
            boot: Boot::new(),
            panicked_at: None,
            panic_told: false,
            grown: false,
            unsaid: false,
            spoke: false,
            spent: false,
            told_at: None,
            lived_at: None,
            resumed: false,
        }
    }

    /// Bytes of memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        BOOKKEEPING + self.stream.bytes() + self.boot.excerpt().bytes()
    }

    pub(super) fn has_panicked(&self) -> bool {
        self.panicked_at.is_some()
    }

    /// Id of the boot, where each record proves it.
    pub(super) fn boot_is_signed(&self) -> Option<&str> {
        self.signature.as_ref()?.boot_id.as_deref()
    }

    /// Enough time went by since a panic was told.
    pub(super) fn is_paused(&self, now: Duration) -> bool {
        self.told_at.is_none_or(|told| told + PAUSE <= now)
    }

    /// Takes the next line, and counts what it is.
    pub(super) fn take(&mut self, line: &Line, now: Duration, around: &mut Around<'_>) {
        let foreign = self.push(line, now) == Note::Foreign;
        let tested = foreign && line.header.is_some() && around.self_test(&self.node, &line.text, now);
        around.counts.line(match (foreign, tested) {
            (false, _) => LineKind::Kernel,
            (true, false) => LineKind::Foreign,
            (true, true) => LineKind::SelfTest,
        });
    }

    fn push(&mut self, line: &Line, now: Duration) -> Note {
        let mut note = self.boot.push(line);
        // Whoever told a panic by an address alone may not have been this kernel, which speaks of its own only now.
        if self.spent && self.signature.is_none() && note == Note::Panic {
            self.restart();
            note = self.boot.push(line);
        }
        if self.spent {
            self.boot = Boot::new();
        }
        if note == Note::Foreign || self.spent {
            return note;
        }
        (self.unsaid, self.spoke) = (true, true);
        self.grown |= matches!(note, Note::Panic | Note::Signature | Note::Detail);
        if note == Note::Panic && self.panicked_at.is_none() {
            self.panicked_at = Some(now);
        }
        note
    }

    /// The lines that follow are from another boot.
    pub(super) fn restart(&mut self) {
        self.resumed |= self.has_panicked();
        self.boot = Boot::new();
        self.panicked_at = None;
        (self.panic_told, self.grown, self.unsaid, self.spoke) = (false, false, false, false);
        self.spent = false;
    }

    /// What there is to tell now. `open`: an incident of the Node is open.
    pub(super) fn telling(&mut self, now: Duration, open: impl FnOnce(&str) -> bool) -> Option<Telling> {
        if self.panicked_at.is_none() {
            let paused = self.lived_at.is_none_or(|lived| lived + LIFE_PAUSE <= now);
            if self.complains() && !paused {
                return None;
            }
            let spoke = std::mem::take(&mut self.spoke);
            return (spoke && !self.resumed && paused && open(&self.node)).then_some(Telling::Life);
        }
        let pending = match (self.panic_told, self.grown) {
            (false, _) => Some(Telling::Panic),
            (true, true) => Some(Telling::Growth),
            (true, false) if self.unsaid && self.heard + SILENCE <= now => Some(Telling::Last),
            (true, false) => None,
        };
        pending.filter(|_| self.is_paused(now))
    }

    /// A kernel that lives says what ails it, which may be the last that is heard of it: a pause puts it off, and no more.
    fn complains(&self) -> bool {
        self.panicked_at.is_none() && self.spoke && self.grown
    }

    /// What there is to tell before it is forgotten or begins anew.
    pub(super) fn last_telling(&self) -> Option<Telling> {
        let panicked = self.panicked_at.is_some();
        match self.panic_told {
            false => panicked.then_some(Telling::Panic),
            true => (self.grown || self.unsaid).then_some(Telling::Last),
        }
    }

    /// All that it said; from now on it is told.
    pub(super) fn tell(&mut self, now: Duration, wall: WallClock) -> Evidence {
        let at = self.panicked_at.unwrap_or(now);
        // Of a kernel that lives it is enough that it spoke.
        let excerpt = if self.has_panicked() { self.boot.excerpt().text() } else { String::new() };
        let fact = Fact::Spoke {
            findings: self.boot.findings().clone(),
            author: if self.signature.is_some() { Confidence::Medium } else { Confidence::Low },
            log: excerpt,
            lines_missing: self.boot.excerpt().lines_missing(),
        };
        self.pass_over();
        let told = if self.has_panicked() { &mut self.told_at } else { &mut self.lived_at };
        *told = Some(now);
        Evidence {
            node: self.node.to_string(),
            at: wall.time(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)),
            // A boot that nobody proves would only make one panic look like several.
            boot_id: self.signature.as_ref().and_then(|claim| claim.boot_id.clone()),
            fact,
        }
    }

    /// What it said by now need not be told.
    pub(super) fn pass_over(&mut self) {
        self.panic_told = self.has_panicked();
        (self.grown, self.unsaid) = (false, false);
    }

    /// When its lines are needed no more, as far as is known by now.
    fn spent_at(&self) -> Option<Duration> {
        let over = self.has_panicked() && self.panic_told && !self.grown && !self.unsaid && !self.spent;
        over.then(|| self.heard + SPENT)
    }

    /// Drops its lines once they are needed no more.
    pub(super) fn spend(&mut self, now: Duration) {
        if self.spent_at().is_some_and(|at| at <= now) {
            (self.spent, self.boot) = (true, Boot::new());
        }
    }

    /// When it is to be forgotten.
    pub(super) fn ends(&self) -> Duration {
        self.heard + if self.has_panicked() { HELD_PANIC } else { HELD }
    }

    /// When there is something to do if nothing is heard before.
    pub(super) fn due(&self) -> Duration {
        let paused = self.told_at.map_or(Duration::ZERO, |told| told + PAUSE);
        let tell = match self.panicked_at {
            Some(_) if !self.panic_told || self.grown => Some(paused),
            Some(_) if self.unsaid => Some(paused.max(self.heard + SILENCE)),
            None if self.complains() => self.lived_at.map(|lived| lived + LIFE_PAUSE),
            _ => self.spent_at(),
        };
        [tell, self.stream.due()].into_iter().flatten().fold(self.ends(), Duration::min)
    }
}
