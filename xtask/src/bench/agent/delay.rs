//! From a kill in the kernel to a watch of the API that tells it.
//!
//! Single kills, each in another container, so that each makes a new event; the budget is raised for them, since a budget is a
//! delay by intention. The delay of one is from the `eventTime` of the event, which is the kernel's time of the kill, to
//! the arrival of the event in a watch by kubectl: it contains the write, etcd, and the way back to us.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Scene, node::Container, rest, running::Agent};
use crate::{
    bench::table::{Row, percentile},
    process,
};

/// Kills, one in each of so many containers.
const KILLS: usize = 200;
/// Longest delay of 99 in 100, in milliseconds.
const LIMIT: f64 = 100.0;
/// How long an event may take until it counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// Events that have arrived and wait to be looked at.
const ARRIVED: usize = 1024;

/// No write waits for room: the node may write all of them at once.
const SETTINGS: &str =
    "events:\n  nodeBudget:\n    burst: 1000\n    every: 1s\n  podBudget:\n    burst: 10\n    every: 1s\n";

/// All events, and after those that are there a bookmark that says so (KEP-3157).
const WATCH: &str = "/apis/events.k8s.io/v1/events?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
    &allowWatchBookmarks=true";

/// Annotation of that bookmark.
const BEGUN: &str = "k8s.io/initial-events-end";

/// Becomes a process of the container of `$0` and takes memory until it is killed.
const EATER: &str = r#"echo $$ > "$0" && exec tail /dev/zero"#;

const DAY_MICROSECONDS: u64 = 24 * 3600 * 1_000_000;

pub(super) fn measure(scene: &Scene<'_>) -> Result<Vec<Row>> {
    let mut agent = Agent::start(&scene.place, "generous", SETTINGS).context("start an agent")?;
    rest::wait_for_names(&mut agent)?;
    let watch = Watch::start(scene)?;
    process::say(format_args!("cause {KILLS} OOM kills, one after the other, each in another container"));
    let mut delays = Vec::with_capacity(KILLS);
    for container in scene.node.first(KILLS)? {
        kill_one(scene, container)?;
        delays.push(watch.delay_of(&container.pod)?);
    }
    let metrics = agent.metrics()?;
    let written = |bound: &str| metrics.sum("detector_event_delay_seconds_bucket", &[bound]);
    let (within, all) = (written("le=\"0.1\""), written("le=\"+Inf\""));
    let first = delays[0];
    let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|share| percentile(&mut delays, share));
    let figure = format!("p50 {p50:.1} ms, p99 {p99:.1}, longest {longest:.1}; first {first:.1}");
    let own = format!("{within:.0} of {all:.0} within 100 ms");
    Ok(vec![
        Row::limit(format!("kernel to watch of the API, {KILLS} single kills"), figure, "p99 100 ms", p99 <= LIMIT),
        Row::limit("the same to the API's answer, by the agent's histogram", own, "99 %", within >= 0.99 * all),
    ])
}

fn kill_one(scene: &Scene<'_>, container: &Container) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", EATER]).arg(scene.node.processes_of(container)).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.stderr(Stdio::null()).status().context("start a process that eats memory")?;
    ensure!(!status.success(), "a process that ate memory was not killed: {status}");
    Ok(())
}

/// A watch of all events.
struct Watch {
    process: Child,
    arrived: Receiver<(String, f64)>,
}

impl Watch {
    fn start(scene: &Scene<'_>) -> Result<Self> {
        let mut command = Command::new(&scene.kubectl);
        command.args(["get", "--raw", WATCH]);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("watch events")?;
        let mut output = BufReader::new(process.stdout.take().context("the watch has no output")?);
        let mut line = String::new();
        while !line.contains(BEGUN) {
            line.clear();
            ensure!(
                output.read_line(&mut line).context("watch events")? > 0,
                "the watch of events ended at its beginning"
            );
        }
        let lines = output.lines();
        let (sender, arrived) = mpsc::sync_channel(ARRIVED);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                if let Some(told) = told(&line, now)
                    && sender.send(told).is_err()
                {
                    break;
                }
            }
        });
        Ok(Self { process, arrived })
    }

    /// Milliseconds from the kill in `pod`, which was just caused, to the arrival of its event.
    fn delay_of(&self, pod: &str) -> Result<f64> {
        let mut others = HashMap::new();
        loop {
            let next = self.arrived.recv_timeout(PATIENCE);
            let (told, delay) = next.with_context(|| format!("wait for an event about {pod}; came: {others:?}"))?;
            if told == pod {
                return Ok(delay);
            }
            others.insert(told, delay);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Of a line of the watch: the pod that a new event is about, and the milliseconds since it happened.
fn told(line: &str, now: Duration) -> Option<(String, f64)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let event = (line["type"] == "ADDED").then_some(&line["object"])?;
    let pod = event["regarding"]["name"].as_str()?;
    let happened = time_of_day(event["eventTime"].as_str()?)?;
    let now = u64::try_from(now.as_micros()).ok()? % DAY_MICROSECONDS;
    let delay = (now + DAY_MICROSECONDS - happened) % DAY_MICROSECONDS;
    Some((pod.to_owned(), delay as f64 / 1e3))
}

/// Microseconds since midnight of a time such as `2026-01-02T03:04:05.678901Z`.
fn time_of_day(time: &str) -> Option<u64> {
    let (seconds, fraction) = time.strip_suffix('Z')?.split_once('T')?.1.split_once('.')?;
    let whole = seconds.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<u64>().ok()?))?;
    let micros = (fraction.len() == 6).then(|| fraction.parse::<u64>().ok())??;
    Some(whole * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_of_a_new_event_is_since_its_event_time() {
        let line = r#"{"type":"ADDED","object":{"regarding":{"name":"a"},"eventTime":"2026-01-02T23:59:59.999000Z"}}"#;
        let midnight = Duration::from_secs(20_000 * 24 * 3600) + Duration::from_millis(1);
        assert_eq!(told(line, midnight), Some(("a".to_owned(), 2.0)));
        assert_eq!(told(&line.replace("ADDED", "MODIFIED"), midnight), None);
    }

    #[test]
    fn a_time_without_microseconds_is_none() {
        assert_eq!(time_of_day("2026-01-02T00:01:02.000003Z"), Some(62_000_003));
        assert_eq!(time_of_day("2026-01-02T00:01:02Z"), None);
    }
}
