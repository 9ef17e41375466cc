//! What the pipeline counts: records read and lost, and our kills held against the kernel's, after each sign of life and in
//! the summary at the end.

pub(super) mod counted;
pub(super) mod located;
pub(super) mod losses;
pub(super) mod reads;
pub(super) mod reckoning;

use std::collections::BTreeMap;

use detector_common::counter::Ring;

use self::reckoning::QUIET_ATTEMPTS;
use super::Pipeline;
use crate::agent::{
    sink::{Count, Stage, Summary},
    source::{Records, spool::Replay},
    watch::AgentError,
};

/// How the counts stand at the end.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Kills that the kernel counted since the start, if it tells.
    kernel: Option<u64>,
    /// Those among them that nobody saw, if that is known.
    unaccounted: Option<i64>,
}

impl Pipeline<'_> {
    /// Reads what is left, holds the count against the kernel's, and tells the summary.
    ///
    /// # Errors
    /// As [`Pipeline::drain`].
    pub fn finish(mut self, records: &mut impl Records) -> Result<Summary, AgentError> {
        let end = self.end(records)?;
        self.conclude(end)
    }

    /// Reads what is left, tells it, and holds the count against the kernel's. What is saved after this is complete.
    ///
    /// # Errors
    /// As [`Pipeline::drain`].
    pub fn end(&mut self, records: &mut impl Records) -> Result<End, AgentError> {
        let kernel = self.settle(records)?;
        self.end_of_log()?;
        // Records that nobody asked for any more: the kernel's count includes them, ours does not.
        let unread = self.remaining == Some(0) && records.next(Ring::Precious, &mut self.record);
        self.look_for_losses(records)?;
        self.note_errors();
        for notice in self.notices.take_all() {
            self.sink.notice(&notice).map_err(AgentError::Output)?;
        }
        let unaccounted = kernel.filter(|_| !unread).map(|kernel| self.reckoning.unaccounted(kernel));
        Ok(End { kernel, unaccounted })
    }

    /// Tells the summary.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn conclude(mut self, end: End) -> Result<Summary, AgentError> {
        let End { kernel, unaccounted } = end;
        let differences = match unaccounted {
            None | Some(0) => BTreeMap::new(),
            Some(_) => self.differences(),
        };
        let summary = self.summary(kernel, unaccounted, differences);
        self.sink.summary(&summary).and_then(|()| self.sink.flush()).map_err(AgentError::Output)?;
        Ok(summary)
    }

    /// Tells what was counted since the last batch.
    pub(super) fn tell_counts(&mut self) {
        for (kind, count) in self.reads.take() {
            self.sink.counted_up(Count::Record(kind), count);
        }
        let rises = self.located.take(self.locator.counters());
        for (count, more) in rises.counts {
            self.sink.counted_up(count, more);
        }
        if rises.untold > 0 {
            self.note_many(Stage::Locate, "containers_untold", rises.untold, || {
                "too much became of containers at once: metrics of some begin or end late".to_owned()
            });
        }
    }

    /// Tells what the spool of an earlier run held and is lost.
    pub fn note_spool(&mut self, found: &Replay) {
        let Replay { other_boot, other_abi, damaged_bytes, .. } = *found;
        if other_abi > 0 {
            self.note_many(Stage::Decode, "abi", other_abi, || {
                "records in the spool are of another version".to_owned()
            });
        }
        if other_boot > 0 {
            self.note_many(Stage::Source, "spool_other_boot", other_boot, || {
                "records in the spool were taken before the machine booted, and nothing was saved of them".to_owned()
            });
        }
        if damaged_bytes > 0 {
            self.note(Stage::Source, "spool_damaged", || {
                format!("the last {damaged_bytes} bytes of the spool are no whole record")
            });
        }
    }

    /// So many records could not be written to the spool.
    pub fn unspooled(&mut self, records: u64) {
        if records > 0 {
            self.sink.counted_up(Count::Unspooled, records);
        }
    }

    /// Holds the count of kills against the kernel's, as it stands after a batch.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn reconcile(&mut self) -> Result<(), AgentError> {
        let Some(kernel) = self.reckoning.kernel_kills(&self.root) else { return Ok(()) };
        self.sink.reconciled(self.reckoning.unaccounted(kernel)).map_err(AgentError::Output)
    }

    /// Reads until no kill falls between the last record and the kernel's count, and returns that count. The kernel counts
    /// a moment before the record is written: a difference is looked at again.
    fn settle(&mut self, records: &mut impl Records) -> Result<Option<u64>, AgentError> {
        self.drain(records)?;
        let mut kernel = None;
        for _ in 0..QUIET_ATTEMPTS {
            let before = self.rules.counts();
            kernel = self.reckoning.kernel_kills(&self.root);
            self.drain(records)?;
            let quiet = self.rules.counts() == before;
            if quiet && kernel.is_none_or(|kernel| self.reckoning.unaccounted(kernel) == 0) {
                break;
            }
        }
        Ok(kernel)
    }

    fn differences(&mut self) -> BTreeMap<String, i64> {
        let hierarchical = self.locator.hierarchy().number == 0;
        let now = self.locator.walk_again((self.clock)());
        self.reckoning.differences(&now, hierarchical)
    }

    fn summary(&self, kernel: Option<u64>, unaccounted: Option<i64>, differences: BTreeMap<String, i64>) -> Summary {
        let (counts, hangs) = (self.rules.counts(), self.hangs.counts());
        Summary {
            kills: counts.kills,
            incidents: counts.incidents,
            already_dying: counts.already_dying,
            duplicates: counts.duplicates,
            unresolved: self.unresolved,
            hangs: hangs.raised,
            hangs_open: hangs.open,
            lost: self.losses.total(),
            lost_ring: self.losses.ring.clone(),
            lost_decode: self.losses.decode.clone(),
            kernel_kills: kernel,
            unaccounted,
            differences,
        }
    }
}
