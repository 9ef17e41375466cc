//! `provoke`: causes real OOM kills in a cgroup of its own and tells what the kernel counted.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use detector_provoke::{Cgroup, Hierarchy, Limits, Provoked, Version, scenario, vmstat_kills};

/// Causes real faults, each inside a cgroup of its own.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    fault: Fault,
}

#[derive(Subcommand)]
enum Fault {
    /// Overruns the limit of a memory cgroup, which is removed afterwards.
    Oom(Oom),
}

#[derive(clap::Args)]
struct Oom {
    /// Name of the cgroup, relative to the root of the memory hierarchy; of several, one after the other has its kills.
    #[arg(long = "cgroup", value_name = "CGROUP", required = true)]
    cgroups: Vec<PathBuf>,
    /// Its limit in MiB.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(4..=48))]
    limit_mib: u64,
    /// How many processes are killed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    kills: u32,
    /// How many of them eat at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: u32,
}

fn main() -> Result<()> {
    match Arguments::parse().fault {
        Fault::Oom(oom) => oom.run(),
    }
}

impl Oom {
    fn run(&self) -> Result<()> {
        let hierarchy = Hierarchy::find()?;
        self.cgroups.iter().try_for_each(|name| self.run_in(&hierarchy, name))
    }

    fn run_in(&self, hierarchy: &Hierarchy, name: &Path) -> Result<()> {
        let name = name.to_str().context("the cgroup's name is not UTF-8")?;
        let cgroup = Cgroup::make(hierarchy, name, Limits::mib(self.limit_mib))?;
        let (before, start) = (vmstat_kills()?, Instant::now());
        let provoked = self.provoke(&cgroup)?;
        let elapsed = start.elapsed();
        let counted = cgroup.kills()?;
        let vmstat = vmstat_kills()?.saturating_sub(before);
        let pids: Vec<_> = provoked.victims.iter().take(8).map(|victim| victim.pid.to_string()).collect();
        println!(
            "provoked cgroup={} id={} limit_bytes={} killed={} kernel_cgroup={counted} kernel_vmstat={vmstat} \
             elapsed_ms={} first_pids={}",
            cgroup.path(),
            cgroup.id()?,
            self.limit_mib << 20,
            provoked.victims.len(),
            elapsed.as_millis(),
            pids.join(","),
        );
        cgroup.remove()?;
        let wanted = u64::from(self.kills);
        // On v2 the cgroup's own count is exact; vmstat may contain kills of others.
        let exact = hierarchy.version == Version::V1 || counted == wanted;
        ensure!(
            provoked.victims.len() as u64 == wanted && exact,
            "provoked {wanted} kills, the kernel counted {counted}"
        );
        Ok(())
    }

    fn provoke(&self, cgroup: &Cgroup) -> Result<Provoked> {
        let provoked = if self.kills == 1 {
            scenario::single_child(cgroup)
        } else {
            scenario::burst(cgroup, self.kills as usize, self.parallel as usize)
        };
        Ok(provoked?)
    }
}
