//! 1,000 kills in one container, as fast as this machine can: what they cost, and whether all were counted.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::{Scene, exposition::Exposition, node::Node, rest, running::Agent};
use crate::{
    bench::{table::Row, vitals},
    process,
};

const KILLS: u32 = 1_000;
/// Most time of a CPU for them.
const CPU_LIMIT: Duration = Duration::from_secs(1);
/// Most writes to the API for them.
const WRITE_LIMIT: f64 = 20.0;
/// How long after the last kill writes and time are still counted: the budget allows a node one write in 10 s.
const AFTERMATH: Duration = Duration::from_secs(15);

pub(super) fn measure(agent: &mut Agent, scene: &Scene<'_>) -> Result<Vec<Row>> {
    let mut rows = storm(agent, scene, Pace::Meanwhile)?;
    rows.extend(storm(agent, scene, Pace::Afterwards)?);
    rows.push(rest::memory("resident afterwards", agent)?);
    rows.push(rest::charged(agent)?);
    Ok(rows)
}

/// When the agent gets to read of the kills.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// While they happen: as fast as this machine's kernel can kill, which may be far below 1,000 a second.
    Meanwhile,
    /// All at once: it is stopped meanwhile, and so finds them waiting in the ring.
    Afterwards,
}

fn storm(agent: &mut Agent, scene: &Scene<'_>, pace: Pace) -> Result<Vec<Row>> {
    let container = Node::further(&scene.place.run(), pace as usize)?;
    let before = agent.metrics()?;
    let cpu_before = vitals::user_and_system(agent.pid())?;
    process::say(format_args!("cause {KILLS} OOM kills in one container"));
    let stopped = (pace == Pace::Afterwards).then(|| Stopped::stop(agent.pid())).transpose()?;
    let mut command = Command::new(&scene.provoke);
    command.args(["oom", "--limit-mib", "8", "--parallel", "4", "--kills"]).arg(KILLS.to_string());
    let said = process::capture(command.arg("--cgroup").arg(&container.cgroup), "cause OOM kills")?;
    drop(stopped);
    let begun = Instant::now();
    let of_container = [format!("pod=\"{}\"", container.pod), format!("container=\"{}\"", container.name)];
    let of_container = of_container.each_ref().map(String::as_str);
    agent
        .wait_for("all kills are counted", |metrics| {
            metrics.sum("detector_container_oom_kills_total", &of_container) >= f64::from(KILLS)
        })
        .context("a kill is missing in detector_container_oom_kills_total")?;
    let counted_after = begun.elapsed().as_secs_f64();
    thread::sleep(AFTERMATH);
    let after = agent.metrics()?;
    let cpu = vitals::user_and_system(agent.pid())?.saturating_sub(cpu_before);
    let grown = |name| after.sum(name, &[]) - before.sum(name, &[]);
    let writes = grown("detector_api_writes_total");
    // The kernel's log is a witness of kills that are known anyway, and no agent that is stopped can keep up with it.
    let of_log = |metrics: &Exposition| metrics.sum("detector_events_lost_total", &["kind=\"kernel_log\""]);
    let log = of_log(&after) - of_log(&before);
    let lost = grown("detector_events_lost_total") - log;
    let counted = after.sum("detector_container_oom_kills_total", &of_container);
    let what = match pace {
        Pace::Meanwhile => format!("{KILLS} kills in one container within {:.1} s", elapsed(&said).unwrap_or(f64::NAN)),
        Pace::Afterwards => format!("{KILLS} kills in one container, read all at once"),
    };
    let figure = format!(
        "{counted} counted, the last {counted_after:.2} s later; {lost} lost ({log} overruns of the kernel's log)"
    );
    let all = lost < 0.5 && (counted - f64::from(KILLS)).abs() < 0.5;
    Ok(vec![
        Row::limit(what, figure, "0 lost", all),
        Row::limit("CPU for them", format!("{:.2} s", cpu.as_secs_f64()), "1 s", cpu <= CPU_LIMIT),
        Row::limit("API writes for them", format!("{writes:.0}"), "20", writes <= WRITE_LIMIT),
    ])
}

/// A stopped process; dropping it lets it go on.
struct Stopped(Pid);

impl Stopped {
    fn stop(pid: u32) -> Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("the agent's pid")?;
        kill_process(pid, Signal::STOP).context("stop the agent for a while")?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Fails only if it is gone, which the next look finds.
        kill_process(self.0, Signal::CONT).ok();
    }
}

/// Seconds that the kills took, from the line `provoke` prints.
fn elapsed(said: &str) -> Option<f64> {
    let milliseconds = said.split_whitespace().find_map(|word| word.strip_prefix("elapsed_ms="))?;
    Some(milliseconds.parse::<f64>().ok()? / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_kills_is_read_from_the_line() {
        assert_eq!(elapsed("provoked cgroup=/a killed=3 elapsed_ms=1500 first_pids=1"), Some(1.5));
        assert_eq!(elapsed(""), None);
    }
}
