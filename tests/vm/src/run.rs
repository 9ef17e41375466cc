//! The run: watchers first, then case after case, then the watchers' last lines; at the end the cases with watchers of
//! their own.

use anyhow::Result;
use detector_provoke::{Cgroup, Hierarchy, Limits, vmstat_kills};

use crate::{
    alone, hang,
    line::{Line, OomKill},
    oom::{self, acceptance::Acceptance, judge},
    parameters::{Methods, Parameters},
    report::Report,
    watcher::Watcher,
};

/// What a case may use.
pub(crate) struct Rig {
    /// The hierarchy with the memory controller.
    pub(crate) hierarchy: Hierarchy,
    /// Kills of the burst.
    pub(crate) burst: usize,
}

impl Rig {
    /// Makes a cgroup.
    pub(crate) fn make(&self, name: &str, limits: Limits) -> Result<Cgroup> {
        Ok(Cgroup::make(&self.hierarchy, name, limits)?)
    }
}

/// A watcher with what it must have told by the end.
pub(crate) struct Witness {
    /// What it watches, and how.
    pub(crate) methods: Methods,
    pub(crate) watcher: Watcher,
    /// Kills that it printed.
    printed: judge::Printed,
    /// What `vmstat` said before it started.
    vmstat_before: u64,
}

impl Witness {
    /// Counts kills that it printed.
    pub(crate) fn count(&mut self, kills: &[OomKill]) {
        kills.iter().for_each(|kill| self.printed.count(kill));
    }
}

/// Runs all cases that the host asked for and prints the verdict.
pub(crate) fn all() -> Result<()> {
    let parameters = Parameters::read()?;
    let rig = Rig { hierarchy: Hierarchy::find()?, burst: parameters.burst };
    let mut report = Report::default();
    println!("GUEST kernel {}", rustix::system::uname().release().to_string_lossy());
    let mut witnesses = start(&parameters.watchers, &mut report)?;
    let mut dying = 0;
    for case in oom::case::CASES.iter().filter(|case| parameters.wants(case.name)) {
        match oom::judged(case, &rig, &mut witnesses, &mut report) {
            Ok(marks) => dying += marks,
            Err(cause) => report.case(case.name, "kernel", &[format!("{cause:#}")]),
        }
    }
    for case in hang::case::CASES.iter().filter(|case| parameters.wants(case.name)) {
        if let Err(cause) = hang::judged(case, &rig, &mut witnesses, &mut report) {
            report.case(case.name, "kernel", &[format!("{cause:#}")]);
        }
    }
    for witness in witnesses {
        finish(witness, dying, &mut report);
    }
    if !parameters.watchers.is_empty() {
        let possible = |case: &&alone::Case| parameters.wants(case.name) && (case.possible)();
        for case in alone::CASES.iter().filter(possible) {
            let wrong = (case.run)(&rig).unwrap_or_else(|cause| vec![format!("{cause:#}")]);
            report.case(case.name, case.method, &wrong);
        }
    }
    report.verdict();
    Ok(())
}

fn start(watchers: &[Methods], report: &mut Report) -> Result<Vec<Witness>> {
    let mut witnesses = Vec::new();
    for methods in watchers {
        let (name, vmstat_before) = (methods.name(), vmstat_kills()?);
        match Watcher::forced(methods) {
            Ok((watcher, started)) => {
                println!("GUEST {name} attached after {:.0} ms", started.attached_after_ms);
                let used = |detector: &str| started.methods.get(detector).and_then(Option::as_deref);
                let wrong = methods.each().any(|(detector, method)| used(detector) != Some(method));
                let wrong = wrong.then(|| format!("it says that it uses {:?}", started.methods));
                report.case("start", &name, wrong.as_slice());
                let methods = methods.clone();
                witnesses.push(Witness { methods, watcher, printed: judge::Printed::default(), vmstat_before });
            }
            Err(cause) => report.case("start", &name, &[format!("{cause:#}")]),
        }
    }
    Ok(witnesses)
}

fn finish(witness: Witness, dying: u64, report: &mut Report) {
    let Some(method) = witness.methods.oom.clone() else { return };
    let wrong = last_words(witness, &method, dying).unwrap_or_else(|cause| vec![format!("{cause:#}")]);
    report.case("summary", &method, &wrong);
}

fn last_words(witness: Witness, method: &str, dying: u64) -> Result<Vec<String>> {
    let after = vmstat_kills()?;
    let acceptance = Acceptance::of(method, false);
    let Witness { mut printed, vmstat_before, .. } = witness;
    let (summary, late) = witness.watcher.stop()?;
    println!("GUEST {method} {summary:?}");
    for line in &late {
        if let Line::OomKill(kill) = line {
            printed.count(kill);
        }
    }
    let totals = judge::Totals {
        printed,
        kernel: after.saturating_sub(vmstat_before),
        already_dying: acceptance.already_dying.then_some(dying),
        groups: acceptance.groups,
    };
    Ok(judge::summary(&summary, &totals))
}
