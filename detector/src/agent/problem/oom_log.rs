//! Lines of the kernel's log become kills.
//!
//! One decision of the OOM killer writes, under one lock and therefore never mixed with another's:
//!
//! ```text
//! COMM invoked oom-killer: …                    ┐ at most 10 decisions in 5 s (`oom_rs`, `mm/oom_kill.c`)
//! oom-kill:constraint=…                         ┘
//! … Killed process N (COMM) …                   always; N may be a thread of the process that the line above names
//! Tasks in PATH are going to be killed …        ┐ only if the whole cgroup dies
//! … Killed process N (COMM) …                   │ one for each process in it, also a second one for the process
//! …                                             ┘ that was killed first
//! ```
//!
//! So the number of processes is exact, and the cgroup is known where the report is there. What a report says belongs to
//! the kill that follows it directly; what cannot be told for sure is unknown.

mod kill;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

pub use kill::{At, CPU_UNTOLD, LoggedDomain, LoggedKill};
use kill::{agrees, belongs, domain_by_cause, domain_of};

use crate::agent::decode::kernel_log::{LogCause, LogEvent, OomHeader, OomKilled};

/// How long the first kill of a decision is held back for the line that says that its whole cgroup dies. That line is
/// written right after it.
pub const HOLD_NS: u64 = 100_000_000;

/// Reports that the kernel prints in [`REPORT_WINDOW_US`] (`DEFAULT_RATELIMIT_BURST`, `include/linux/ratelimit_types.h`).
const REPORTS: usize = 10;
/// `DEFAULT_RATELIMIT_INTERVAL`, with a margin for the two clocks.
const REPORT_WINDOW_US: u64 = 5_200_000;
/// Silence after which a kill is none of the cgroup that died before. Its lines follow each other as fast as the
/// slowest console takes them.
const GROUP_SILENCE_US: u64 = 5_000_000;
/// Most processes of one decision that are remembered, so that none is told twice.
const REMEMBERED_VICTIMS: usize = 4096;

/// Joins the lines of the log.
#[derive(Debug)]
pub struct OomLog {
    page_kib: u64,
    /// A report that waits for its kill.
    header: Option<OomHeader>,
    decision: Option<Decision>,
    pending: Option<LoggedKill>,
    /// The one that waits is surely the first of its decision.
    pending_is_first: bool,
    decisions: u64,
    /// When the last reports were written, newest last.
    reports: VecDeque<u64>,
    /// A report has begun and not yet ended.
    in_report: bool,
    /// Until then there may have been reports that were not read, nanoseconds since boot.
    blind_until_ns: Option<u64>,
    /// The process killed first of the last group, until its second line was seen, and when it was killed.
    chosen: Option<(u32, u64)>,
}

/// The decision to which the next line may belong.
#[derive(Debug)]
struct Decision {
    number: u64,
    domain: LoggedDomain,
    group: Option<Arc<str>>,
    told: HashSet<u32>,
    last_us: u64,
}

impl OomLog {
    /// For a machine with pages of `page_bytes`. `opened_ns`: nanoseconds since boot when the log was opened.
    #[must_use]
    pub fn new(page_bytes: u64, opened_ns: u64) -> Self {
        Self {
            page_kib: (page_bytes / 1024).max(1),
            header: None,
            decision: None,
            pending: None,
            pending_is_first: false,
            decisions: 0,
            reports: VecDeque::new(),
            in_report: false,
            blind_until_ns: Some(opened_ns.saturating_add(REPORT_WINDOW_US * 1_000)),
            chosen: None,
        }
    }

    /// Records of the log were lost: what follows belongs to nothing that came before. Returns the kill held back.
    pub fn lost(&mut self) -> Option<LoggedKill> {
        self.header = None;
        self.decision = None;
        self.chosen = None;
        self.in_report = false;
        self.blind_until_ns = None;
        self.pending.take()
    }

    /// Takes in a line; lines must come in their order. Returns the kills that it completes: at most two.
    pub fn push(&mut self, event: LogEvent, at: At) -> Vec<LoggedKill> {
        let blind_until = *self.blind_until_ns.get_or_insert(at.boot_ns.saturating_add(REPORT_WINDOW_US * 1_000));
        // A new decision would have its report.
        let complete = at.boot_ns > blind_until && !self.reports_used_up(at.time_us);
        let mut told = Vec::new();
        match event {
            LogEvent::OomInvoked => {
                self.report(at.time_us);
                self.in_report = true;
                told.extend(self.end_decision());
            }
            LogEvent::OomHeader(header) => {
                if !std::mem::take(&mut self.in_report) {
                    self.report(at.time_us);
                }
                told.extend(self.end_decision());
                self.header = Some(header);
            }
            LogEvent::OomKilled(killed) => told.extend(self.killed(&killed, at, complete)),
            LogEvent::OomSkipped { pid, cause } => told.extend(self.skipped(pid, cause, at, complete)),
            LogEvent::OomGroup { path } => told.extend(self.group(&path, at)),
            LogEvent::TaskBlocked(_) | LogEvent::TaskBlocker(_) | LogEvent::HungTasksSilenced => {}
        }
        told
    }

    /// When [`OomLog::release`] has something to give, nanoseconds since boot.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        Some(self.pending.as_ref()?.mark.stamp.boot_ns.saturating_add(HOLD_NS))
    }

    /// The kill that was held back long enough.
    pub fn release(&mut self, now_boot_ns: u64) -> Option<LoggedKill> {
        self.pending.take_if(|kill| kill.mark.stamp.boot_ns.saturating_add(HOLD_NS) <= now_boot_ns)
    }

    /// The kill that is held back, at once: nothing is read any more.
    pub fn finish(&mut self) -> Option<LoggedKill> {
        self.pending.take()
    }

    fn report(&mut self, time_us: u64) {
        self.reports.push_back(time_us);
        if self.reports.len() > REPORTS {
            self.reports.pop_front();
        }
    }

    /// Whether a decision may now be without a report.
    fn reports_used_up(&self, time_us: u64) -> bool {
        let oldest = self.reports.front().filter(|_| self.reports.len() == REPORTS);
        oldest.is_some_and(|oldest| time_us.saturating_sub(*oldest) <= REPORT_WINDOW_US)
    }

    /// Another decision begins. The kill held back had no group, or its line would have come.
    fn end_decision(&mut self) -> Option<LoggedKill> {
        self.header = None;
        self.decision = None;
        self.chosen = None;
        self.complete_pending()
    }

    fn complete_pending(&mut self) -> Option<LoggedKill> {
        let kill = self.pending.take()?;
        let group_kill = kill.group_kill.or(self.pending_is_first.then_some(false));
        Some(LoggedKill { group_kill, ..kill })
    }

    fn killed(&mut self, killed: &OomKilled, at: At, complete: bool) -> Vec<LoggedKill> {
        let header = self.header.take();
        if header.is_none() && self.is_repeated(killed.pid, at.time_us) {
            return Vec::new();
        }
        let mut told = Vec::from_iter(self.complete_pending());
        if header.is_none() && complete && self.in_group(killed.cause, at.time_us) {
            told.extend(self.further(killed, at));
        } else {
            self.first(killed, header, at);
        }
        told
    }

    /// Whether a whole cgroup is being killed, of which a further line may tell.
    fn in_group(&self, cause: LogCause, time_us: u64) -> bool {
        self.decision.as_ref().is_some_and(|decision| {
            let silence = time_us.saturating_sub(decision.last_us);
            decision.group.is_some() && silence <= GROUP_SILENCE_US && agrees(&decision.domain, cause)
        })
    }

    /// The second line of a process that was told already.
    fn is_repeated(&mut self, pid: u32, time_us: u64) -> bool {
        let chosen =
            self.chosen.take_if(|(chosen, since)| *chosen == pid && time_us.saturating_sub(*since) <= GROUP_SILENCE_US);
        let in_group = self.decision.as_ref().is_some_and(|it| it.group.is_some() && it.told.contains(&pid));
        if let Some(decision) = self.decision.as_mut().filter(|_| in_group) {
            decision.last_us = time_us;
        }
        chosen.is_some() || in_group
    }

    /// The first kill of a decision: held back until it is clear whether others follow.
    fn first(&mut self, killed: &OomKilled, header: Option<OomHeader>, at: At) {
        // Else it may be a further victim of a group of which nothing is known any more.
        self.pending_is_first = header.is_some();
        let header = header.filter(|header| belongs(header, killed));
        let (domain, cgroup_path) = match &header {
            Some(header) => (domain_of(header), Some(Arc::from(header.cgroup.as_str()))),
            None => (domain_by_cause(killed.cause), None),
        };
        let decision = self.begin(domain.clone(), Some(killed.pid), at.time_us);
        let mut mark = kill::mark(killed, at, self.page_kib);
        // The kernel chooses among processes, and names the leader; but for the task that asked for memory.
        if let Some(header) = header.filter(|_| killed.cause != LogCause::NodeAllocating) {
            mark.victim.tgid = Some(header.pid);
            mark.victim.leader_comm = Some(header.comm);
        }
        self.pending = Some(LoggedKill { mark, decision, cgroup_path, domain, group: None, group_kill: None });
    }

    /// A further victim of a cgroup that dies as a whole.
    fn further(&mut self, killed: &OomKilled, at: At) -> Option<LoggedKill> {
        let mark = kill::mark(killed, at, self.page_kib);
        let decision = self.decision.as_mut()?;
        decision.last_us = at.time_us;
        if decision.told.len() < REMEMBERED_VICTIMS {
            decision.told.insert(killed.pid);
        }
        Some(LoggedKill {
            mark,
            decision: decision.number,
            cgroup_path: None,
            domain: decision.domain.clone(),
            group: decision.group.clone(),
            group_kill: Some(true),
        })
    }

    /// The task chosen was gone; others of its cgroup may follow all the same. Or one of these was gone.
    fn skipped(&mut self, pid: u32, cause: LogCause, at: At, complete: bool) -> Option<LoggedKill> {
        self.chosen = self.chosen.filter(|(chosen, _)| *chosen != pid);
        let header = self.header.take();
        if header.is_none() && complete && self.in_group(cause, at.time_us) {
            return None;
        }
        let told = header.map(|header| domain_of(&header)).filter(|domain| agrees(domain, cause));
        let kill = self.complete_pending();
        self.begin(told.unwrap_or_else(|| domain_by_cause(cause)), None, at.time_us);
        kill
    }

    fn group(&mut self, path: &str, at: At) -> Option<LoggedKill> {
        let path: Arc<str> = Arc::from(path);
        if self.decision.as_ref().is_none_or(|decision| decision.group.is_some()) {
            self.begin(LoggedDomain::Unknown, None, at.time_us);
        }
        if let Some(decision) = &mut self.decision {
            decision.group = Some(Arc::clone(&path));
            decision.last_us = at.time_us;
            self.chosen = decision.told.iter().next().map(|pid| (*pid, at.time_us));
        }
        let kill = self.pending.take()?;
        Some(LoggedKill { group: Some(path), group_kill: Some(true), ..kill })
    }

    fn begin(&mut self, domain: LoggedDomain, victim: Option<u32>, time_us: u64) -> u64 {
        self.decisions += 1;
        self.decision = Some(Decision {
            number: self.decisions,
            domain,
            group: None,
            told: victim.into_iter().collect(),
            last_us: time_us,
        });
        self.decisions
    }
}

#[cfg(test)]
mod tests;
