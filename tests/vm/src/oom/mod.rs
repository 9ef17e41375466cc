//! Cases of OOM kills: each is provoked once and judged on the kernel's own counts and on every watcher.

pub(crate) mod acceptance;
pub(crate) mod case;
pub(crate) mod judge;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use detector_provoke::{Cgroup, Limits, scenario, vmstat_kills};

use crate::{
    line::{Line, OomKill},
    report::Report,
    run::{Rig, Witness},
};
use acceptance::Acceptance;
use case::{Case, Expected};
use judge::Seen;

/// Provokes a case once and judges the kernel and every watcher on it. Returns the marks of tasks already dying.
pub(crate) fn judged(case: &Case, rig: &Rig, witnesses: &mut [Witness], report: &mut Report) -> Result<u64> {
    let (before, start) = (vmstat_kills()?, Instant::now());
    let expected = (case.provoke)(rig).with_context(|| format!("provoking {}", case.name))?;
    let counted = vmstat_kills()?.saturating_sub(before);
    println!("GUEST {} took {} ms", case.name, start.elapsed().as_millis());
    report.case(case.name, "kernel", &judge::kernel(&expected, counted));
    let marker = marker(rig)?;
    let mut first: Option<(String, Vec<OomKill>)> = None;
    for witness in witnesses {
        let Some(method) = witness.methods.oom.clone() else { continue };
        let wrong = one(&expected, marker, witness, &method, &mut first);
        report.case(case.name, &method, &wrong.unwrap_or_else(|cause| vec![format!("{cause:#}")]));
    }
    Ok(expected.already_dying)
}

/// Complaints about one watcher; `first` is what the first one told that must tell all.
fn one(
    expected: &Expected,
    marker: u32,
    witness: &mut Witness,
    method: &str,
    first: &mut Option<(String, Vec<OomKill>)>,
) -> Result<Vec<String>> {
    let acceptance = Acceptance::of(method, acceptance::memory_in_tracepoint());
    let is_marker = |kill: &OomKill| kill.victim.pid.or(kill.victim.tid) == Some(marker);
    let marked = |lines: &[Line]| lines.iter().any(|line| matches!(line, Line::OomKill(kill) if is_marker(kill)));
    let count = |lines: &[Line]| lines.iter().filter(|line| matches!(line, Line::OomKill(_))).count();
    // What the kernel did not show to a lower method is told by its log, and late.
    let all = |lines: &[Line]| acceptance.is_whole() || count(lines) > expected.provoked.victims.len();
    let lines = witness.watcher.lines_until(|lines| marked(lines) && all(lines))?;
    let marker_seen = marked(&lines.all);
    let (mut kills, others) = sorted(lines.all);
    witness.count(&kills);
    kills.retain(|kill| !is_marker(kill));
    ensure!(marker_seen, "no line for the marker kill of {marker} in time; {} kills before", kills.len());
    let mut wrong = judge::seen(expected, Seen { method, kills: &kills, others: &others }, acceptance);
    if acceptance.is_whole() {
        match first {
            Some((other, agreed)) => wrong.extend(judge::disagreement(other, agreed, &kills)),
            None => *first = Some((method.to_owned(), kills)),
        }
    }
    Ok(wrong)
}

/// Kills, and all else.
fn sorted(lines: Vec<Line>) -> (Vec<OomKill>, Vec<Line>) {
    let (mut kills, mut others) = (Vec::new(), Vec::new());
    for line in lines {
        match line {
            Line::OomKill(kill) => kills.push(*kill),
            other => others.push(other),
        }
    }
    (kills, others)
}

/// One more kill: once a watcher has printed it, it has printed all that came before. Returns its victim.
pub(crate) fn marker(rig: &Rig) -> Result<u32> {
    let leaf = Cgroup::make(&rig.hierarchy, "settle", Limits::mib(8))?;
    let provoked = scenario::single_child(&leaf).context("provoking the marker kill")?;
    ensure!(provoked.victims.len() == 1, "the marker kill has {} victims", provoked.victims.len());
    Ok(provoked.victims[0].pid)
}
