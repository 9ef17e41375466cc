//! Handles for those who count beside the flow: writers to the API, queues, the configuration, the state.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

use crate::{
    agent::sink::Count,
    cluster::Outcome,
    contract::metric::{
        BudgetKind, CrashEnd, DroppedLine, EVENT_DELAY_BUCKETS, HoldEnd, NameRead, Queue, RECORDS, Reload,
        StateFailure, Unlocated, WriteKind, WriteResult,
    },
};

/// Counters, one for each word of a closed set.
pub(super) type Counters<const N: usize> = [Counter<u64, AtomicU64>; N];

/// Cheap to clone: all clones count into the same.
#[derive(Clone, Debug)]
pub struct Instruments {
    pub(super) cells: Arc<Cells>,
}

/// What is counted.
#[derive(Debug)]
pub(super) struct Cells {
    pub(super) writes: [Counters<{ WriteResult::ALL.len() }>; WriteKind::ALL.len()],
    pub(super) written_delay: Histogram,
    pub(super) queues: [Gauge; Queue::ALL.len()],
    pub(super) held: Gauge,
    pub(super) budgets: Counters<{ BudgetKind::ALL.len() }>,
    pub(super) reloads: Counters<{ Reload::ALL.len() }>,
    pub(super) config_refused: Gauge,
    pub(super) state_failures: Counters<{ StateFailure::ALL.len() }>,
    pub(super) records: Counters<{ RECORDS.len() }>,
    pub(super) unspooled: Counter<u64, AtomicU64>,
    pub(super) name_reads: Counters<{ NameRead::ALL.len() }>,
    pub(super) unlocated: Counters<{ Unlocated::ALL.len() }>,
    pub(super) hold_ends: Counters<{ HoldEnd::ALL.len() }>,
    pub(super) lines_dropped: Counters<{ DroppedLine::ALL.len() }>,
    pub(super) crashes: Counters<{ CrashEnd::ALL.len() }>,
}

impl Default for Instruments {
    fn default() -> Self {
        Self {
            cells: Arc::new(Cells {
                writes: Default::default(),
                written_delay: Histogram::new(EVENT_DELAY_BUCKETS.iter().copied()),
                queues: Default::default(),
                held: Gauge::default(),
                budgets: Default::default(),
                reloads: Default::default(),
                config_refused: Gauge::default(),
                state_failures: Default::default(),
                records: Default::default(),
                unspooled: Counter::default(),
                name_reads: Default::default(),
                unlocated: Default::default(),
                hold_ends: Default::default(),
                lines_dropped: Default::default(),
                crashes: Default::default(),
            }),
        }
    }
}

impl Instruments {
    /// A write to the API ended.
    pub fn write_ended(&self, kind: WriteKind, outcome: &Outcome) {
        self.cells.writes[kind as usize][WriteResult::from(outcome) as usize].inc();
    }

    /// A write that tells of a happening stands, so long after the kernel did it.
    pub fn written_after(&self, delay: Duration) {
        self.cells.written_delay.observe(delay.as_secs_f64());
    }

    /// So many writes wait in `queue`.
    pub fn queue_depth(&self, queue: Queue, depth: usize) {
        set(&self.cells.queues[queue as usize], depth);
    }

    /// So many kills wait for names.
    pub fn held_kills(&self, held: usize) {
        set(&self.cells.held, held);
    }

    /// `count` more writes have to wait, because a budget is spent.
    pub fn budget_refused(&self, budget: BudgetKind, count: u64) {
        self.cells.budgets[budget as usize].inc_by(count);
    }

    /// The configuration was read again.
    pub fn config_reloaded(&self, result: Reload) {
        self.cells.reloads[result as usize].inc();
        self.cells.config_refused.set(i64::from(result == Reload::Refused));
    }

    /// The state could not be saved.
    pub fn state_write_failed(&self, reason: StateFailure) {
        self.cells.state_failures[reason as usize].inc();
    }

    /// The flow counted so many `more`. Records of a kind that is not one of [`RECORDS`] are not counted.
    pub fn counted(&self, count: Count, more: u64) {
        let cells = &self.cells;
        let counter = match count {
            Count::Record(kind) => RECORDS.iter().position(|listed| *listed == kind).map(|at| &cells.records[at]),
            Count::Unspooled => Some(&cells.unspooled),
            Count::NameRead(result) => Some(&cells.name_reads[result as usize]),
            Count::Unlocated(what) => Some(&cells.unlocated[what as usize]),
        };
        if let Some(counter) = counter {
            counter.inc_by(more);
        }
    }

    /// So many `more` waits for names ended so.
    pub fn held_ended(&self, end: HoldEnd, more: u64) {
        self.cells.hold_ends[end as usize].inc_by(more);
    }

    /// So many `more` boots ended so.
    pub fn crashed(&self, end: CrashEnd, more: u64) {
        self.cells.crashes[end as usize].inc_by(more);
    }

    /// So many `more` lines were not written.
    pub fn lines_dropped(&self, what: DroppedLine, more: u64) {
        self.cells.lines_dropped[what as usize].inc_by(more);
    }
}

impl From<&Outcome> for WriteResult {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::AlreadyThere => Self::AlreadyThere,
            Outcome::Gone(_) => Self::Gone,
            Outcome::Final(_) => Self::Final,
            Outcome::Retry { .. } => Self::Retry,
        }
    }
}

fn set(gauge: &Gauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}
