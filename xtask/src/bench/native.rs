//! The sensor on this machine: start, memory, wake-ups, cost of the probes, and a storm.

mod cgroups;
mod churn;

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    bpf_cost::{self, Counting},
    table::{Row, percentile},
    vitals::Resident,
    watcher::{Told, Watcher},
};
use crate::{build::Artifacts, process};
use churn::Churn;

/// Starts, of which the median counts.
const STARTS: usize = 10;
/// Longest start.
const START_LIMIT: Duration = Duration::from_millis(100);
/// Most resident memory, in bytes.
const MEMORY_LIMIT: u64 = 12_000_000;
/// How long wake-ups are counted.
const REST: Duration = Duration::from_secs(10);
/// The quietest of so many rests counts: whoever makes cgroups on this machine wakes the sensor, and rightly so.
const RESTS: usize = 3;
/// Kills after which memory and cost are read.
const MANY_KILLS: u32 = 10_000;
/// Most run time of BPF per kill, in nanoseconds.
const BPF_LIMIT_NS: f64 = 5_000.0;
/// Kills of the storm.
const STORM_KILLS: u32 = 1_000;
/// Cgroups made and removed per second during the storm.
const STORM_CGROUPS: u32 = 2_000;
/// The storm lasts at least so long.
const STORM: Duration = Duration::from_secs(5);

/// Measures everything.
pub(super) fn measure(artifacts: &Artifacts) -> Result<Vec<Row>> {
    let mut rows = vec![start(&artifacts.detector)?];
    rows.extend(long_life(artifacts)?);
    rows.extend(storm(artifacts)?);
    rows.extend(cgroups::measure(artifacts)?);
    Ok(rows)
}

fn start(detector: &Path) -> Result<Row> {
    let mut times = Vec::new();
    let mut method = String::new();
    for _ in 0..STARTS {
        let watcher = Watcher::start(detector)?;
        times.push(watcher.start.as_secs_f64() * 1e3);
        method = watcher.started["methods"]["oom"].as_str().unwrap_or("?").to_owned();
        watcher.stop()?;
    }
    let median = percentile(&mut times, 0.5);
    let what = format!("start to attached ({method}), median of {STARTS}");
    let figure = format!("{median:.0} ms ({:.0} to {:.0})", times[0], times[STARTS - 1]);
    let holds = median <= START_LIMIT.as_secs_f64() * 1e3;
    Ok(Row::limit(what, figure, &format!("100 ms; {}", peers()), holds))
}

/// Why the peers do not start here, if so.
fn peers() -> &'static str {
    if Path::new("/sys/bus/event_source/devices/kprobe/type").exists() {
        "peers: see the virtual machine's figures"
    } else {
        "peers cannot start here: they need kprobes, which this kernel lacks"
    }
}

/// One watcher: at rest, then with many kills.
fn long_life(artifacts: &Artifacts) -> Result<Vec<Row>> {
    let watcher = Watcher::start(&artifacts.detector)?;
    let wakes = wake_ups(&watcher)?;
    let rest = watcher.resident()?;
    let counting = Counting::start()?;
    let before = bpf_cost::of(watcher.pid())?;
    provoke(&artifacts.provoke, MANY_KILLS)?;
    let after = bpf_cost::of(watcher.pid())?;
    drop(counting);
    let busy = watcher.resident()?;
    let told = watcher.stop()?;

    let mut total_ns = 0.0;
    let mut parts = Vec::new();
    for (hook, cost) in after.iter().filter(|(hook, _)| !hook.starts_with("cgroup_")) {
        let earlier = before.get(hook).copied().unwrap_or_default();
        let (run_ns, runs) = ((cost.run_ns - earlier.run_ns) as f64, (cost.runs - earlier.runs) as f64);
        let kills = told.kills.max(1) as f64;
        total_ns += run_ns / kills;
        parts.push(format!("{hook} {:.2} µs in {:.1} runs", run_ns / kills / 1e3, runs / kills));
    }
    let wake_row = format!("{wakes} in {} s", REST.as_secs());
    let cost_row = format!("{:.2} µs ({})", total_ns / 1e3, parts.join(", "));
    Ok(vec![
        memory("resident at rest", rest),
        Row::limit("wake-ups at rest", wake_row, "0", wakes == 0),
        memory(&format!("resident after {MANY_KILLS} kills"), busy),
        Row::limit("BPF run time per kill", cost_row, "5 µs", total_ns <= BPF_LIMIT_NS),
        account(&format!("{MANY_KILLS} kills told"), &told),
    ])
}

fn memory(what: &str, memory: Resident) -> Row {
    Row::limit(what, memory.shown(), "12 MB", memory.total <= MEMORY_LIMIT)
}

fn wake_ups(watcher: &Watcher) -> Result<u64> {
    let mut least = u64::MAX;
    for _ in 0..RESTS {
        let before = watcher.wake_ups()?;
        thread::sleep(REST);
        least = least.min(watcher.wake_ups()?.saturating_sub(before));
        if least == 0 {
            break;
        }
    }
    Ok(least)
}

fn storm(artifacts: &Artifacts) -> Result<Vec<Row>> {
    let watcher = Watcher::start(&artifacts.detector)?;
    let churn = Churn::start(STORM_CGROUPS)?;
    let start = Instant::now();
    provoke(&artifacts.provoke, STORM_KILLS)?;
    let kills_took = start.elapsed();
    thread::sleep(STORM.saturating_sub(kills_took));
    let cgroups = churn.stop()?;
    let rate = f64::from(STORM_KILLS) / kills_took.as_secs_f64();
    let cgroup_rate = cgroups as f64 / start.elapsed().as_secs_f64();
    let what = format!("storm: {rate:.0} kills/s, {cgroup_rate:.0} cgroups/s made and removed");
    Ok(vec![account(&what, &watcher.stop()?)])
}

/// What a watcher told beside what the kernel counted.
fn account(what: &str, told: &Told) -> Row {
    let number = |key: &str| told.summary[key].as_i64();
    let (lost, unaccounted) = (number("lost"), number("unaccounted"));
    let shown = |value: Option<i64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    let figure = format!("{} told, {} lost, {} unaccounted", told.kills, shown(lost), shown(unaccounted));
    let beside = format!("0 lost; the kernel counted {}", shown(number("kernel_kills")));
    let holds = lost == Some(0) && unaccounted == Some(0) && number("kills") == i64::try_from(told.kills).ok();
    Row::limit(what, figure, &beside, holds)
}

fn provoke(provoke: &Path, kills: u32) -> Result<()> {
    process::say(format_args!("cause {kills} OOM kills in a cgroup of their own"));
    let mut command = Command::new(provoke);
    command.args(["oom", "--cgroup", "detector-bench", "--limit-mib", "8", "--parallel", "4", "--kills"]);
    process::capture(command.arg(kills.to_string()), "cause OOM kills").map(drop).context("provoke")
}
