//! The levels of tests, least powerful first, and how each is started.

use std::{fmt, process::Command};

use anyhow::Result;

use super::{Options, Outcome, fuzz, libtest};
use crate::{build, process, vm, workspace};

/// A level of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Level {
    /// Tests beside the code; they touch nothing else.
    Unit,
    /// The whole flow over recorded bytes, no kernel.
    Pipeline,
    /// Each fuzz target for 10 seconds, on stable Rust.
    Fuzz,
    /// Real OOM kills of the running kernel, in cgroups of the tests' own; needs root.
    Kernel,
    /// Real OOM kills of several kernels, in QEMU.
    Vm,
}

impl Level {
    /// All levels in the order in which they run: what fails fast comes first.
    pub(crate) const ALL: [Self; 5] = [Self::Unit, Self::Pipeline, Self::Fuzz, Self::Kernel, Self::Vm];

    pub(super) fn run(self, options: &Options) -> Result<Outcome> {
        match self {
            Self::Unit => libtest::run(cargo_test().args(["--lib", "--bins"])),
            Self::Pipeline => libtest::run(cargo_test().args(["--package", "detector", "--test", "*"])),
            Self::Fuzz => fuzz::run(),
            Self::Kernel => kernel(),
            Self::Vm => vm::run(&vm::Options {
                series: options.series.clone(),
                full: options.full,
                cases: options.cases.clone(),
                watchers: options.watchers.clone(),
                record: options.record,
            }),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unit => "unit",
            Self::Pipeline => "pipeline",
            Self::Fuzz => "fuzz",
            Self::Kernel => "kernel",
            Self::Vm => "vm",
        })
    }
}

fn cargo_test() -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--no-fail-fast"]);
    command
}

/// The tests get the shipped binary and the one that causes faults, and run as root.
fn kernel() -> Result<Outcome> {
    let artifacts = build::release()?;
    let mut command = cargo_test();
    command.args(["--package", "detector-kernel-tests"]);
    command.env("DETECTOR_BIN", artifacts.detector).env("DETECTOR_PROVOKE", artifacts.provoke);
    if !rustix::process::geteuid().is_root() {
        let variable = format!("CARGO_TARGET_{}_RUNNER", workspace::triple().replace('-', "_").to_uppercase());
        process::say("the level kernel needs root: its tests run under sudo");
        command.env(variable, "sudo --preserve-env=DETECTOR_BIN,DETECTOR_PROVOKE");
    }
    libtest::run(&mut command)
}
