//! What cgroups cost that come and go: time of a core at a steady rate, and memory afterwards.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{churn::Churn, memory};
use crate::{
    bench::{
        bpf_cost::{self, Cost, Counting},
        table::Row,
        vitals,
        watcher::Watcher,
    },
    build::Artifacts,
};

/// Cgroups made and removed per second.
const RATE: u32 = 1_000;
/// How long.
const TIME: Duration = Duration::from_secs(10);
/// Most time of one core, sensor and kernel side together.
const SHARE_LIMIT: f64 = 0.02;
/// Cgroups after which memory may grow no more: more than dead ones are remembered.
const MANY: u64 = 40_000;
/// Rate at which these are made, if the kernel can.
const MANY_RATE: u32 = 20_000;
/// Resident memory may differ by so many bytes and still be called the same: some pages of the allocator's.
const NO_GROWTH: u64 = 512 * 1024;

pub(super) fn measure(artifacts: &Artifacts) -> Result<Vec<Row>> {
    let watcher = Watcher::start(&artifacts.detector)?;
    let mut rows = vec![churn_cost(&watcher)?];
    rows.push(memory(
        &format!("resident after {} cgroups made and removed", RATE * TIME.as_secs() as u32),
        watcher.resident()?,
    ));
    make(MANY)?;
    let full = watcher.resident()?;
    make(MANY)?;
    let again = watcher.resident()?;
    rows.push(memory(&format!("resident after {MANY} more"), full));
    let grown = again.total.saturating_sub(full.total);
    let figure = format!("{:.2} MB", grown as f64 / 1e6);
    rows.push(Row::limit(format!("growth by another {MANY}"), figure, "none (0.5 MB)", grown <= NO_GROWTH));
    watcher.stop()?;
    Ok(rows)
}

fn churn_cost(watcher: &Watcher) -> Result<Row> {
    let counting = Counting::start()?;
    let (bpf_before, cpu_before, wakes_before) =
        (kernel_side(watcher)?, vitals::cpu_time(watcher.pid())?, watcher.wake_ups()?);
    let start = Instant::now();
    let churn = Churn::start(RATE)?;
    thread::sleep(TIME);
    let made = churn.stop()?;
    let elapsed = start.elapsed();
    let (bpf, cpu) = (kernel_side(watcher)?, vitals::cpu_time(watcher.pid())?.saturating_sub(cpu_before));
    let wakes = watcher.wake_ups()?.saturating_sub(wakes_before);
    drop(counting);
    let (bpf_ns, runs) = (bpf.run_ns - bpf_before.run_ns, bpf.runs - bpf_before.runs);
    let seconds = elapsed.as_secs_f64();
    let share = (cpu.as_secs_f64() + bpf_ns as f64 / 1e9) / seconds;
    let what = format!("cgroups made and removed at {:.0}/s", made as f64 / seconds);
    let figure = format!(
        "{:.2} % of a core: sensor {:.2}, kernel side {:.2} ({:.2} µs a run); {:.0} wake-ups/s",
        share * 100.0,
        cpu.as_secs_f64() / seconds * 100.0,
        bpf_ns as f64 / 1e7 / seconds,
        bpf_ns as f64 / 1e3 / runs.max(1) as f64,
        wakes as f64 / seconds
    );
    Ok(Row::limit(what, figure, "2 %", share <= SHARE_LIMIT))
}

/// Run time of the programs that are about the life of cgroups.
fn kernel_side(watcher: &Watcher) -> Result<Cost> {
    let mut sum = Cost::default();
    for (_, cost) in bpf_cost::of(watcher.pid())?.iter().filter(|(hook, _)| hook.starts_with("cgroup_")) {
        sum.run_ns += cost.run_ns;
        sum.runs += cost.runs;
    }
    Ok(sum)
}

/// Makes and removes `count` cgroups as fast as may be.
fn make(count: u64) -> Result<()> {
    let churn = Churn::start(MANY_RATE)?;
    churn.wait_for(count);
    churn.stop().map(drop)
}
