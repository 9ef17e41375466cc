//! Cases of hung tasks: each is provoked once and judged on the kernel's own word and on every watcher, first while the
//! tasks hang, then after the thaw.

mod acceptance;
pub(crate) mod case;
mod judge;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use detector_provoke::{HungTask, stack};

use crate::{
    kmsg::{Log, Scans, WARNINGS, Warned},
    line::{HangState, Line},
    report::Report,
    run::{Rig, Witness},
};
use acceptance::Acceptance;
use case::Case;
use judge::Expected;

/// How long the kernel may take to warn; it looks every second.
const WARNING_DEADLINE: Duration = Duration::from_secs(30);

/// What one watcher told of a case.
struct Told<'a> {
    witness: &'a mut Witness,
    method: String,
    acceptance: Acceptance,
    lines: Vec<Line>,
}

/// Provokes a case once and judges the kernel and every watcher on it.
pub(crate) fn judged(case: &Case, rig: &Rig, witnesses: &mut [Witness], report: &mut Report) -> Result<()> {
    let start = Instant::now();
    let mut log = Log::open()?;
    let mut hung = (case.provoke)(rig).with_context(|| format!("provoking {}", case.name))?;
    // Not before all hang: so one scan finds all of them, and the warnings are not spent on the same few.
    let scans = Scans::often()?;
    let tasks: Vec<HungTask> = hung.hanging.tasks().cloned().collect();
    let stacks = tasks.iter().map(|task| stack(task.pid)).collect::<Result<Vec<_>, _>>()?;
    println!("GUEST {} hangs in {}", case.name, stacks.first().map(|names| names.join(" < ")).unwrap_or_default());
    let all_warned = tasks.len().min(WARNINGS);
    log.until(WARNING_DEADLINE, |warned| warned.tasks.len() >= all_warned)?;
    let mut told = watching(witnesses);
    for one in &mut told {
        let wanted = one.wanted(&tasks, log.warned()?);
        let every_scan = one.acceptance.every_scan;
        one.listen(|lines| seen(lines, &wanted, every_scan))?;
    }
    hung.hanging.thaw()?;
    for one in &mut told {
        let wanted = one.wanted(&tasks, log.warned()?);
        one.listen(|lines| over(lines, &wanted))?;
    }
    let warned = log.warned()?;
    drop(scans);
    let took = start.elapsed().as_millis();
    println!("GUEST {} took {took} ms; holders by the kernel's log: {:?}", case.name, warned.holders);
    report.case(case.name, "kernel", &judge::kernel(&tasks, warned));
    let expected = Expected { tasks: &tasks, stacks: &stacks, warned };
    for one in told {
        report.case(case.name, &one.method, &judge::seen(&expected, &one.lines, &one.method));
    }
    hung.hanging.finish()?;
    Ok(())
}

/// Watchers that look for hung tasks.
fn watching(witnesses: &mut [Witness]) -> Vec<Told<'_>> {
    let all = witnesses.iter_mut().filter_map(|witness| {
        let method = witness.methods.hung_task.clone()?;
        Some(Told { witness, acceptance: Acceptance::of(&method), method, lines: Vec::new() })
    });
    all.collect()
}

impl Told<'_> {
    /// Tasks that it must tell.
    fn wanted(&self, tasks: &[HungTask], warned: &Warned) -> Vec<u32> {
        let pids = tasks.iter().map(|task| task.pid);
        pids.filter(|pid| self.acceptance.beyond_warnings || warned.tasks.contains_key(pid)).collect()
    }

    /// Reads lines until `done` holds for all of this case, or for as long as a line may take.
    fn listen(&mut self, done: impl Fn(&[Line]) -> bool) -> Result<()> {
        let before = std::mem::take(&mut self.lines);
        let with_before = |lines: &[Line]| done(&[&before[..], lines].concat());
        let lines = self.witness.watcher.lines_until(with_before)?;
        self.lines = [before, lines.all].concat();
        Ok(())
    }
}

/// Whether all of these hangs are raised and, if it is to be told, sustained.
fn seen(lines: &[Line], wanted: &[u32], sustained: bool) -> bool {
    let (raised, again) = (told(lines, &[HangState::Raised]), told(lines, &[HangState::Sustained]));
    wanted.iter().all(|pid| raised.contains(pid) && (!sustained || again.contains(pid)))
}

/// Whether all of these hangs are over.
fn over(lines: &[Line], wanted: &[u32]) -> bool {
    let over = told(lines, &[HangState::Ran, HangState::Exited]);
    wanted.iter().all(|pid| over.contains(pid))
}

/// Tasks told in one of these states.
fn told(lines: &[Line], states: &[HangState]) -> BTreeSet<u32> {
    let hangs = lines.iter().filter_map(|line| if let Line::HungTask(hang) = line { Some(hang) } else { None });
    hangs.filter(|hang| states.contains(&hang.state)).filter_map(|hang| hang.task.tid).collect()
}
