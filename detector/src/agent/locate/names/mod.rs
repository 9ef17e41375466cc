//! Remembers what the runtimes' files said of each container, so that they are read once, early, and by somebody else
//! than the flow ([`reader`]): they may lie on a file system that does not answer.
//!
//! ```text
//! want ─▶ line ─ fetch ─▶ reader ─▶ take_in ─▶ known names
//! ask ───── ahead of all ───▲           ▲
//!     └── waits a moment ───────────────┘
//! ```
//!
//! A container is *wanted* as its cgroup is made and put before the reader when the flow has time. What is still missing
//! when somebody asks is read ahead of all others, at most once a second for each container, and waited for a moment;
//! see `patience.rs` for how often. What comes later is taken in and holds for the next question. A dead container's names
//! stay as long as its cgroup is remembered.

pub mod reader;
pub mod worker;

mod known;
mod listen;
mod patience;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, path::PathBuf, sync::Arc};

use self::{
    known::{Known, KnownNames},
    listen::Listening,
    patience::{ANSWER_PATIENCE, Patience},
    reader::{NameReader, Reply, Request},
};
use super::{LocateError, cgroup_path::ContainerPart, place::Runtime, runtime::Names};
use crate::agent::decode::event::CgroupKey;

/// Most containers that wait for their first read. Further ones are read when somebody asks.
pub(super) const WAITING_CAPACITY: usize = 4096;

/// Most requests before the reader that nobody waits for.
pub(super) const OPEN_IN_LINE: usize = 256;

/// Most requests before the reader.
pub(super) const OPEN_CAPACITY: usize = 512;

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
    /// Containers that were not put in line or not read, because too many waited already.
    pub not_queued: u64,
    /// Questions answered without any name, because reading them took too long.
    pub late: u64,
    /// Names forgotten early or not kept, because there was no room.
    pub evicted_early: u64,
}

/// The runtimes' files are slow to read.
#[derive(Debug, thiserror::Error)]
#[error(
    "read the names of a container within {} ms, {}: kills may be told without names until that ends",
    ANSWER_PATIENCE.as_millis(),
    reading(.file.as_ref())
)]
pub struct SlowNames {
    /// The file or directory that was being read when patience ended.
    pub file: Option<PathBuf>,
}

fn reading(file: Option<&PathBuf>) -> String {
    file.map_or_else(|| String::from("because nobody came to it"), |file| format!("held up by {}", file.display()))
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
    reader: Box<dyn NameReader>,
    patience: Patience,
    /// It was told that names come late, and no answer has come since.
    told_slow: bool,
    /// Requests before the reader.
    open: usize,
    last_number: u64,
    known: KnownNames,
    /// The last answer for a container that there was no room for.
    unkept: Option<(Box<str>, Option<Names>)>,
    fresh: VecDeque<Box<str>>,
    again: VecDeque<Box<str>>,
    generation: u64,
    /// Where somebody wants to be told.
    listening: Option<Listening>,
    counters: NameCounters,
    errors: Vec<LocateError>,
}

impl NameCache {
    pub(super) fn new(reader: Box<dyn NameReader>) -> Self {
        Self {
            reader,
            patience: Patience::default(),
            told_slow: false,
            open: 0,
            last_number: 0,
            known: KnownNames::default(),
            unkept: None,
            fresh: VecDeque::new(),
            again: VecDeque::new(),
            generation: 0,
            listening: None,
            counters: NameCounters::default(),
            errors: Vec::new(),
        }
    }

    /// A container's cgroup was made: puts it in line. A container that starts again keeps its names, but its pid is a
    /// new one, and what is being read for its earlier life does not count.
    pub(super) fn want(&mut self, part: ContainerPart<'_>, user: Option<u32>, key: CgroupKey) {
        let Some(known) = self.known.entry(part, user) else { return };
        (known.key, known.answered) = (Some(key), false);
        known.removed_at = None;
        known.attempts = 0;
        known.pending = None;
        if let Some(names) = known.names.as_mut().filter(|names| names.init_pid.is_some()) {
            Arc::make_mut(names).init_pid = None;
            self.generation += 1;
        }
        if self.fresh.len() < WAITING_CAPACITY {
            self.fresh.push_back(part.id.into());
        } else {
            self.counters.not_queued += 1;
            self.heard(part.id);
        }
    }

    /// A container's cgroup was removed at `boot_ns`.
    pub(super) fn forget(&mut self, id: &str, boot_ns: u64) {
        self.known.forget(id, boot_ns);
    }

    /// Takes in what was read meanwhile and puts at most `budget` containers of the line before the reader; returns how
    /// many still wait for their first read. Never waits.
    pub(super) fn fetch(&mut self, budget: usize) -> usize {
        self.take_in();
        let budget = budget.min(OPEN_IN_LINE.saturating_sub(self.open));
        let again = self.again.len().min(budget.saturating_sub(self.fresh.len()));
        for _ in 0..budget {
            let Some(id) = self.fresh.pop_front() else { break };
            self.put_before_reader(&id);
        }
        for _ in 0..again {
            let Some(id) = self.again.pop_front() else { break };
            self.put_before_reader(&id);
        }
        self.take_in();
        self.fresh.len()
    }

    /// The names of a container. If they are not complete and were not asked for within a second they are read ahead of
    /// all others, and waited for as long as there is patience. `removed_at`: when its cgroup was removed, if it was.
    pub(super) fn ask(
        &mut self,
        part: ContainerPart<'_>,
        user: Option<u32>,
        removed_at: Option<u64>,
        boot_ns: u64,
    ) -> Answer {
        self.question(part, user, removed_at, boot_ns, true)
    }

    fn question(
        &mut self,
        part: ContainerPart<'_>,
        user: Option<u32>,
        removed_at: Option<u64>,
        boot_ns: u64,
        waits: bool,
    ) -> Answer {
        self.take_in();
        let retry_at = boot_ns.saturating_add(RETRY_NS);
        let new = self.known.get(part.id).is_none();
        let Some(known) = self.known.entry(part, user) else {
            let names = if waits { self.ask_unkept(part, user, boot_ns) } else { None };
            return Answer { names, complete: false, retry_at };
        };
        let due = known.asked_at.is_none_or(|asked_at| boot_ns.saturating_sub(asked_at) >= RETRY_NS);
        if !known.complete() && due {
            known.asked_at = Some(boot_ns);
            if self.request(part.id) && waits {
                self.reader.hurry(part.id);
                self.wait_for(part.id, boot_ns);
            }
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

    /// What is known of a container, without a read.
    pub(super) fn known(&self, id: &str) -> Option<&Arc<Names>> {
        self.known.get(id)?.names.as_ref()
    }

    /// Takes in what was read meanwhile; whether that was anything.
    pub(super) fn take_in(&mut self) -> bool {
        let mut any = false;
        while let Some(reply) = self.reader.take() {
            any = true;
            self.open = self.open.saturating_sub(1);
            self.patience.answered();
            self.told_slow = false;
            self.settle(reply);
        }
        any
    }

    /// Rises whenever something became known or ceased to hold.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn counters(&self) -> NameCounters {
        NameCounters { evicted_early: self.known.evicted_early(), ..self.counters }
    }

    pub(super) fn take_errors(&mut self) -> Vec<LocateError> {
        std::mem::take(&mut self.errors)
    }

    fn put_before_reader(&mut self, id: &str) {
        let Some(known) = self.known.get_mut(id).filter(|known| !known.complete()) else { return };
        known.attempts = known.attempts.saturating_add(1);
        known.in_line = true;
        if !self.request(id) {
            self.heard(id);
        }
    }

    /// Puts a known container before the reader, if it is not there already; whether it is there now.
    fn request(&mut self, id: &str) -> bool {
        let Some(known) = self.known.get(id) else { return false };
        if known.pending.is_some() {
            return true;
        }
        let (runtime, user) = (known.runtime, known.user);
        let number = self.hand_over(id, runtime, user);
        if let Some(known) = self.known.get_mut(id) {
            known.pending = number;
        }
        number.is_some()
    }

    fn hand_over(&mut self, id: &str, runtime: Runtime, user: Option<u32>) -> Option<u64> {
        if self.open >= OPEN_CAPACITY {
            self.counters.not_queued += 1;
            return None;
        }
        let number = self.last_number + 1;
        match self.reader.ask(Request { number, id: id.into(), runtime, user }) {
            Ok(()) => {
                self.open += 1;
                self.last_number = number;
                Some(number)
            }
            Err(error) => {
                self.counters.not_queued += 1;
                self.complain(LocateError::NoReader(error));
                None
            }
        }
    }

    /// There is no room to keep the answer: it lives in the cgroup's node alone.
    fn ask_unkept(&mut self, part: ContainerPart<'_>, user: Option<u32>, boot_ns: u64) -> Option<Arc<Names>> {
        self.unkept = None;
        self.hand_over(part.id, part.runtime, user)?;
        self.reader.hurry(part.id);
        self.wait_for(part.id, boot_ns);
        let (_, names) = self.unkept.take().filter(|(id, _)| **id == *part.id)?;
        names.map(Arc::new)
    }

    /// Waits until the request for `id` is answered or patience ends.
    fn wait_for(&mut self, id: &str, boot_ns: u64) {
        self.take_in();
        while self.is_awaited(id) {
            let left = self.patience.left(boot_ns);
            if left.is_zero() {
                return self.give_up(id);
            }
            let spent = self.reader.wait(left);
            let answered = self.take_in();
            self.patience.spend(spent, answered);
        }
    }

    /// Tells that names come late, once until an answer comes; not where only the pid is missing, which is told seldom.
    fn give_up(&mut self, id: &str) {
        if self.known(id).is_some() {
            return;
        }
        self.counters.late += 1;
        if !std::mem::replace(&mut self.told_slow, true) {
            self.complain(LocateError::SlowNames(SlowNames { file: self.reader.reading() }));
        }
    }

    fn is_awaited(&self, id: &str) -> bool {
        match self.known.get(id) {
            Some(known) => known.pending.is_some(),
            None => self.unkept.as_ref().is_none_or(|(unkept, _)| **unkept != *id),
        }
    }

    fn settle(&mut self, reply: Reply) {
        let Reply { number, id, names } = reply;
        let names = self.counted(names);
        let Some(known) = self.known.get_mut(&id) else {
            self.unkept = Some((id, names));
            return;
        };
        // It started again since, or was forgotten and came back: somebody asks anew.
        if known.pending != Some(number) {
            return;
        }
        known.pending = None;
        let learned = names.is_some_and(|names| known.learn(names));
        let first = !std::mem::replace(&mut known.answered, true);
        let returns = std::mem::take(&mut known.in_line) && !known.complete() && known.attempts < ATTEMPTS;
        self.generation += u64::from(learned);
        if learned || first {
            self.heard(&id);
        }
        if returns && self.again.len() < WAITING_CAPACITY {
            self.again.push_back(id);
        }
    }

    fn counted(&mut self, names: Result<Option<Names>, super::NameError>) -> Option<Names> {
        match names {
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
                self.complain(LocateError::Names(error));
                None
            }
        }
    }

    fn complain(&mut self, error: LocateError) {
        if self.errors.len() < ERRORS_CAPACITY {
            self.errors.push(error);
        }
    }
}
