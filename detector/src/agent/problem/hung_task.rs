//! Life of a hang: from the first record of it to the moment the task ran or went.
//!
//! ```text
//!           record                 the task ran
//!   (none) ────────▶ open ─────────────────────────▶ (none)
//!            Raised  │  ▲                    Ran
//!                    ╰──╯ record   the task is gone
//!                   Sustained     ─────────────────▶ (none)
//!                                          Exited
//! ```
//!
//! | of the task | we learn | told |
//! |---|---|---|
//! | no hang open | record | `Raised` |
//! | open | record of the same start and switches | `Sustained` |
//! | open | record of other switches: it ran, and hangs anew | `Ran`, `Raised` |
//! | open | record of another start: the number is another task's | `Exited`, `Raised` |
//! | open | look: same start and switches, uninterruptible | nothing |
//! | open, handed over by an earlier run | the same, or it cannot be looked at | `Sustained`, once |
//! | open | look: other switches, or not uninterruptible any more | `Ran` |
//! | open | look: gone, dead, or another start | `Exited` |
//!
//! One hang is one task (thread id and start) that has been switched away from so many times and not run since. A record
//! may lack start or switches (the classic tracepoint and the kernel's log tell neither): then what the first look found
//! stands in for them, and what neither told is taken to be the same.

mod handover;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use arrayvec::ArrayVec;

pub use handover::OpenHang;

use super::transition::{Frame, Hang, HangState};
use crate::agent::{
    decode::event::{Comm, HungTask, Stamp},
    locate::Place,
    options::Method,
    source::task::{Look, Seen, State},
};
use crate::clock::{USER_TICK_NS, nanoseconds};

/// Hangs that are open at a time at most. Records of further tasks are counted, not told.
pub const MAX_OPEN: usize = 1024;
/// How often tasks that hang are looked at. Only while there are any.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Hangs that are remembered after their end, against records that were written before it and read after.
const MAX_ENDED: usize = 1024;
/// Starts of one task as record and `/proc` tell them differ by less: `/proc` rounds down.
const START_TOLERANCE_NS: u64 = USER_TICK_NS;

/// Whether a task that started at `start_ns` by its record may be the one that `/proc` shows.
#[must_use]
pub fn is_start_of(start_ns: Option<u64>, seen: &Seen) -> bool {
    start_ns.is_some_and(|start_ns| start_ns.abs_diff(seen.start_ns) <= START_TOLERANCE_NS)
}

/// A record of a hung task with what was found out about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// The record.
    pub event: HungTask,
    /// Where the task lives.
    pub place: Option<Arc<Place>>,
    /// Where the holder of the lock lives.
    pub holder_place: Option<Arc<Place>>,
    /// Where it waits in the kernel; empty if unknown.
    pub stack: Vec<Frame>,
    /// How it was learned of.
    pub method: Method,
}

/// What one record leads to: the end of one hang, the begin or continuation of another.
pub type Transitions = ArrayVec<Hang, 2>;

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HangCounts {
    /// Hangs that began.
    pub raised: u64,
    /// Hangs that are open.
    pub open: u64,
    /// Records of tasks that hung while [`MAX_OPEN`] others did: not told.
    pub beyond_limit: u64,
    /// Records that did not tell which task hangs: not told.
    pub nameless: u64,
}

/// All hangs that are open.
#[derive(Debug)]
pub struct HungTaskRules {
    /// By thread id: it names one living task.
    open: BTreeMap<u32, Open>,
    ended: VecDeque<Ended>,
    counts: HangCounts,
    /// Hangs that have a number: those that began, and those handed over by an earlier run.
    numbered: u64,
    tick: Duration,
}

#[derive(Debug)]
struct Open {
    /// What was told last. Its event is filled with all that was ever learned of the hang.
    hang: Hang,
    /// The first record, and the length that it told.
    first: Stamp,
    hung_then: Duration,
    /// When it was last seen to stand.
    stood_ns: u64,
    /// An earlier run told of it, this one has not.
    is_inherited: bool,
}

#[derive(Clone, Copy, Debug)]
struct Identity {
    start_ns: Option<u64>,
    switches: Option<u64>,
}

#[derive(Debug)]
struct Ended {
    tid: u32,
    identity: Identity,
    at_ns: u64,
}

impl HungTaskRules {
    /// No hang yet. `tick`: length of a jiffy.
    #[must_use]
    pub fn new(tick: Duration) -> Self {
        Self { open: BTreeMap::new(), ended: VecDeque::new(), counts: HangCounts::default(), numbered: 0, tick }
    }

    /// Takes in a record.
    pub fn record(&mut self, account: Account) -> Transitions {
        let mut told = Transitions::new();
        let Some(tid) = account.event.task.pid else {
            self.counts.nameless += 1;
            return told;
        };
        let now_ns = account.event.stamp.boot_ns;
        if let Some(end) = self.open.get(&tid).and_then(|open| open.ended_by(&Identity::of(&account.event))) {
            told.extend(self.end(tid, end, now_ns));
        }
        let tick = self.tick;
        if let Some(open) = self.open.get_mut(&tid) {
            told.push(open.sustain(account, tick));
        } else if !self.is_over(tid, &account.event) {
            told.extend(self.raise(tid, account));
        }
        told
    }

    /// Takes in what a look at task `tid` found at the time `now_ns`.
    pub fn looked(&mut self, tid: u32, look: &Look, now_ns: u64) -> Option<Hang> {
        let open = self.open.get_mut(&tid)?;
        let end = match look {
            Look::Gone => Some(HangState::Exited),
            Look::Seen(seen) => open.look(seen, now_ns),
        };
        match end {
            Some(end) => self.end(tid, end, now_ns),
            None => self.take_over(tid, now_ns),
        }
    }

    /// Thread ids of the tasks that hang.
    #[must_use]
    pub fn open(&self) -> Vec<u32> {
        self.open.keys().copied().collect()
    }

    /// When the task of an open hang was last seen to stand, nanoseconds since boot.
    #[must_use]
    pub fn stood_at(&self, tid: u32) -> Option<u64> {
        self.open.get(&tid).map(|open| open.stood_ns)
    }

    /// The hang that a record continues, if one is open.
    #[must_use]
    pub fn continued_by(&self, event: &HungTask) -> Option<&Hang> {
        let open = self.open.get(&event.task.pid?)?;
        open.ended_by(&Identity::of(event)).is_none().then_some(&open.hang)
    }

    /// Counts since the start.
    #[must_use]
    pub fn counts(&self) -> HangCounts {
        HangCounts { open: self.open.len() as u64, ..self.counts }
    }

    fn raise(&mut self, tid: u32, account: Account) -> Option<Hang> {
        if self.open.len() >= MAX_OPEN {
            self.counts.beyond_limit += 1;
            return None;
        }
        self.counts.raised += 1;
        let Account { event, place, holder_place, stack, method } = account;
        let first = event.stamp;
        let hung = told_length(&event, self.tick);
        let (number, state, boot_ns) = (self.next_number(), HangState::Raised, first.boot_ns);
        let hang = Hang { number, state, boot_ns, hung, event, place, holder_place, stack, method };
        let open = Open { hang: hang.clone(), first, hung_then: hung, stood_ns: boot_ns, is_inherited: false };
        self.open.insert(tid, open);
        Some(hang)
    }

    fn next_number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    fn end(&mut self, tid: u32, state: HangState, now_ns: u64) -> Option<Hang> {
        let open = self.open.remove(&tid)?;
        if self.ended.len() >= MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended { tid, identity: Identity::of(&open.hang.event), at_ns: now_ns });
        let hung = open.length_at(open.stood_ns);
        Some(Hang { state, boot_ns: now_ns, hung, ..open.hang })
    }

    /// A record of a hang whose end was told: it waited in the ring while the task was looked at.
    fn is_over(&self, tid: u32, event: &HungTask) -> bool {
        let identity = Identity::of(event);
        let same = |ended: &Ended| ended.tid == tid && ended.identity.ended_by(&identity).is_none();
        self.ended.iter().any(|ended| event.stamp.boot_ns <= ended.at_ns && same(ended))
    }
}

impl Open {
    /// How the hang ended, if a task of this identity hangs under the same number now.
    fn ended_by(&self, now: &Identity) -> Option<HangState> {
        Identity::of(&self.hang.event).ended_by(now)
    }

    /// How the hang ended, if this was seen. Where it stands, what was not known of it is learned.
    fn look(&mut self, seen: &Seen, now_ns: u64) -> Option<HangState> {
        let identity = Identity { start_ns: Some(seen.start_ns), switches: Some(seen.switches) };
        let end = match (self.ended_by(&identity), seen.state) {
            (Some(HangState::Exited), _) | (_, State::Dead) => Some(HangState::Exited),
            (Some(end), _) => Some(end),
            // Woken, but perhaps not yet run, which the next moment will change.
            (None, State::Other) => Some(HangState::Ran),
            (None, State::Uninterruptible) => None,
        };
        if end.is_none() {
            self.stood_ns = self.stood_ns.max(now_ns);
            learn(&mut self.hang.event, seen);
        }
        end
    }

    /// The newest account takes the place of the one before; what it lacks stays as it was.
    fn sustain(&mut self, account: Account, tick: Duration) -> Hang {
        let Account { event, place, holder_place, stack, method } = account;
        self.stood_ns = self.stood_ns.max(event.stamp.boot_ns);
        self.is_inherited = false;
        let hang = &mut self.hang;
        if event.lock.is_some() {
            hang.holder_place = holder_place;
        }
        let before = std::mem::replace(&mut hang.event, event);
        fill(&mut hang.event, before);
        hang.state = HangState::Sustained;
        hang.boot_ns = hang.event.stamp.boot_ns;
        hang.hung = hang.hung.max(told_length(&hang.event, tick));
        hang.place = place.or_else(|| hang.place.take());
        hang.method = method;
        if !stack.is_empty() {
            hang.stack = stack;
        }
        let hung = self.length_at(self.stood_ns);
        self.hang.hung = hung;
        self.hang.clone()
    }

    /// The larger of what the kernel told last, and of what it told first with the time since then.
    fn length_at(&self, now_ns: u64) -> Duration {
        let since = Duration::from_nanos(now_ns.saturating_sub(self.first.boot_ns));
        self.hang.hung.max(self.hung_then.saturating_add(since))
    }
}

impl Identity {
    fn of(event: &HungTask) -> Self {
        Self { start_ns: event.task.start_ns, switches: event.switches }
    }

    /// How a hang of this identity ended, if `now` is that of a task that bears the same number. `None`: it is the same.
    fn ended_by(&self, now: &Self) -> Option<HangState> {
        let differ = |pair: Option<(u64, u64)>, tolerance| pair.is_some_and(|(a, b)| a.abs_diff(b) > tolerance);
        if differ(self.start_ns.zip(now.start_ns), START_TOLERANCE_NS) {
            Some(HangState::Exited)
        } else if differ(self.switches.zip(now.switches), 0) {
            Some(HangState::Ran)
        } else {
            None
        }
    }
}

/// What a look tells of a task that a record did not. The caller has made sure that it is the same task, and that it
/// hangs.
pub fn learn(event: &mut HungTask, seen: &Seen) {
    event.task.tgid.get_or_insert(seen.tgid);
    event.task.start_ns.get_or_insert(seen.start_ns);
    event.task.comm.get_or_insert(Comm(seen.comm));
    event.switches.get_or_insert(seen.switches);
}

/// Whether a look found the task of a record, still hanging: only then it can tell what the record does not.
#[must_use]
pub fn is_hanging_still(event: &HungTask, seen: &Seen) -> bool {
    let now = Identity { start_ns: Some(seen.start_ns), switches: Some(seen.switches) };
    Identity::of(event).ended_by(&now).is_none() && seen.state == State::Uninterruptible
}

/// Takes over what the newer account of the same hang lacks.
fn fill(event: &mut HungTask, before: HungTask) {
    let (task, old) = (&mut event.task, before.task);
    task.tgid = task.tgid.or(old.tgid);
    task.start_ns = task.start_ns.or(old.start_ns);
    task.leader_start_ns = task.leader_start_ns.or(old.leader_start_ns);
    task.comm = task.comm.or(old.comm);
    task.leader_comm = task.leader_comm.or(old.leader_comm);
    task.cgroup = task.cgroup.or(old.cgroup);
    event.switches = event.switches.or(before.switches);
    event.lock = event.lock.or(before.lock);
    if event.stack.is_empty() {
        event.stack = before.stack;
    }
}

/// How long the kernel says that it has hung: never longer than since boot, whatever the record holds.
fn told_length(event: &HungTask, tick: Duration) -> Duration {
    let tick_ns = nanoseconds(tick);
    let ns = event.hung_jiffies.unwrap_or(0).saturating_mul(tick_ns);
    Duration::from_nanos(ns.min(event.stamp.boot_ns))
}

#[cfg(test)]
mod tests;
