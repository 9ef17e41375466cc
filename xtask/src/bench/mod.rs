//! `cargo xtask bench`: figures beside those of peers or beside a limit, measured in one run.
//!
//! ```text
//! watcher   a running `detector watch`        native   start, memory, wake-ups, storm, cost of the probes
//! bpf_cost  what the kernel says that BPF costs   guest    delay from kernel to line beside the peers', in a VM
//! peer      the peers and their libraries     rate     records per second, by criterion
//! agent     a running `detector agent` on a full node, beside a real API server
//! controller  datagrams per second; a running `detector controller` in a large cluster, beside a real API server
//! ```
//!
//! The figures are told, not judged: a busy machine must not make a run fail.

mod agent;
mod bpf_cost;
mod controller;
mod guest;
mod native;
mod peer;
mod rate;
mod table;
mod vitals;
mod watcher;

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};

use crate::{build, process};
use table::{Row, Table};

/// Largest static, stripped binary, in bytes.
const BINARY_LIMIT: u64 = 8_000_000;

/// Measure, with each figure beside a peer's or a limit.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// The sensor: time to attach, memory, delay from kernel to printed line, cost of the probes (root; some 5 minutes).
    Sensor(Sensor),
    /// The agent on a node of 110 pods beside a real API server: memory, wake-ups, delay, storm (root; some 3 minutes).
    Agent(agent::Options),
    /// The controller: datagrams per second; memory, delay and requests with 5,000 Nodes beside a real API server (some 8
    /// minutes).
    Controller(controller::Options),
}

/// What of the sensor.
#[derive(clap::Args)]
struct Sensor {
    /// Parts to measure; all if none is named.
    #[arg(value_name = "PART")]
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Start, memory, wake-ups, cost of the probes and storm on this machine.
    Native,
    /// Delay from the kernel to the printed line, beside bpftrace and libbpf-tools, in a virtual machine.
    Vm,
    /// Records per second through decode and locate.
    Rate,
}

impl Part {
    const ALL: [Self; 3] = [Self::Native, Self::Vm, Self::Rate];

    fn measure(self, artifacts: &build::Artifacts) -> Result<Vec<Row>> {
        match self {
            Self::Native => native::measure(artifacts),
            Self::Vm => guest::measure(artifacts),
            Self::Rate => rate::measure(),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    match &options.what {
        What::Sensor(sensor) => sensor.run(),
        What::Agent(agent) => agent.run(),
        What::Controller(controller) => controller.run(),
    }
}

impl Sensor {
    fn run(&self) -> Result<ExitCode> {
        let native = self.wants(Part::Native);
        let root = rustix::process::geteuid().is_root();
        ensure!(root || !native, "measure the sensor: attaching probes and making cgroups needs root");
        let artifacts = build::release()?;
        let mut table = Table::new();
        table.add(binary_size(&artifacts)?);
        let mut failed = false;
        for part in Part::ALL.into_iter().filter(|part| self.wants(*part)) {
            process::say(format_args!("measure {part:?}"));
            match part.measure(&artifacts) {
                Ok(rows) => rows.into_iter().for_each(|row| table.add(row)),
                Err(cause) => {
                    eprintln!("error: measure {part:?}: {cause:#}");
                    failed = true;
                }
            }
        }
        print!("{}", table.render());
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}

fn binary_size(artifacts: &build::Artifacts) -> Result<Row> {
    let path = &artifacts.detector;
    let bytes = std::fs::metadata(path).with_context(|| format!("read the size of {}", path.display()))?.len();
    let figure = format!("{:.2} MB", bytes as f64 / 1e6);
    Ok(Row::limit("static binary, stripped", figure, "8 MB", bytes <= BINARY_LIMIT))
}
