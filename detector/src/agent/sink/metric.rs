//! Prometheus metrics, and the counts behind them that survive restarts.
//!
//! [`Metrics`] belongs to the flow; [`Instruments`] are handles for those who count beside it; [`Exposition`] encodes all
//! of it for a scrape. Names and meanings are in [`crate::contract::metric`].

mod exposition;
mod instrument;
mod process;
mod series;
mod snapshot;
mod tally;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::{
    exposition::{Exposition, Format},
    instrument::Instruments,
    snapshot::Snapshot,
};
use self::{
    series::{Kills, Series},
    tally::{Probe, Tally},
};
use super::report::{HangReport, KillReport, Subject};
use crate::{
    agent::{
        locate::ContainerChange,
        options::{Detector, Method},
    },
    config,
    contract::metric::{BoundedMetric, HitLimit, HungClass, KilledProcess, Loss},
};

/// All metrics of the agent. Times are nanoseconds since boot.
#[derive(Debug)]
pub struct Metrics {
    shared: Arc<Shared>,
    exposition: Exposition,
}

/// What the flow writes and a scrape reads.
#[derive(Debug)]
struct Shared {
    /// Held for as long as one count or one scrape takes.
    core: Mutex<Core>,
    instruments: Instruments,
}

/// Counts. Pure: times come in as numbers.
#[derive(Debug)]
struct Core {
    series: Series,
    tally: Tally,
}

impl Core {
    /// How many series a metric may have; of hung tasks, how many are told apart.
    fn limit(&self, metric: BoundedMetric) -> usize {
        match metric {
            BoundedMetric::Containers | BoundedMetric::By => self.series.limit(),
            BoundedMetric::HungTasks => tally::HUNG_TASKS,
        }
    }
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        // Counts are whole after each statement: a panic elsewhere does not make them wrong.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metrics {
    /// Metrics without any count.
    #[must_use]
    pub fn new(config: &config::Metrics) -> Self {
        let keep_ns = crate::clock::nanoseconds(config.keep);
        let core = Core { series: Series::new(config.series, keep_ns), tally: Tally::default() };
        let shared = Arc::new(Shared { core: Mutex::new(core), instruments: Instruments::default() });
        let exposition = Exposition::of(&shared);
        Self { shared, exposition }
    }

    /// Handles for those who count beside the flow.
    #[must_use]
    pub fn instruments(&self) -> Instruments {
        self.shared.instruments.clone()
    }

    /// What encodes these metrics for a scrape.
    #[must_use]
    pub fn exposition(&self) -> Exposition {
        self.exposition.clone()
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        self.exposition.encode(Format::OpenMetrics)
    }

    /// A container or pod was seen, or is gone. With its first sighting under all its names a container has a zero.
    pub fn container(&mut self, change: &ContainerChange, now_ns: u64) {
        self.shared.core().series.change(change, now_ns);
    }

    /// A process was killed, and that is told. Each victim of a group kill counts.
    pub fn kill(&mut self, report: &KillReport, now_ns: u64) {
        let mut core = self.shared.core();
        core.tally.kill(report);
        // A group within the container dies by that group's own limit, and the container may live on.
        let with_container = report.group_kill && report.limit != HitLimit::Nested.word();
        let kills = Kills {
            process: if with_container { KilledProcess::Group } else { snapshot::process_of(&report.process) },
            limit: snapshot::limit_of(&report.limit),
            count: 1,
            group: report.group_kill.then_some(report.incident),
        };
        core.series.kill(&report.subject, kills, now_ns);
    }

    /// The kernel counted `count` kills of processes of `subject` of which no record came.
    pub fn missed(&mut self, subject: &Subject, count: u64, now_ns: u64) {
        if count == 0 {
            return;
        }
        let mut core = self.shared.core();
        core.tally.missed(count);
        let kills = Kills { process: KilledProcess::Unknown, limit: HitLimit::Unknown, count, group: None };
        core.series.kill(subject, kills, now_ns);
    }

    /// A task hangs, or hangs no more.
    pub fn hang(&mut self, report: &HangReport, class: HungClass) {
        self.shared.core().tally.hang(report, class);
    }

    /// `count` more were lost.
    pub fn lost(&mut self, loss: Loss, count: u64) {
        self.shared.core().tally.lost(loss, count);
    }

    /// `detector` watches by `method` from now on; `None`: it is blind. Detectors that are off are never told.
    pub fn probe(&mut self, detector: Detector, method: Option<Method>) {
        self.shared.core().tally.probes.insert(detector, method.map_or(Probe::Blind, Probe::By));
    }

    /// A detector found no method at the start, and stays off.
    pub fn probe_off(&mut self, detector: Detector) {
        self.shared.core().tally.probes.insert(detector, Probe::Off);
    }

    /// The kernel's count of kills less ours, since the start.
    pub fn unaccounted(&mut self, kills: i64) {
        self.shared.core().tally.unaccounted = Some(kills);
    }

    /// Ends series whose time has come.
    pub fn expire(&mut self, now_ns: u64) {
        self.shared.core().series.expire(now_ns);
    }

    /// When [`Self::expire`] has something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.shared.core().series.next_due()
    }

    /// What is to survive a restart.
    #[must_use]
    pub fn snapshot(&self, now_ns: u64) -> Snapshot {
        let core = self.shared.core();
        let mut snapshot = Snapshot { containers: core.series.save(now_ns), ..Snapshot::default() };
        core.tally.save(&mut snapshot);
        snapshot
    }

    /// Goes on from where an earlier run was, of this boot or another. Containers that are not seen within the time that
    /// series are kept ended meanwhile.
    pub fn restore(&mut self, snapshot: Snapshot, now_ns: u64) {
        let mut core = self.shared.core();
        core.tally.restore(&snapshot);
        core.series.restore(snapshot.containers, now_ns);
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
