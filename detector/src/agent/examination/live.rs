//! What watching costs on this machine: everything is attached as `watch` attaches it, and the kernel counts.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    agent::{
        AgentError,
        options::WatchOptions,
        problem::Transition,
        sink::{MethodChange, Notice, Sink, Started, Summary},
        source::{
            bpf::{
                cost::{Cost, CostError, Counting},
                health::{HealthError, Traffic},
                probe::Probe,
            },
            surroundings::usage::Memory,
        },
        watch::{Beside, Flow, StopSignals},
    },
    cause::error_chain,
    clock::{self, WallClock},
    contract::doctor::{Live, Program, Records, Usage},
};

/// Why nothing could be measured.
#[derive(Debug, Error)]
pub(super) enum LiveError {
    /// The flow did not start or did not go on.
    #[error(transparent)]
    Watch(#[from] AgentError),
    /// The kernel does not tell what programs cost.
    #[error(transparent)]
    Cost(#[from] CostError),
    /// The kernel side does not tell what it wrote.
    #[error(transparent)]
    Health(#[from] HealthError),
}

/// Counters at one moment.
struct Sample {
    at: Instant,
    processor: Duration,
    costs: Vec<Cost>,
    traffic: Vec<Traffic>,
}

impl Sample {
    /// Without a kernel side nothing is counted.
    fn take(probe: Option<&Probe>) -> Result<Self, LiveError> {
        let (costs, traffic) = match probe {
            Some(probe) => (probe.costs()?, probe.health.traffic()?),
            None => (Vec::new(), Vec::new()),
        };
        Ok(Self { at: clock::monotonic_now(), processor: clock::process_time(), costs, traffic })
    }
}

/// Watches for `duration`, or until somebody asks for an end. Must be called within a tokio runtime.
pub(super) async fn measure(root: &Path, duration: Duration) -> Result<Live, LiveError> {
    let mut signals = StopSignals::take().map_err(AgentError::Runtime)?;
    let mut silent = Silent;
    let mut flow = Flow::start(&WatchOptions::default(), clock::monotonic_now(), &mut silent, root)?;
    let counting = Counting::start();
    let before = Sample::take(flow.probe())?;
    flow.run(&mut signals, Some(before.at + duration), &mut Beside::default()).await?;
    let after = Sample::take(flow.probe())?;
    let mut live = difference(&before, &after);
    live.usage = usage(&before, &after, Memory::read(root));
    // Somebody else may have switched the counting on, too.
    live.counted = counting.is_ok() || live.programs.iter().any(|program| program.runs > 0);
    live.counting_problem = counting.err().map(|error| error_chain(&error));
    Ok(live)
}

fn difference(before: &Sample, after: &Sample) -> Live {
    let seconds = (after.at - before.at).as_secs_f64();
    Live {
        seconds,
        programs: after.costs.iter().map(|cost| program(cost, &before.costs, seconds)).collect(),
        records: after.traffic.iter().map(|traffic| records(traffic, &before.traffic, seconds)).collect(),
        ..Live::default()
    }
}

fn program(cost: &Cost, before: &[Cost], seconds: f64) -> Program {
    let earlier = before.iter().find(|earlier| earlier.program == cost.program);
    // A program that was attached anew counts from zero.
    let since = |now: u64, get: fn(&Cost) -> u64| now.saturating_sub(earlier.map_or(0, get));
    let runs = since(cost.runs, |earlier| earlier.runs);
    let run_ns = since(cost.run_ns, |earlier| earlier.run_ns);
    Program {
        name: cost.program.clone(),
        hook: cost.hook.clone(),
        runs,
        run_ns,
        ns_per_run: (runs > 0).then(|| run_ns as f64 / runs as f64),
        core_share: share(Duration::from_nanos(run_ns), seconds),
    }
}

fn records(traffic: &Traffic, before: &[Traffic], seconds: f64) -> Records {
    let earlier = before.iter().find(|earlier| earlier.kind == traffic.kind);
    let written = traffic.written - earlier.map_or(0, |earlier| earlier.written);
    let dropped = traffic.dropped - earlier.map_or(0, |earlier| earlier.dropped);
    let per_second = if seconds > 0.0 { (written + dropped) as f64 / seconds } else { 0.0 };
    Records { kind: traffic.kind, written, dropped, per_second }
}

fn usage(before: &Sample, after: &Sample, memory: Memory) -> Usage {
    let processor = after.processor.saturating_sub(before.processor);
    Usage {
        resident_bytes: memory.resident,
        anon_bytes: memory.anon,
        peak_bytes: memory.peak,
        cpu_seconds: processor.as_secs_f64(),
        core_share: share(processor, (after.at - before.at).as_secs_f64()),
    }
}

fn share(busy: Duration, seconds: f64) -> f64 {
    if seconds > 0.0 { busy.as_secs_f64() / seconds } else { 0.0 }
}

/// Takes everything and tells nothing.
struct Silent;

impl Sink for Silent {
    fn started(&mut self, _: &Started) -> io::Result<()> {
        Ok(())
    }

    fn transition(&mut self, _: &Transition) -> io::Result<()> {
        Ok(())
    }

    fn method_changed(&mut self, _: &MethodChange) -> io::Result<()> {
        Ok(())
    }

    fn notice(&mut self, _: &Notice) -> io::Result<()> {
        Ok(())
    }

    fn summary(&mut self, _: &Summary) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_wall_clock(&mut self, _: WallClock) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, runs: u64, written: u64) -> Sample {
        let program = "mark_victim_task".to_owned();
        Sample {
            at,
            processor: Duration::from_millis(10 * runs),
            costs: vec![Cost { program, hook: Some("mark_victim".to_owned()), runs, run_ns: runs * 500_000 }],
            traffic: vec![Traffic { kind: "oom_mark", written, dropped: written / 4 }],
        }
    }

    #[test]
    fn costs_are_those_of_the_time_between() {
        let start = clock::monotonic_now();
        let (before, after) = (sample(start, 2, 4), sample(start + Duration::from_secs(4), 10, 12));
        let live = difference(&before, &after);
        let [program] = &live.programs[..] else { panic!("one program") };
        assert_eq!((program.runs, program.run_ns, program.ns_per_run), (8, 4_000_000, Some(500_000.0)));
        assert!((program.core_share - 0.001).abs() < 1e-9, "{program:?}");
        let [records] = &live.records[..] else { panic!("one kind") };
        assert_eq!((records.written, records.dropped, records.per_second), (8, 2, 2.5));
        let usage = usage(&before, &after, Memory::default());
        assert!((usage.core_share - 0.02).abs() < 1e-9, "{usage:?}");
    }

    #[test]
    fn a_program_that_never_ran_has_no_time_per_run() {
        let start = clock::monotonic_now();
        let live = difference(&sample(start, 2, 0), &sample(start, 2, 0));
        assert_eq!((live.programs[0].ns_per_run, live.programs[0].core_share), (None, 0.0));
    }

    #[test]
    fn a_program_attached_anew_counts_from_zero() {
        let start = clock::monotonic_now();
        let live = difference(&sample(start, 9, 0), &sample(start + Duration::from_secs(1), 3, 0));
        assert_eq!(live.programs[0].runs, 0);
    }
}
