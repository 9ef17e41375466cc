//! One run: what it owns, and what it does each time something wakes it.

use std::{collections::BTreeSet, path::Path, time::Instant};

use super::{
    AgentError,
    agenda::Agenda,
    counts,
    input::{self, Beside, Input, StopSignals},
    ladder::Ladder,
    last_words,
    sources::{Inherited, ReadyError, Sources},
};
use crate::{
    agent::{
        locate::{Hierarchy, LocateError, Worker},
        options::{Detector, FOREIGN_PIDS, Method, WatchOptions},
        pipeline::{Pipeline, Progress, Silent},
        sink::{MethodChange, Sink, Stage, Started, Summary},
        source::{
            bpf::probe::{Broken, Probe},
            kmsg::Read,
            machine::Machine,
            memory, task,
        },
    },
    cause::error_chain,
    clock::{self, WallClock},
    ops::{capability::Rights, privilege},
};

/// Everything that a run owns.
pub(in crate::agent) struct Flow<'a> {
    sources: Sources,
    ladders: Vec<Ladder>,
    pipeline: Pipeline<'a>,
    agenda: Agenda,
    /// By which times are told.
    wall: WallClock,
    /// The line in work, kept for its memory.
    line: Vec<u8>,
}

impl<'a> Flow<'a> {
    /// Attaches the probes and learns the cgroups, in the order that loses none: probes first, the log after them, so that
    /// it tells of nothing that they could not see.
    pub(in crate::agent) fn start(
        options: &WatchOptions,
        began: Instant,
        sink: &'a mut dyn Sink,
        root: &Path,
    ) -> Result<Self, AgentError> {
        Self::inherit(options, Inherited::default(), began, sink, root)
    }

    /// The same, going on from where an earlier run was.
    pub(in crate::agent) fn inherit(
        options: &WatchOptions,
        mut inherited: Inherited,
        began: Instant,
        sink: &'a mut dyn Sink,
        root: &Path,
    ) -> Result<Self, AgentError> {
        let cgroups = std::mem::take(&mut inherited.handover.cgroups);
        let hangs = std::mem::take(&mut inherited.handover.hangs);
        let machine = Machine::read(root)?;
        let hierarchy = Hierarchy::find(root).map_err(LocateError::from)?;
        let late = inherited.late;
        let mut sources = Sources::open(root, hierarchy.number, inherited)?;
        let mut ladders = Ladder::all(&options.detectors);
        for ladder in ladders.iter_mut().filter(|ladder| !late || ladder.detector().tells()) {
            ladder.start(&mut sources);
        }
        refuse_blindness(&ladders)?;
        let complete = !ladders.iter().any(Ladder::waits);
        if complete {
            sources.settle();
        }
        let attached_after = began.elapsed();
        let attached_at = clock::boot_ns();
        let witness = sources.open_log();
        let mut pipeline =
            Pipeline::resume(sink, root, options.count, &clock::boot_ns, Box::new(Worker::new(root)), &cgroups)?;
        pipeline.knows_of_losses(sources.dropped_before());
        pipeline.inherit_hangs(&hangs);
        for ladder in &ladders {
            pipeline.set_method(ladder.detector(), ladder.method());
        }
        let started = Started {
            boot_ns: attached_at,
            kernel: machine.kernel,
            boot_id: machine.boot_id,
            detectors: ladders.iter().filter(|ladder| !ladder.waits()).map(Ladder::status).collect(),
            cgroups: pipeline.cgroups(),
            attached_after,
        };
        note_shortcomings(&mut pipeline, &mut sources, &ladders, root);
        if complete {
            note_pins(&mut pipeline, &sources);
        }
        if let Err(error) = witness {
            let reason = error_chain(&error);
            pipeline.note(Stage::Source, "no_witness", || {
                format!("a method that falls silent will not be noticed by the kernel's log: {reason}")
            });
        }
        let wall = WallClock::measure();
        pipeline.set_wall_clock(wall);
        // Before the first containers are told.
        if last_words::may_be_prepared(&ladders) {
            pipeline.name_containers();
        }
        pipeline.begin(&started)?;
        counts::begin(&mut pipeline, &sources)?;
        if last_words::are_prepared(&ladders) {
            last_words::begin(&mut pipeline, &mut sources);
        }
        memory::release_unused();
        let now = clock::monotonic_now();
        let mut agenda = Agenda::default();
        if sources.may_have_records() {
            agenda.active(now);
        }
        Ok(Self { sources, ladders, pipeline, agenda, wall, line: Vec::new() })
    }

    /// Watches until enough was told, somebody asks for an end, or `deadline`. Those `beside` the flow may ask it for a
    /// turn.
    pub(in crate::agent) async fn run(
        &mut self,
        signals: &mut StopSignals,
        deadline: Option<Instant>,
        beside: &mut Beside,
    ) -> Result<(), AgentError> {
        if self.ladders.iter().any(Ladder::waits) {
            // Those beside the flow begin before it.
            tokio::task::yield_now().await;
            self.complete()?;
        }
        loop {
            let input = input::next(&self.sources, signals, deadline, self.next_due(), beside).await?;
            match input {
                Input::Stop => return Ok(()),
                Input::Pods(update) => self.pipeline.take_pods(update)?,
                input => {
                    if self.turn(&input)? == Progress::Enough {
                        return Ok(());
                    }
                }
            }
            last_words::hand_on(&mut self.pipeline, &mut self.sources);
            self.keep();
        }
    }

    /// Attaches what has waited until all else worked.
    fn complete(&mut self) -> Result<(), AgentError> {
        let mut attached = Vec::new();
        for ladder in self.ladders.iter_mut().filter(|ladder| ladder.waits()) {
            ladder.start(&mut self.sources);
            attached.push(ladder.status());
        }
        refuse_blindness(&self.ladders)?;
        self.sources.settle();
        note_pins(&mut self.pipeline, &self.sources);
        self.pipeline.attached_late(&attached)?;
        if last_words::are_prepared(&self.ladders) {
            last_words::begin(&mut self.pipeline, &mut self.sources);
        } else {
            self.pipeline.name_no_containers();
        }
        Ok(())
    }

    /// Has the sink save what must survive, if it is time, and lets go of the records that led to it.
    fn keep(&mut self) {
        if let Some(error) = self.sources.spool_trouble() {
            self.pipeline.note(Stage::Source, "spool", || error_chain(&error));
        }
        self.pipeline.unspooled(self.sources.take_unspooled());
        let urgent = self.sources.wants_clearing();
        if self.pipeline.save_if_due(urgent, || self.sources.taken()) {
            self.sources.clear_spool();
        }
    }

    /// Looks for the names of containers that something waits for since an earlier run, until `until_ns`, nanoseconds since
    /// boot; by the paths of their cgroups.
    pub(in crate::agent) fn seek_names(&mut self, cgroups: &[String], until_ns: u64) {
        cgroups.iter().for_each(|cgroup| self.pipeline.seek_names(cgroup, until_ns));
    }

    /// The kernel side, if there is one.
    pub(in crate::agent) fn probe(&self) -> Option<&Probe> {
        self.sources.probe()
    }

    /// When something will be due, if anything is.
    fn next_due(&self) -> Option<Instant> {
        let after = self.pipeline.next_due().map(|after| clock::monotonic_now() + after);
        after.into_iter().chain(self.agenda.next()).min()
    }

    /// Reads what came and does what is due.
    fn turn(&mut self, input: &Input) -> Result<Progress, AgentError> {
        let now = clock::monotonic_now();
        if matches!(input, Input::Records | Input::Log) {
            self.agenda.active(now);
        }
        // A witness may be heard later: of a kill it has dozens of lines, the first of them before the kill itself, and its
        // record must not find us busy.
        if matches!(input, Input::Log) && !self.lives_by_log() {
            self.agenda.log_later(now);
            if let Some(log) = self.sources.log() {
                log.rest();
            }
            return Ok(Progress::Waiting);
        }
        self.agenda.looked(now);
        let checks = self.agenda.takes_check(now);
        // Before the records: what is counted here is in their rings by now.
        let counts = if checks { counts::read(&mut self.pipeline, &self.sources) } else { None };
        // Before records are read, so that none of them is told by a clock that was set since.
        if self.wall.is_off() {
            self.wall = WallClock::measure();
            self.pipeline.set_wall_clock(self.wall);
        }
        if self.pipeline.drain(&mut self.sources)? == Progress::Enough {
            return Ok(Progress::Enough);
        }
        if (self.agenda.takes_log(now) || self.lives_by_log()) && self.read_log()? == Progress::Enough {
            return Ok(Progress::Enough);
        }
        let silent = self.pipeline.look_after()?;
        let broken = if checks { self.sources.broken() } else { Vec::new() };
        self.mend(silent, broken)?;
        if checks {
            if let Some(counts) = counts
                && counts::settle(&mut self.pipeline, &mut self.sources, &counts)?
            {
                self.agenda.active(now);
            }
            self.pipeline.reconcile()?;
            if self.agenda.takes_climb(now) {
                self.climb()?;
            }
        }
        Ok(self.pipeline.progress())
    }

    fn lives_by_log(&self) -> bool {
        self.ladders.iter().any(|ladder| ladder.method() == Some(Method::Kmsg))
    }

    /// Reads the kernel's log to its end, after the rings: what they tell needs no witness.
    fn read_log(&mut self) -> Result<Progress, AgentError> {
        while let Some(log) = self.sources.log() {
            match log.next(&mut self.line) {
                Ok(Read::Record { lost }) => {
                    if self.pipeline.take_line(&self.line, lost)? == Progress::Enough {
                        return Ok(Progress::Enough);
                    }
                    // A kill must not wait for the dozens of lines that the log has of each.
                    if self.pipeline.drain_precious(&mut self.sources)? == Progress::Enough {
                        return Ok(Progress::Enough);
                    }
                }
                Ok(Read::Nothing) => {
                    self.pipeline.log_was_read();
                    log.listen().map_err(ReadyError::from)?;
                    break;
                }
                Err(error) => {
                    self.sources.close_log();
                    let reason = error_chain(&error);
                    self.pipeline
                        .note(Stage::Source, "no_witness", || format!("the kernel's log is read no more: {reason}"));
                    self.replace_users_of_log(&reason)?;
                    return Ok(Progress::Waiting);
                }
            }
        }
        Ok(Progress::Waiting)
    }

    fn mend(&mut self, silent: Vec<Silent>, broken: Vec<Broken>) -> Result<(), AgentError> {
        let (of_detectors, of_cgroups): (Vec<_>, Vec<_>) =
            broken.into_iter().map(|Broken { detector, reason }| (detector, reason)).partition(|(of, _)| of.is_some());
        if let Some((_, reason)) = of_cgroups.first() {
            let mended = self.sources.mend_cgroup_life();
            self.pipeline.cgroup_life_broke(reason, mended);
        }
        // Once each: a method has several links, and all may be closed at once.
        let mut mended = BTreeSet::new();
        for (detector, reason) in of_detectors {
            if let Some(detector) = detector.filter(|detector| mended.insert(*detector)) {
                self.replace(detector, reason)?;
            }
        }
        for Silent { detector, reason } in silent.into_iter().filter(|silent| mended.insert(silent.detector)) {
            // Nothing else may take its place, and attached it is.
            if self.ladders.iter().any(|ladder| ladder.detector() == detector && ladder.is_forced()) {
                self.pipeline.note(Stage::Problem, "missed_by_method", || reason);
            } else {
                self.replace(detector, reason)?;
            }
        }
        Ok(())
    }

    fn replace_users_of_log(&mut self, reason: &str) -> Result<(), AgentError> {
        let users = self.ladders.iter().filter(|ladder| ladder.method() == Some(Method::Kmsg));
        for detector in users.map(Ladder::detector).collect::<Vec<_>>() {
            self.replace(detector, reason.to_owned())?;
        }
        Ok(())
    }

    /// Puts another method in the place of one that fell silent, and tells.
    fn replace(&mut self, detector: Detector, reason: String) -> Result<(), AgentError> {
        // What the former method has written is told under its name.
        self.pipeline.drain(&mut self.sources)?;
        let Some(ladder) = self.ladders.iter_mut().find(|ladder| ladder.detector() == detector) else { return Ok(()) };
        let Some(before) = ladder.replace(&mut self.sources) else { return Ok(()) };
        let change = MethodChange { boot_ns: clock::boot_ns(), detector, before, now: ladder.method(), reason };
        self.agenda.fell(clock::monotonic_now());
        self.pipeline.method_changed(&change)
    }

    /// Goes back to better methods, where they work again; where not, they are tried again later.
    fn climb(&mut self) -> Result<(), AgentError> {
        let mut again = false;
        for ladder in self.ladders.iter_mut().filter(|ladder| ladder.may_climb()) {
            self.pipeline.drain(&mut self.sources)?;
            let before = ladder.climb(&mut self.sources);
            let (detector, now) = (ladder.detector(), ladder.method());
            again |= ladder.may_climb();
            let Some(before) = before else {
                self.pipeline.attached_anew(detector);
                continue;
            };
            let reason = "a better method works again".to_owned();
            let change = MethodChange { boot_ns: clock::boot_ns(), detector, before, now, reason };
            self.pipeline.method_changed(&change)?;
        }
        if again {
            self.agenda.fell(clock::monotonic_now());
        }
        Ok(())
    }

    /// Reads what is left and tells the summary.
    pub(in crate::agent) fn finish(mut self) -> Result<Summary, AgentError> {
        if self.pipeline.drain(&mut self.sources)? == Progress::Waiting {
            self.read_log()?;
        }
        let end = self.pipeline.end(&mut self.sources)?;
        // What comes after this is in a ring; what the log told was nowhere but in memory.
        if self.pipeline.save(|| self.sources.taken()) {
            self.sources.clear_spool();
        }
        self.pipeline.conclude(end)
    }
}

/// Tells what became of the pins, once they are settled.
fn note_pins(pipeline: &mut Pipeline<'_>, sources: &Sources) {
    for (kind, count, sentence) in sources.troubles_of_pins() {
        let stage = if kind == "abi" { Stage::Decode } else { Stage::Source };
        pipeline.note_many(stage, kind, count, || sentence);
    }
}

/// Tells what this run has to do without.
fn note_shortcomings(pipeline: &mut Pipeline<'_>, sources: &mut Sources, ladders: &[Ladder], root: &Path) {
    if let Some(found) = sources.spool_found() {
        pipeline.note_spool(found);
    }
    if let Some(reason) = sources.without_types() {
        pipeline
            .note(Stage::Source, "no_btf", || format!("methods that need the kernel's types do not work: {reason}"));
    }
    if !sources.missing_fields().is_empty() {
        let missing = sources.missing_fields().join("; ");
        pipeline.note(Stage::Source, "missing_fields", || format!("what depends on these stays unknown: {missing}"));
    }
    if ladders.iter().any(|ladder| ladder.detector() == Detector::HungTask) && task::hung_task_timeout(root) == Some(0)
    {
        pipeline.note(Stage::Source, "hung_tasks_off", || {
            "the kernel does not look for hung tasks: kernel.hung_task_timeout_secs is 0".to_owned()
        });
    }
    if !task::sees_the_machine(root) {
        pipeline.note(Stage::Source, "own_pid_namespace", || FOREIGN_PIDS.to_owned());
    }
    if let Some(reason) = sources.without_cgroup_life() {
        pipeline
            .note(Stage::Source, "no_cgroup_life", || format!("cgroups made from now on have no known path: {reason}"));
    }
    if let Some(reason) = sources.without_probe() {
        pipeline.note(Stage::Source, "no_probe", || format!("nothing runs in the kernel: {reason}"));
    }
    let lost: Vec<String> = lost_without_rights();
    if !lost.is_empty() {
        pipeline.note(Stage::Source, "missing_rights", || lost.join("; "));
    }
}

/// What stays unknown for want of a right, each a sentence.
fn lost_without_rights() -> Vec<String> {
    let Ok(rights) = Rights::of_this_process() else { return Vec::new() };
    privilege::losses(rights).map(|(right, loss)| format!("without {}: {loss}", right.name())).collect()
}

/// A detector that was asked for by name must have a method, and so must one at least.
fn refuse_blindness(ladders: &[Ladder]) -> Result<(), AgentError> {
    let blind = |ladder: &&Ladder| ladder.method().is_none() && !ladder.waits();
    let all_blind = ladders.iter().filter(|ladder| ladder.detector().tells()).all(|ladder| blind(&ladder));
    match ladders.iter().filter(blind).find(|ladder| ladder.is_required() || all_blind) {
        Some(ladder) => {
            let tried = ladder.status().refused.iter().map(|(method, reason)| format!("{method}: {reason}")).collect();
            Err(AgentError::Blind { detector: ladder.detector(), tried, denied: ladder.is_denied() })
        }
        None => Ok(()),
    }
}
