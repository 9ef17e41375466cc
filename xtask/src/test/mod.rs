//! `cargo xtask test`: all levels of tests, from pure functions to kernels in virtual machines.

mod fuzz;
mod level;
mod libtest;

use std::{process::ExitCode, time::Instant};

use anyhow::Result;

use crate::{cluster, process};
pub(crate) use level::Level;
use level::Part;

/// Install what is missing and run the tests: all levels, or those named.
///
/// A level that cannot run is a failure. The last line counts over all levels; a level left out by name is not counted.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test unit pipeline\n  \
    cargo xtask test vm --kernel 5.10 6.12 --case hang hang-lock\n  \
    cargo xtask test cluster --only api --case token")]
pub(crate) struct Options {
    /// Levels to run; all if none is named.
    #[arg(value_name = "LEVEL")]
    levels: Vec<Level>,
    /// Kernel series of the level `vm`, such as 6.1; all if not given. What follows it is taken for series, too: name the
    /// levels before.
    #[arg(long = "kernel", value_name = "SERIES", num_args = 1..)]
    series: Vec<String>,
    /// Level `vm`: every kernel × rung × case instead of the representative matrix, and each class of panic on several
    /// kernels. Level `cluster`: an outage of ten minutes, 1,000 kills during which a node's agent is killed, and a panic
    /// without us to compare with.
    #[arg(long)]
    full: bool,
    /// Levels `vm` and `cluster`: cases to run, such as `hang`, or parts of tests' names; all if not given.
    #[arg(long = "case", value_name = "CASE", num_args = 1..)]
    cases: Vec<String>,
    /// Level `vm`: watchers to judge, each a method for kills and one for hung tasks, such as `fentry/btf_tracepoint`;
    /// `-` is none.
    #[arg(long = "watcher", value_name = "OOM/HUNG_TASK", num_args = 1..)]
    watchers: Vec<String>,
    /// Level `vm`: write what `detector doctor` says of each kernel into `tests/fixtures/doctor`, instead of comparing.
    #[arg(long)]
    record: bool,
    /// Level `cluster`: only the tests that need no nodes, those of an agent or of controllers on this machine, those
    /// with nodes, or those that end nodes.
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
}

/// What came of some tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Ran and held.
    pub passed: u32,
    /// Ran and did not hold, or could not run.
    pub failed: u32,
    /// Left out.
    pub skipped: u32,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (chosen, left_out): (Vec<_>, Vec<_>) =
        Level::ALL.into_iter().partition(|level| options.levels.is_empty() || options.levels.contains(level));
    if chosen.contains(&Level::Cluster) {
        cluster::prepare();
    }
    let mut total = Outcome::default();
    let mut closing = Vec::new();
    for level in chosen {
        let (outcome, line) = judge(level, options);
        println!("{line}\n");
        closing.push(line);
        total = total + outcome;
    }
    closing.extend(left_out.iter().map(|level| format!("level {level}: left out, because others were named")));
    println!("{}", closing.join("\n"));
    println!("{}", total.sum());
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one level and words its closing line.
fn judge(level: Level, options: &Options) -> (Outcome, String) {
    process::say(format_args!("level {level}"));
    let start = Instant::now();
    let mut outcome = level.run(options).unwrap_or_else(|error| {
        println!("level {level} could not run: {error:#}");
        Outcome { failed: 1, ..Outcome::default() }
    });
    if outcome.passed + outcome.failed == 0 {
        println!("level {level} ran no test at all, which is a failure");
        outcome.failed = 1;
    }
    (outcome, outcome.closing_line(level, &process::seconds(start.elapsed())))
}

impl Outcome {
    fn closing_line(self, level: Level, time: &str) -> String {
        let ran = self.passed + self.failed;
        format!("level {level}: {ran} ran, {} failed, {} left out ({time})", self.failed, self.skipped)
    }

    /// The last line of all: `N passed, N failed`, and what was left out, if any.
    fn sum(self) -> String {
        let skipped = if self.skipped == 0 { String::new() } else { format!(", {} skipped", self.skipped) };
        format!("{} passed, {} failed{skipped}", self.passed, self.failed)
    }
}

impl std::ops::Add for Outcome {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_names_skipped_tests_only_if_there_are_any() {
        let outcome = Outcome { passed: 12, failed: 1, skipped: 0 };
        assert_eq!(outcome.sum(), "12 passed, 1 failed");
        assert_eq!(Outcome { skipped: 2, ..outcome }.sum(), "12 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn a_level_tells_how_many_ran_failed_and_were_left_out() {
        let outcome = Outcome { passed: 12, failed: 1, skipped: 2 };
        assert_eq!(outcome.closing_line(Level::Unit, "3.0 s"), "level unit: 13 ran, 1 failed, 2 left out (3.0 s)");
    }
}
