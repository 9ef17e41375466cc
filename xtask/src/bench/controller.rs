//! The controller against the limits that it has to keep: how fast it hears, by criterion; and a running one beside a real API
//! server with 5,000 Nodes (`tests/cluster/src/bin/bench-controller.rs`).

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::table::{Row, Table};
use crate::{
    build,
    cluster::{self, Extent, Rig},
    process, workspace,
};

/// Directory of the rig below `target`.
const DIRECTORY: &str = "bench-rig";

/// Program that measures a running controller.
const MEASURER: &str = "bench-controller";

/// Fewest datagrams in a second on one core.
const RATE_LIMIT: f64 = 200_000.0;

/// Benchmarks of `detector/benches/controller.rs`, and what each measures.
const BENCHES: [(&str, &str); 3] = [
    ("controller_decode/panic", "decode of a panic's datagrams"),
    ("controller_decode/panic_in_fragments", "the same in fragments"),
    ("controller_hear/panics", "100 panics at once, all that is done with a datagram, 5,000 Nodes"),
];

/// What of the controller.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Parts to measure; all if none is named.
    #[arg(value_name = "PART")]
    parts: Vec<Part>,
    /// Measure this program instead of a release build.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Datagrams per second on one core.
    Rate,
    /// Memory, delay and requests of a running one.
    Cluster,
}

impl Options {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let wants = |part| self.parts.is_empty() || self.parts.contains(&part);
        let mut table = Table::new();
        if wants(Part::Rate) {
            rates()?.into_iter().for_each(|row| table.add(row));
        }
        let measured = if wants(Part::Cluster) { self.measure() } else { Ok(Vec::new()) };
        match measured {
            Ok(rows) => rows.into_iter().for_each(|row| table.add(row)),
            Err(cause) => {
                print!("{}", table.render());
                return Err(cause);
            }
        }
        print!("{}", table.render());
        Ok(ExitCode::SUCCESS)
    }

    fn measure(&self) -> Result<Vec<Row>> {
        let detector = self.binary.as_ref().map_or_else(build::detector, |path| Ok(path.canonicalize()?))?;
        let mut compile = workspace::cargo();
        compile.args(["build", "--package", "detector-cluster-tests", "--bin", MEASURER]);
        process::long(&mut compile, "build what measures", "2 minutes the first time")?;
        let directory = workspace::target().join(DIRECTORY);
        let mut rig = Rig::start(&directory, Extent::Patient, None)?;
        rig.wait()?;
        process::say("measure a controller, some 5 minutes");
        let mut command = Command::new(workspace::target().join("debug").join(MEASURER));
        command.env(cluster::VARIABLE, rig.facts()).env("DETECTOR_BIN", detector).env("RUST_BACKTRACE", "0");
        let logs = rig.logs();
        let output = command.stderr(std::process::Stdio::inherit()).output().context("measure a controller")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rows = text.lines().map(row).collect::<Result<Vec<_>>>()?;
        if !output.status.success() {
            rows.into_iter().for_each(|row| eprintln!("{row:?}"));
            anyhow::bail!("measure a controller (its logs: {}): ended with {}", logs.display(), output.status);
        }
        Ok(rows)
    }
}

/// A figure as the measuring program tells it.
fn row(line: &str) -> Result<Row> {
    let told: Value = serde_json::from_str(line).with_context(|| format!("read {line}"))?;
    let text = |key: &str| told[key].as_str().with_context(|| format!("find {key} in {line}"));
    let holds = told["holds"].as_bool().with_context(|| format!("find holds in {line}"))?;
    Ok(Row::limit(text("what")?, text("figure")?, text("limit")?, holds))
}

/// Runs the benchmarks and reads their medians.
fn rates() -> Result<Vec<Row>> {
    let mut command = workspace::cargo();
    command.args(["bench", "--quiet", "--package", "detector", "--bench", "controller"]);
    process::long(&mut command, "run criterion", "3 minutes, half a minute of it measuring")?;
    BENCHES.iter().map(|(id, what)| rate(id, what)).collect()
}

fn rate(id: &str, what: &str) -> Result<Row> {
    let directory = workspace::target().join("criterion").join(id).join("new");
    let number = |file: &str, at: &str| {
        let path = directory.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        value.pointer(at).and_then(Value::as_f64).with_context(|| format!("find {at} in {}", path.display()))
    };
    let ns = number("estimates.json", "/median/point_estimate")?;
    let rate = number("benchmark.json", "/throughput/Elements")? * 1e9 / ns;
    Ok(Row::limit(what, format!("{:.0} thousand datagrams/s", rate / 1e3), "200 thousand/s", rate >= RATE_LIMIT))
}
