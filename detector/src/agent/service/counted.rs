//! What sinks and outputs count for themselves, on its way to metrics: what is new since it was told last.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    agent::sink::{condition, event, hold::HoldCounts, metric::Metrics},
    contract::metric::{CONDITION, DroppedLine, EVENT, HUNG_TASK, HoldEnd, Loss, Queue},
    ops::log,
};

/// Counts of lines that the outputs of this process did not write.
#[derive(Clone, Debug, Default)]
pub(super) struct Outputs {
    /// Of its own log.
    pub(super) log: Arc<log::Counts>,
    /// Of standard output.
    pub(super) lines: Arc<AtomicU64>,
}

/// What all of them counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) events: event::Counts,
    pub(super) conditions: condition::Counts,
    pub(super) held: HoldCounts,
}

/// Tells metrics what is new.
#[derive(Debug, Default)]
pub(super) struct Counted {
    outputs: Outputs,
    losses: [u64; 3],
    ends: [u64; HoldEnd::ALL.len()],
    lines: [u64; DroppedLine::ALL.len()],
}

impl Counted {
    pub(super) fn new(outputs: Outputs) -> Self {
        Self { outputs, ..Self::default() }
    }

    /// Tells `metrics` what is new, and how much waits. Returns whether anything more was lost.
    pub(super) fn tell(&mut self, totals: Totals, metrics: &mut Metrics) -> bool {
        let Totals { events, conditions, held } = totals;
        let instruments = metrics.instruments();
        instruments.queue_depth(Queue::Event, usize::try_from(events.waiting).unwrap_or(usize::MAX));
        instruments.queue_depth(Queue::Condition, conditions.waiting);
        let ends = [(HoldEnd::Named, held.named), (HoldEnd::Time, held.nameless), (HoldEnd::Room, held.crowded_out)];
        for (end, more) in rises(&mut self.ends, ends) {
            instruments.held_ended(end, more);
        }
        let Outputs { log, lines } = &self.outputs;
        let lines = [
            (DroppedLine::Log, log.dropped()),
            (DroppedLine::LogRepeated, log.left_out()),
            (DroppedLine::Output, lines.load(Ordering::Relaxed)),
        ];
        for (what, more) in rises(&mut self.lines, lines) {
            instruments.lines_dropped(what, more);
        }
        let losses: [(Loss, u64); 3] =
            [(EVENT, events.dropped), (CONDITION, conditions.refused), (HUNG_TASK, conditions.crowded_out)];
        let mut lost = false;
        for (loss, more) in rises(&mut self.losses, losses) {
            metrics.lost(loss, more);
            lost = true;
        }
        lost
    }
}

/// What rose since `told`, which takes over the counts as they are now.
fn rises<T, const N: usize>(told: &mut [u64; N], now: [(T, u64); N]) -> impl Iterator<Item = (T, u64)> {
    let new = now.into_iter().zip(told).map(|((what, now), told)| (what, now - std::mem::replace(told, now)));
    new.filter(|(_, more)| *more > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_rose_is_told() {
        let mut told = [0, 0];
        assert_eq!(rises(&mut told, [("a", 0), ("b", 3)]).collect::<Vec<_>>(), [("b", 3)]);
        assert_eq!(rises(&mut told, [("a", 1), ("b", 3)]).collect::<Vec<_>>(), [("a", 1)]);
    }
}
