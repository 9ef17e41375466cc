//! Hung tasks on their way through the stages: what a record lacks is looked up, the rules judge, open hangs are polled.
//!
//! Nothing here waits for a task that hangs: see [`crate::agent::source::task`].

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::agent::{
    decode::event::{Comm, HungTask},
    locate::Place,
    options::Method,
    problem::{
        Frame, Hang, HangState,
        hung_task::{self, Account, HangCounts, HungTaskRules, MAX_OPEN, OpenHang, POLL_INTERVAL},
    },
    sink::Stage,
    source::{
        symbols::Symbols,
        task::{self, Look, PatientReader, TaskError},
    },
};
use crate::{cause::error_chain, clock::BootClock};

/// Times the kernel's time limit after which a task that is told of no more hangs no more: it looks at least that often.
const QUIET_SCANS: u32 = 3;

/// Hung tasks: what is known of them, and when to look at them next.
#[derive(Debug)]
pub(super) struct Hangs {
    rules: HungTaskRules,
    symbols: Symbols,
    stacks: PatientReader,
    root: PathBuf,
    /// Tasks can be looked up by the numbers that the kernel tells.
    sees_tasks: bool,
    /// Length of a jiffy.
    tick: Duration,
    /// When open hangs are to be looked at; `None` while there are none.
    poll_at_ns: Option<u64>,
    /// What notice was given of.
    told: HangCounts,
    troubles: Vec<Trouble>,
}

/// Something to give notice of.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) stage: Stage,
    pub(super) kind: &'static str,
    pub(super) count: u64,
    pub(super) message: String,
}

impl Hangs {
    /// None yet, on the machine seen through `root`. `tick`: length of a jiffy.
    pub(super) fn new(root: &Path, tick: Duration) -> Self {
        Self {
            rules: HungTaskRules::new(tick),
            symbols: Symbols::new(root),
            stacks: PatientReader::default(),
            root: root.to_owned(),
            sees_tasks: task::sees_the_machine(root),
            tick,
            poll_at_ns: None,
            told: HangCounts::default(),
            troubles: Vec::new(),
        }
    }

    pub(super) fn counts(&self) -> HangCounts {
        self.rules.counts()
    }

    /// What the first record of a hang does not tell of the task, `/proc` may.
    pub(super) fn complete(&mut self, event: &mut HungTask) {
        if event.hung_jiffies.is_none() {
            event.hung_jiffies = self.least_jiffies();
        }
        let wanted = self.sees_tasks && lacks_much(event) && self.rules.continued_by(event).is_none();
        let Some(tid) = event.task.pid.filter(|_| wanted) else {
            return;
        };
        match task::look(&self.root, tid) {
            Ok(Look::Seen(seen)) if hung_task::is_hanging_still(event, &seen) => {
                hung_task::learn(event, &seen);
                event.task.leader_comm =
                    event.task.leader_comm.or_else(|| task::comm(&self.root, event.task.tgid?).map(Comm));
            }
            // It ran or went since: the next poll will tell.
            Ok(Look::Seen(_) | Look::Gone) => {}
            Err(error) => self.trouble(&error),
        }
    }

    /// Whether `/proc/TID/cgroup` answers: before Linux 6.8 who reads it waits for `cgroup_mutex`, which a task that hangs may
    /// hold.
    pub(super) fn tells_cgroup(&mut self, tid: u32) -> bool {
        match self.stacks.answers(&self.root, tid, "cgroup") {
            Ok(answers) => answers,
            Err(error) => {
                self.trouble(&error);
                false
            }
        }
    }

    /// The last known holder of a lock may be long gone, and what was read of it another's by now: it is believed only if
    /// there is such a task.
    pub(super) fn doubt_holder(&self, event: &mut HungTask) {
        let Some(Some(lock)) = &mut event.lock else { return };
        let Some(holder) = lock.holder.filter(|holder| holder.likely && self.sees_tasks) else { return };
        let there = holder.task.pid.is_some_and(|tid| match task::look(&self.root, tid) {
            Ok(Look::Seen(seen)) => hung_task::is_start_of(holder.task.start_ns, &seen),
            Ok(Look::Gone) | Err(_) => false,
        });
        if !there {
            lock.holder = None;
        }
    }

    /// The kernel calls no task hung before its time limit is over.
    fn least_jiffies(&self) -> Option<u64> {
        let limit = Duration::from_secs(task::hung_task_timeout(&self.root)?);
        u64::try_from(limit.as_nanos() / self.tick.as_nanos().max(1)).ok()
    }

    /// Takes in a record whose places were found; `method`: how it was learned of.
    pub(super) fn record(
        &mut self,
        event: HungTask,
        place: Option<Arc<Place>>,
        holder_place: Option<Arc<Place>>,
        method: Method,
        now_ns: u64,
    ) -> Vec<Hang> {
        let stack = self.stack(&event);
        let account = Account { event, place, holder_place, stack, method };
        let told = self.rules.record(account);
        self.schedule(now_ns);
        told.into_iter().collect()
    }

    /// Hangs that are open, for a later run of this boot.
    pub(super) fn handover(&self) -> Vec<OpenHang> {
        self.rules.handover()
    }

    /// Takes over a hang that an earlier run told of; it is looked at as soon as there is time for it.
    pub(super) fn inherit(&mut self, hang: &OpenHang, place: Option<Arc<Place>>, now_ns: u64) {
        self.rules.inherit(hang, place);
        self.poll_at_ns = Some(now_ns);
    }

    /// Looks at all tasks that hang, if it is time.
    pub(super) fn poll(&mut self, clock: BootClock<'_>) -> Vec<Hang> {
        if self.poll_at_ns.is_none_or(|at| clock() < at) {
            return Vec::new();
        }
        let mut told = Vec::new();
        for tid in self.rules.open() {
            match self.look(tid, clock()) {
                // By the time after the look: what was written before, also since the poll began, is of this hang.
                Ok(Some(look)) => told.extend(self.rules.looked(tid, &look, clock())),
                // Nobody can look: what an earlier run told is believed until then.
                Ok(None) => told.extend(self.rules.take_over(tid, clock())),
                Err(error) => self.trouble(&error),
            }
        }
        self.poll_at_ns = None;
        self.schedule(clock());
        told
    }

    /// Who cannot look a task up takes it for gone when the kernel's scans find it no more.
    fn look(&self, tid: u32, now_ns: u64) -> Result<Option<Look>, TaskError> {
        if self.sees_tasks {
            return task::look(&self.root, tid).map(Some);
        }
        let ticks = self.least_jiffies().unwrap_or(u64::MAX);
        let quiet = Duration::from_nanos(crate::clock::nanoseconds(self.tick).saturating_mul(ticks));
        let stood = Duration::from_nanos(now_ns.saturating_sub(self.rules.stood_at(tid).unwrap_or(now_ns)));
        Ok((stood > quiet.saturating_mul(QUIET_SCANS)).then_some(Look::Gone))
    }

    /// When [`Self::poll`] is to be called; `None`: no task hangs.
    pub(super) fn poll_at_ns(&self) -> Option<u64> {
        self.poll_at_ns
    }

    /// Ends a batch, and takes what there is to give notice of.
    pub(super) fn end_batch(&mut self) -> Vec<Trouble> {
        self.symbols.end_batch();
        let mut troubles = std::mem::take(&mut self.troubles);
        if let Some(error) = self.symbols.take_error() {
            troubles.push(Trouble { stage: Stage::Source, kind: "symbols", count: 1, message: error_chain(&error) });
        }
        let counts = self.rules.counts();
        let lost = [
            ("hangs_beyond_limit", counts.beyond_limit - self.told.beyond_limit),
            ("hangs_nameless", counts.nameless - self.told.nameless),
        ];
        for (kind, count) in lost.into_iter().filter(|(_, count)| *count > 0) {
            let message = match kind {
                "hangs_nameless" => "a record of a hung task does not tell which task".to_owned(),
                _ => format!("more than {MAX_OPEN} tasks hang at a time: records of others are not told"),
            };
            troubles.push(Trouble { stage: Stage::Problem, kind, count, message });
        }
        self.told = counts;
        troubles
    }

    /// Where the task waits. As long as it stands the frames stay the same, so that only the first record costs a look at
    /// the symbols, or at `/proc` where the record has no stack.
    fn stack(&mut self, event: &HungTask) -> Vec<Frame> {
        let same = |hang: &&Hang| match event.stack.is_empty() {
            // What could not be read the last time may be readable now.
            true => !hang.stack.is_empty(),
            false => hang.event.stack == event.stack,
        };
        if let Some(hang) = self.rules.continued_by(event).filter(same) {
            return hang.stack.clone();
        }
        if !event.stack.is_empty() {
            return self.symbols.frames(&event.stack);
        }
        let Some(tid) = event.task.pid.filter(|_| self.sees_tasks) else { return Vec::new() };
        self.stacks.stack(&self.root, tid).unwrap_or_else(|error| {
            self.trouble(&error);
            Vec::new()
        })
    }

    fn schedule(&mut self, now_ns: u64) {
        if self.rules.counts().open == 0 {
            self.poll_at_ns = None;
        } else if self.poll_at_ns.is_none() {
            self.poll_at_ns = Some(now_ns.saturating_add(crate::clock::nanoseconds(POLL_INTERVAL)));
        }
    }

    fn trouble(&mut self, error: &TaskError) {
        let kind = match error {
            TaskError::Stuck { .. } => "task_stack_stuck",
            TaskError::Read { .. } | TaskError::Lacks { .. } | TaskError::Thread(_) => "task_unreadable",
        };
        self.troubles.push(Trouble { stage: Stage::Source, kind, count: 1, message: error_chain(error) });
    }
}

/// Whether a hang begins with this transition.
pub(super) fn begins(hang: &Hang) -> bool {
    hang.state == HangState::Raised
}

/// The record does not tell what a hang is known by, or whose it is.
fn lacks_much(event: &HungTask) -> bool {
    event.switches.is_none() || event.task.start_ns.is_none() || event.task.tgid.is_none()
}
