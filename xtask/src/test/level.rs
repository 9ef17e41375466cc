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

/// The package of the tests of the level `cluster`.
const CLUSTER_TESTS: [&str; 2] = ["--package", "detector-cluster-tests"];

/// A part of the level `cluster`: a test program of `tests/cluster`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// What needs the control plane only.
    Api,
    /// What needs the control plane and an agent on this machine; needs root.
    Agent,
    /// What needs a control plane of its own and controllers on this machine.
    Controller,
    /// What needs nodes.
    Node,
    /// What ends nodes: panics, power cuts.
    LastWords,
}

/// All parts in their order: nodes die last.
const PARTS: [Part; 5] = [Part::Api, Part::Agent, Part::Controller, Part::Node, Part::LastWords];

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Agent => "agent",
            Self::Controller => "controller",
            Self::Node => "node",
            Self::LastWords => "last_words",
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
    let mut compile = cargo_test();
    let compile = compile.args(CLUSTER_TESTS).arg("--no-run");
    process::long(compile, "build the tests of the cluster", "2 minutes the first time")?;
    if options.only == Some(Part::Controller) {
        return with_controller(options);
    }
    let with_nodes = chosen(Part::Node) || chosen(Part::LastWords);
    let extent = if with_nodes { cluster::Extent::All } else { cluster::Extent::Api };
    let mut rig = cluster::Rig::start(&workspace::target().join("rig-test"), extent, None)?;
    let mut outcome = Outcome::default();
    for part in PARTS.into_iter().filter(|part| chosen(*part)) {
        outcome = outcome + run_part(part, &mut rig, options)?;
    }
    outcome.failed += died(&mut rig);
    if outcome.failed > 0 {
        println!("level cluster: the logs of servers and guests stay in {}", rig.logs().display());
    }
    Ok(outcome)
}

/// One if a server of the rig died: that explains the tests that failed, and is a failure without any.
fn died(rig: &mut cluster::Rig) -> u32 {
    let Err(error) = rig.must_run() else { return 0 };
    println!("{error:#}");
    1
}

fn run_part(part: Part, rig: &mut cluster::Rig, options: &Options) -> Result<Outcome> {
    let mut command = of_part(part, rig, options);
    match part {
        Part::Api => {}
        Part::Agent => with_agent(&mut command, options)?,
        Part::Controller => return with_controller(options),
        Part::Node => {
            // Dashboards and alerts are asked of a real Prometheus, which lies beside promtool.
            let promtool = prometheus::ensure_promtool()?;
            command.env("DETECTOR_PROMETHEUS", promtool.with_file_name("prometheus"));
            rig.wait()?;
            if options.full {
                command.env("DETECTOR_NODE_KILLS", FULL_NODE_KILLS.to_string());
            }
            command.args(["--test-threads", &NODE_TESTS_AT_A_TIME.to_string()]);
        }
        Part::LastWords => {
            rig.wait()?;
            command.env("DETECTOR_BIN", build::detector()?).args(["--test-threads", "1"]);
            if options.full {
                command.arg("--include-ignored");
            }
        }
    }
    libtest::run(&mut command)
}

/// The tests of a part, against a rig.
fn of_part(part: Part, rig: &cluster::Rig, options: &Options) -> Command {
    let mut command = cargo_test();
    command.args(CLUSTER_TESTS).args(["--test", part.name(), "--"]).args(&options.cases);
    command.env(cluster::VARIABLE, rig.facts()).env("RUST_BACKTRACE", "0");
    // What the others measure is to be seen also when they pass.
    if part != Part::Api {
        command.arg("--show-output");
    }
    command
}

/// The tests of controllers have a control plane of their own: a controller looks after all Nodes that there are, and those of
/// other tests live and die as they like. For the same reason they run one after the other.
fn with_controller(options: &Options) -> Result<Outcome> {
    let mut rig = cluster::Rig::start(&workspace::target().join("rig-controller"), cluster::Extent::Api, None)?;
    let mut command = of_part(Part::Controller, &rig, options);
    command.env("DETECTOR_BIN", build::detector()?).args(["--test-threads", "1"]);
    let mut outcome = libtest::run(&mut command)?;
    outcome.failed += died(&mut rig);
    if outcome.failed > 0 {
        println!("the logs of controllers stay in {}", rig.logs().display());
    }
    Ok(outcome)
}
