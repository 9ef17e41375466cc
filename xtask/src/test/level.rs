//! The levels of tests, least powerful first, and how each is started.

use std::{fmt, process::Command};

use anyhow::Result;

use super::{Options, Outcome, fuzz, libtest};
use crate::{build, cluster, process, toolchain::prometheus, vm, workspace};

/// Tests with nodes that run at the same time: guests are slow, and each test mostly waits for one.
const NODE_TESTS_AT_A_TIME: u32 = 4;

/// Length of the API server's outage in the tests of an agent with `--full`; 12 s otherwise.
const FULL_OUTAGE_SECONDS: u32 = 600;

/// Kills on a node during which its agent is killed, with `--full`; 60 otherwise.
const FULL_NODE_KILLS: u32 = 1000;

/// A part of the level `cluster`: a test program of `tests/cluster`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// What needs the control plane only.
    Api,
    /// What needs the control plane and an agent on this machine; needs root.
    Agent,
    /// What needs nodes.
    Node,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Agent => "agent",
            Self::Node => "node",
        }
    }
}

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
    /// A real API server here and real kubelets in QEMU.
    Cluster,
}

impl Level {
    /// All levels in the order in which they run: what fails fast comes first.
    pub(crate) const ALL: [Self; 6] = [Self::Unit, Self::Pipeline, Self::Fuzz, Self::Kernel, Self::Vm, Self::Cluster];

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
            Self::Cluster => cluster(options),
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
            Self::Cluster => "cluster",
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
    command.env("DETECTOR_KEEPER", artifacts.keeper);
    as_root(&mut command, "DETECTOR_BIN,DETECTOR_KEEPER,DETECTOR_PROVOKE");
    libtest::run(&mut command)
}

/// What the tests of an agent on this machine are given. They run one after the other, and as root.
fn with_agent(command: &mut Command, options: &Options) -> Result<()> {
    command.env("DETECTOR_BIN", build::detector()?).env("DETECTOR_PROVOKE", build::provoke()?);
    command.args(["--test-threads", "1"]);
    if options.full {
        command.env("DETECTOR_OUTAGE_SECONDS", FULL_OUTAGE_SECONDS.to_string());
    }
    as_root(command, "DETECTOR_RIG,DETECTOR_BIN,DETECTOR_PROVOKE,DETECTOR_OUTAGE_SECONDS");
    Ok(())
}

/// Has cargo start the tests by sudo with these variables, unless this is root already.
fn as_root(command: &mut Command, variables: &str) {
    if !rustix::process::geteuid().is_root() {
        let runner = format!("CARGO_TARGET_{}_RUNNER", workspace::triple().replace('-', "_").to_uppercase());
        process::say("these tests need root: they run under sudo");
        command.env(runner, format!("sudo --preserve-env={variables}"));
    }
}

/// A rig for this run alone. Tests that need no nodes run while those boot; the tests are compiled before, so that a rig
/// never waits for a compiler.
fn cluster(options: &Options) -> Result<Outcome> {
    let chosen = |part: Part| options.only.is_none_or(|only| only == part);
    let package = ["--package", "detector-cluster-tests"];
    let mut compile = cargo_test();
    process::long(compile.args(package).arg("--no-run"), "build the tests of the cluster", "2 minutes the first time")?;
    let extent = if chosen(Part::Node) { cluster::Extent::All } else { cluster::Extent::Api };
    let mut rig = cluster::Rig::start(&workspace::target().join("rig-test"), extent, None)?;
    let mut outcome = Outcome::default();
    for part in [Part::Api, Part::Agent, Part::Node].into_iter().filter(|part| chosen(*part)) {
        let mut command = cargo_test();
        command.args(package).args(["--test", part.name(), "--"]).args(&options.cases);
        command.env(cluster::VARIABLE, rig.facts()).env("RUST_BACKTRACE", "0");
        // What these measure is to be seen also when they pass.
        if matches!(part, Part::Agent | Part::Node) {
            command.arg("--show-output");
        }
        if part == Part::Agent {
            with_agent(&mut command, options)?;
        }
        if part == Part::Node {
            // Dashboards and alerts are asked of a real Prometheus, which lies beside promtool.
            let promtool = prometheus::ensure_promtool()?;
            command.env("DETECTOR_PROMETHEUS", promtool.with_file_name("prometheus"));
            rig.wait()?;
            if options.full {
                command.env("DETECTOR_NODE_KILLS", FULL_NODE_KILLS.to_string());
            }
            command.args(["--test-threads", &NODE_TESTS_AT_A_TIME.to_string()]);
        }
        outcome = outcome + libtest::run(&mut command)?;
    }
    // A server that died explains the tests that failed, and is a failure without any.
    if let Err(error) = rig.must_run() {
        println!("{error:#}");
        outcome.failed += 1;
    }
    if outcome.failed > 0 {
        println!("level cluster: the logs of servers and guests stay in {}", rig.logs().display());
    }
    Ok(outcome)
}
