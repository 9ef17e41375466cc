//! `latency`: process 1 of the benchmark's guest. Starts the sensor and its peers side by side, provokes kills one after
//! the other, and tells for each tool how long it took from the kernel to a line on the tool's terminal.
//!
//! All tools are measured alike: each writes to a pseudo-terminal of its own, because C programs keep lines back on a
//! pipe; a thread stamps each line as it appears; the time of the kill is ftrace's, on the same clock
//! (`CLOCK_BOOTTIME`), so that no tool is its own witness.
//!
//! What the host reads, on the serial console: `TOOL <name> start_ms=<ms> rss_kb=<kB>`, then for each kill and tool
//! `SAMPLE <name> decision_ns=<ns> mark_ns=<ns>`, and last `DONE kills=<n>`.

mod machine;
mod tool;
mod trace;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use detector_provoke::{Cgroup, Hierarchy, Limits, scenario};

use crate::{
    tool::{Tool, Wanted},
    trace::Trace,
};

/// Kills unless the host asks otherwise by `detector.kills=N`.
const KILLS: usize = 200;

/// First kills that are not counted: they warm up code, caches and buffers of all tools.
const WARM_UP: usize = 5;

/// Longest wait for the line of a kill.
const LINE_DEADLINE: Duration = Duration::from_secs(20);

/// What the host packed.
const TOOLS: [Wanted; 3] = [
    Wanted { name: "detector", program: "/detector", words: &["watch", "--output", "json"] },
    Wanted { name: "bpftrace", program: "/usr/bin/bpftrace", words: &["/usr/sbin/oomkill.bt"] },
    Wanted { name: "oomkill", program: "/usr/sbin/oomkill", words: &[] },
];

fn main() {
    if let Err(cause) = machine::prepare().and_then(|()| run()) {
        println!("FAILED {cause:#}");
    }
    machine::power_off();
}

fn run() -> Result<()> {
    let kills = machine::parameter("detector.kills=").unwrap_or(KILLS);
    let trace = Trace::start()?;
    let mut tools = Vec::new();
    // One after the other, so that none pays for another's start.
    for wanted in &TOOLS {
        let tool = Tool::start(wanted).with_context(|| format!("starting {}", wanted.name))?;
        println!("TOOL {} start_ms={:.0} rss_kb={}", tool.name, tool.start_ms, tool.resident_kb()?);
        tools.push(tool);
    }
    let victims = provoke(kills + WARM_UP, &mut tools)?;
    let times = trace.times()?;
    for victim in victims.iter().skip(WARM_UP) {
        let time = times.get(victim).with_context(|| format!("ftrace has no kill of process {victim}"))?;
        for tool in &tools {
            let seen = tool.seen(*victim).with_context(|| format!("{} lost the kill of {victim}", tool.name))?;
            let (decision, mark) = (seen as i64 - time.decision_ns as i64, seen as i64 - time.mark_ns as i64);
            println!("SAMPLE {} decision_ns={decision} mark_ns={mark}", tool.name);
        }
    }
    println!("DONE kills={kills}");
    Ok(())
}

/// Causes kills, each only after all tools have told of the one before. Returns the victims.
fn provoke(kills: usize, tools: &mut [Tool]) -> Result<Vec<u32>> {
    let leaf = Cgroup::make(&Hierarchy::find()?, "latency", Limits::mib(8))?;
    let mut victims = Vec::with_capacity(kills);
    for _ in 0..kills {
        let provoked = scenario::single_child(&leaf)?;
        ensure!(provoked.victims.len() == 1, "one kill was to be, {} were", provoked.victims.len());
        let victim = provoked.victims[0].pid;
        for tool in &mut *tools {
            tool.await_kill(victim, LINE_DEADLINE)?;
        }
        victims.push(victim);
    }
    Ok(victims)
}
