//! What an agent costs while nothing happens: memory, wake-ups, writes to the API; and what a scrape takes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    node::{CONTAINERS, PODS},
    running::Agent,
};
use crate::bench::{
    table::{Row, percentile},
    vitals::{self, Resident},
};

/// Most resident memory, in bytes.
const MEMORY_LIMIT: u64 = 15_000_000;
/// How long wake-ups are counted.
const REST: Duration = Duration::from_secs(10);
/// The quietest of so many rests counts: whoever makes cgroups on this machine wakes the agent, and rightly so.
const RESTS: usize = 3;
/// Time that the agent gets to come to rest: it writes its state and closes connections that nobody uses.
const SETTLE: Duration = Duration::from_secs(5);
/// Scrapes, of which the median counts.
const SCRAPES: usize = 50;
/// Longest scrape, in milliseconds.
const SCRAPE_LIMIT: f64 = 5.0;

/// Waits until the agent knows all containers by name.
pub(super) fn wait_for_names(agent: &mut Agent) -> Result<()> {
    let known = |metrics: &super::exposition::Exposition| metrics.count("detector_container_oom_kills_total");
    agent.wait_for("all containers have a series", |metrics| known(metrics) >= CONTAINERS).map(drop)
}

pub(super) fn measure(agent: &Agent) -> Result<Vec<Row>> {
    thread::sleep(SETTLE);
    let mut rows = vec![memory(&format!("resident, {PODS} pods, {CONTAINERS} containers"), agent)?, charged(agent)?];
    rows.extend(rests(agent)?);
    rows.push(scrapes(agent)?);
    rows.push(memory(&format!("resident after {SCRAPES} scrapes"), agent)?);
    Ok(rows)
}

/// Its resident memory.
pub(super) fn memory(what: &str, agent: &Agent) -> Result<Row> {
    let memory = Resident::of(agent.pid())?;
    Ok(Row::limit(what, memory.shown(), "15 MB", memory.total <= MEMORY_LIMIT))
}

/// All that the kernel charges to it: what limits of a DaemonSet are about.
pub(super) fn charged(agent: &Agent) -> Result<Row> {
    let (now, most) = agent.charged()?;
    let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let most = most.map_or_else(|| "unknown".to_owned(), mb);
    let figure = format!("{}; peak {most}", mb(now));
    Ok(Row::peers("memory charged to its cgroup", figure, "told for requests and limits".to_owned(), None))
}

fn rests(agent: &Agent) -> Result<Vec<Row>> {
    let (start, before) = (Instant::now(), agent.metrics()?);
    let (mut least, mut cpu) = (u64::MAX, Duration::MAX);
    for _ in 0..RESTS {
        // What the scrape before this woke is over.
        thread::sleep(Duration::from_secs(1));
        let (wakes, used) = (vitals::wake_ups(agent.pid())?, vitals::cpu_time(agent.pid())?);
        thread::sleep(REST);
        least = least.min(vitals::wake_ups(agent.pid())?.saturating_sub(wakes));
        cpu = cpu.min(vitals::cpu_time(agent.pid())?.saturating_sub(used));
        if least == 0 {
            break;
        }
    }
    let (after, seconds) = (agent.metrics()?, start.elapsed().as_secs_f64());
    let grown = |name| after.sum(name, &[]) - before.sum(name, &[]);
    let (written, records) = (grown("detector_api_writes_total"), grown("detector_records_total"));
    let wake_row = format!("{least} in {} s ({:.2} ms of CPU)", REST.as_secs(), cpu.as_secs_f64() * 1e3);
    let write_row = format!(
        "{written:.0} in {seconds:.0} s, with {records:.0} records of others read; one heartbeat each 30 min (the default)"
    );
    Ok(vec![
        Row::limit("wake-ups at rest, all threads", wake_row, "0", least == 0),
        Row::limit("API writes at rest", write_row, "1 per 30 min", written < 0.5),
    ])
}

fn scrapes(agent: &Agent) -> Result<Row> {
    let (mut times, mut size) = (Vec::with_capacity(SCRAPES), 0);
    for _ in 0..SCRAPES {
        let (time, bytes) = agent.scrape()?;
        times.push(time.as_secs_f64() * 1e3);
        size = bytes;
    }
    let median = percentile(&mut times, 0.5);
    let p99 = percentile(&mut times, 0.99);
    let what = format!("scrape of {CONTAINERS} containers, median of {SCRAPES}");
    let figure = format!("{median:.2} ms (longest {p99:.2}), {} KB", size / 1_000);
    Ok(Row::limit(what, figure, "5 ms", median <= SCRAPE_LIMIT))
}
