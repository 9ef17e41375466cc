//! The sink of the agent: what the flow tells goes to metrics, events and conditions, once its names are known.
//!
//! ```text
//! transition ─▶ report ─▶ hold ─┬▶ metrics
//!                               ├▶ events ─────▶ task that writes them
//!                               └▶ conditions ─▶ task that writes them
//! ```

use std::{collections::BTreeMap, io, rc::Rc};

use tracing::{info, warn};

use super::{
    counted::{Counted, Outputs, Totals},
    missed::{CgroupCount, Missed},
    needs::Needs,
    saved::{Keeping, Saved},
};
use crate::{
    agent::{
        decode::CgroupKey,
        locate::ContainerChange,
        options::{Detector, Method},
        problem::Transition,
        sink::{
            Booked, Count, Counting, Handover, MethodChange, Notice, Sink, Stage, Started, Status, Summary, Tally,
            Units,
            condition::{Conditions, deliver::Desk},
            event::deliver::Handle,
            hold::{Hold, Report},
            metric::Metrics,
            report::{HangEdge, HangReport, KillReport, Subject},
        },
    },
    clock::{self, WallClock},
    contract::metric::{HungClass, KERNEL_LOG, Loss, LossStage},
};

/// Everything that reports lead to.
pub(super) struct Reporter {
    /// What happened, as JSON lines on standard output; the first failure to write ends it.
    lines: Option<Box<dyn Sink>>,
    hold: Hold,
    metrics: Metrics,
    events: Handle,
    conditions: Rc<Desk>,
    needs: Needs,
    methods: BTreeMap<Detector, Option<Method>>,
    keeping: Keeping,
    missed: Missed,
    units: Units,
    boot_id: String,
    counted: Counted,
}

/// What a [`Reporter`] is made of.
pub(super) struct Parts {
    /// Where each transition is told as a line.
    pub(super) lines: Box<dyn Sink>,
    pub(super) hold: Hold,
    pub(super) metrics: Metrics,
    pub(super) events: Handle,
    pub(super) conditions: Rc<Desk>,
    pub(super) needs: Needs,
    pub(super) keeping: Keeping,
    pub(super) missed: Missed,
    pub(super) units: Units,
    pub(super) boot_id: String,
    pub(super) outputs: Outputs,
}

impl Reporter {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { lines, hold, metrics, events, conditions, needs, keeping, missed, units, boot_id, outputs } = parts;
        let lines = Some(lines);
        Self {
            lines,
            hold,
            metrics,
            events,
            conditions,
            needs,
            keeping,
            missed,
            units,
            boot_id,
            methods: BTreeMap::new(),
            counted: Counted::new(outputs),
        }
    }

    /// Tells what an earlier run held back and nobody will name any more.
    pub(super) fn tell_all(&mut self, reports: Vec<Report>) {
        reports.into_iter().for_each(|report| self.tell(report));
    }

    /// Tells a report to everybody.
    fn tell(&mut self, report: Report) {
        let now = clock::boot_ns();
        match report {
            Report::Kill(kill) => self.tell_kill(&kill, now),
            Report::Hang(hang) => self.tell_hang(&hang, now),
        }
        self.keeping.touch(now);
    }

    fn tell_kill(&mut self, kill: &KillReport, now: u64) {
        self.metrics.kill(kill, now);
        self.events.kill(kill, now);
    }

    fn tell_hang(&mut self, hang: &HangReport, now: u64) {
        let is_runtime = self.conditions.tell(|conditions| {
            conditions.hang(hang);
            conditions.is_of_runtime(hang)
        });
        self.metrics.hang(hang, if is_runtime { HungClass::Runtime } else { HungClass::Workload });
        if hang.edge == HangEdge::Raised {
            self.events.hang(hang, now);
        }
    }

    fn take(&mut self, report: Report) {
        let out = self.hold.take(report, clock::boot_ns());
        self.tell_all(out);
        // What is held must survive, too.
        self.keeping.touch(clock::boot_ns());
    }

    /// Standard output is a courtesy: the agent works on without it.
    fn line(&mut self, write: impl FnOnce(&mut dyn Sink) -> io::Result<()>) {
        if let Some(lines) = &mut self.lines
            && let Err(error) = write(lines.as_mut())
        {
            warn!(%error, "standard output is written no more");
            self.lines = None;
        }
    }

    fn uses(&mut self, detector: Detector, method: Option<Method>, why: &str) {
        self.metrics.probe(detector, method);
        self.methods.insert(detector, method);
        match method {
            Some(_) => self.needs.works(detector),
            None => self.needs.is_off(detector, why),
        }
    }

    /// What a notice says was lost; `None` if it tells of no loss. Lines of the log that nobody read are one only where a
    /// detector lives by them.
    fn loss(&self, notice: &Notice) -> Option<Loss> {
        if (notice.stage, notice.kind) == (Stage::Source, "log_overrun") {
            let lives_by_log = self.methods.values().any(|method| *method == Some(Method::Kmsg));
            return lives_by_log.then_some(KERNEL_LOG);
        }
        Loss::of(LossStage::of_word(notice.stage.name())?, notice.kind)
    }

    /// Tells metrics what sinks and outputs counted, and what waits.
    fn tell_counts(&mut self, now: u64) {
        self.metrics.instruments().held_kills(self.hold.len());
        let totals = Totals {
            events: self.events.counts(),
            conditions: self.conditions.ask(Conditions::counts),
            held: self.hold.counts(),
        };
        if self.counted.tell(totals, &mut self.metrics) {
            self.keeping.touch_later(now);
        }
    }
}

impl Sink for Reporter {
    fn counted_up(&mut self, count: Count, more: u64) {
        self.metrics.instruments().counted(count, more);
    }

    fn started(&mut self, started: &Started) -> io::Result<()> {
        started.detectors.iter().try_for_each(|status| self.attached(status))?;
        self.line(|lines| lines.started(started));
        Ok(())
    }

    fn attached(&mut self, status: &Status) -> io::Result<()> {
        let refused: Vec<_> = status.refused.iter().map(|(method, why)| format!("{method}: {why}")).collect();
        let method = status.method.map(Method::name);
        info!(detector = status.detector.name(), method, refused = refused.join("; "), "attached");
        self.uses(status.detector, status.method, &refused.join("; "));
        if status.method.is_none() {
            self.metrics.probe_off(status.detector);
        }
        Ok(())
    }

    fn wants_containers(&self) -> bool {
        true
    }

    fn transition(&mut self, transition: &Transition) -> io::Result<()> {
        self.line(|lines| lines.transition(transition));
        let report = match transition {
            Transition::OomKilled(kill) => {
                // Where nothing but the log is read, nothing counts either.
                if self.methods.get(&Detector::Oom) != Some(&Some(Method::Kmsg)) {
                    self.missed.told(kill.mark.victim.cgroup.map(|key| (key.hierarchy, key.id)));
                }
                Report::Kill(KillReport::of(kill, &self.units, &self.boot_id))
            }
            Transition::HungTask(hang) => Report::Hang(HangReport::of(hang, &self.units, &self.boot_id)),
        };
        self.take(report);
        Ok(())
    }

    fn container(&mut self, change: &ContainerChange) -> io::Result<()> {
        let now = clock::boot_ns();
        self.metrics.container(change, now);
        let named = self.hold.hear(change, now);
        self.tell_all(named);
        self.keeping.touch_later(now);
        Ok(())
    }

    fn method_changed(&mut self, change: &MethodChange) -> io::Result<()> {
        warn!(
            detector = change.detector.name(),
            before = change.before.name(),
            now = change.now.map(Method::name),
            reason = change.reason,
            "method changed"
        );
        self.uses(change.detector, change.now, &change.reason);
        self.line(|lines| lines.method_changed(change));
        Ok(())
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        warn!(stage = notice.stage.name(), kind = notice.kind, count = notice.count, "{}", notice.message);
        if let Some(loss) = self.loss(notice) {
            self.metrics.lost(loss, notice.count);
            // What was lost may leave no other trace: another version's records are gone with this.
            self.keeping.touch(clock::boot_ns());
        }
        Ok(())
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        info!(kills = summary.kills, hangs = summary.hangs, lost = summary.lost, "ended");
        self.line(|lines| lines.summary(summary));
        Ok(())
    }

    fn reconciled(&mut self, unaccounted: i64) -> io::Result<()> {
        self.metrics.unaccounted(unaccounted);
        Ok(())
    }

    fn counted(&mut self, tally: &Tally) -> io::Result<Booked> {
        let now = clock::boot_ns();
        let key = |cgroup: CgroupKey| (cgroup.hierarchy, cgroup.id);
        let counts = tally.cgroups.iter().map(|one| CgroupCount {
            cgroup: one.cgroup.map(key),
            placed: one.place.is_some(),
            kills: one.kills,
        });
        let counts: Vec<_> = counts.collect();
        let missed = match tally.state {
            Counting::Over => self.missed.closed(tally.map, &counts),
            Counting::GoesOn => self.missed.counted(&counts),
            Counting::Begins => {
                self.missed.begin(tally.map, &counts);
                self.keeping.touch(now);
                Vec::new()
            }
        };
        let mut booked = Booked { kills: 0, again: self.missed.suspects() };
        for (cgroup, kills) in missed {
            let place = tally.cgroups.iter().find(|one| one.cgroup.map(key) == Some(cgroup));
            let subject = Subject::of(place.and_then(|one| one.place.as_deref()));
            warn!(cgroup = subject.cgroup, kills, "kills whose records were lost are counted without detail");
            self.metrics.missed(&subject, kills, now);
            self.keeping.touch(now);
            booked.kills += kills;
        }
        Ok(booked)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.line(|lines| lines.flush());
        let now = clock::boot_ns();
        let due = self.hold.due(now);
        self.tell_all(due);
        self.metrics.expire(now);
        self.tell_counts(now);
        self.keeping.follow(self.events.revision(), self.events.counts().waiting > 0, now);
        Ok(())
    }

    fn next_due(&self) -> Option<u64> {
        [self.hold.next_due(), self.metrics.next_due(), self.keeping.next_due()].into_iter().flatten().min()
    }

    fn wants_saving(&self, now_ns: u64) -> bool {
        self.keeping.due().is_some_and(|due| due <= now_ns)
    }

    fn save(&mut self, handover: Handover) -> bool {
        let now = clock::boot_ns();
        let saved = Saved {
            handover,
            metrics: self.metrics.snapshot(now),
            held: self.hold.snapshot(),
            events: self.events.snapshot(),
            conditions: self.conditions.ask(Conditions::snapshot),
            missed: self.missed.clone(),
            unreadable: Vec::new(),
        };
        self.keeping.save(&saved, now, &self.metrics.instruments())
    }

    fn set_wall_clock(&mut self, wall: WallClock) {
        self.units.wall = wall;
        self.conditions.tell(|conditions| conditions.set_wall_clock(wall));
        if let Some(lines) = &mut self.lines {
            lines.set_wall_clock(wall);
        }
    }
}

#[cfg(test)]
mod tests;
