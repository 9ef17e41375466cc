//! The run: watchers first, then case after case, then the watchers' last lines.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use detector_provoke::{Cgroup, Hierarchy, Limits, scenario, vmstat_kills};

use crate::{
    case::{CASES, Case, Expected, Rig},
    judge::{self, Seen},
    line::OomKill,
    parameters::Parameters,
    report::Report,
    watcher::Watcher,
};

/// A watcher with what it must have told by the end.
struct Witness {
    watcher: Watcher,
    /// Kills that it printed.
    printed: u64,
    /// What `vmstat` said before it started.
    vmstat_before: u64,
}

/// Runs all cases that the host asked for and prints the verdict.
pub(crate) fn all() -> Result<()> {
    let parameters = Parameters::read()?;
    let rig = Rig { hierarchy: Hierarchy::find()?, burst: parameters.burst };
    let mut report = Report::default();
    println!("GUEST kernel {}", rustix::system::uname().release().to_string_lossy());
    let mut witnesses = start(&parameters.methods, &mut report)?;
    let mut dying = 0;
    for case in &CASES {
        let wanted = parameters.cases.is_empty() || parameters.cases.iter().any(|name| name == case.name);
        if wanted {
            match judged(case, &rig, &mut witnesses, &mut report) {
                Ok(expected) => dying += expected.already_dying,
                Err(cause) => report.case(case.name, "kernel", &[format!("{cause:#}")]),
            }
        }
    }
    for witness in witnesses {
        finish(witness, dying, &mut report);
    }
    report.verdict();
    Ok(())
}

fn start(methods: &[String], report: &mut Report) -> Result<Vec<Witness>> {
    let mut witnesses = Vec::new();
    for method in methods {
        let vmstat_before = vmstat_kills()?;
        match Watcher::start(method) {
            Ok((watcher, started)) => {
                println!("GUEST {method} attached after {:.0} ms", started.attached_after_ms);
                let same = started.oom_method == *method;
                let wrong = (!same).then(|| format!("it says that it uses {}", started.oom_method));
                report.case("start", method, wrong.as_slice());
                witnesses.push(Witness { watcher, printed: 0, vmstat_before });
            }
            Err(cause) => report.case("start", method, &[format!("{cause:#}")]),
        }
    }
    Ok(witnesses)
}

/// Provokes a case once and judges the kernel and every watcher on it.
fn judged(case: &Case, rig: &Rig, witnesses: &mut [Witness], report: &mut Report) -> Result<Expected> {
    let (before, start) = (vmstat_kills()?, Instant::now());
    let expected = (case.provoke)(rig).with_context(|| format!("provoking {}", case.name))?;
    let counted = vmstat_kills()?.saturating_sub(before);
    println!("GUEST {} took {} ms", case.name, start.elapsed().as_millis());
    report.case(case.name, "kernel", &judge::kernel(&expected, counted));
    let marker = marker(rig)?;
    let mut first: Option<(String, Vec<OomKill>)> = None;
    for witness in witnesses {
        let method = witness.watcher.method.clone();
        match witness.watcher.kills_before(marker) {
            Ok((kills, notices)) => {
                witness.printed += kills.len() as u64 + 1;
                let mut wrong = judge::seen(&expected, Seen { kills: &kills, notices: &notices });
                match &first {
                    Some((other, agreed)) => wrong.extend(judge::disagreement(other, agreed, &kills)),
                    None => first = Some((method.clone(), kills)),
                }
                report.case(case.name, &method, &wrong);
            }
            Err(cause) => report.case(case.name, &method, &[format!("{cause:#}")]),
        }
    }
    Ok(expected)
}

/// One more kill: once a watcher has printed it, it has printed all that came before. Returns its victim.
fn marker(rig: &Rig) -> Result<u32> {
    let leaf = Cgroup::make(&rig.hierarchy, "settle", Limits::mib(8))?;
    let provoked = scenario::single_child(&leaf).context("provoking the marker kill")?;
    ensure!(provoked.victims.len() == 1, "the marker kill has {} victims", provoked.victims.len());
    Ok(provoked.victims[0].pid)
}

fn finish(witness: Witness, dying: u64, report: &mut Report) {
    let method = witness.watcher.method.clone();
    let wrong = vmstat_kills().map_err(anyhow::Error::from).and_then(|after| {
        let (summary, late) = witness.watcher.stop()?;
        println!("GUEST {method} {summary:?}");
        let totals = judge::Totals {
            printed: witness.printed + late as u64,
            kernel: after.saturating_sub(witness.vmstat_before),
            already_dying: dying,
        };
        Ok(judge::summary(&summary, &totals))
    });
    report.case("summary", &method, &wrong.unwrap_or_else(|cause| vec![format!("{cause:#}")]));
}
