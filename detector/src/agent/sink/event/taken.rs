//! Records that were taken in already: what is told twice, by a restart or by two sources, counts once.

use std::collections::{HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::object::digest;
use crate::agent::sink::report::RecordId;

/// Records that are remembered: more than a restart tells again.
const REMEMBERED: usize = 4096;

/// Digests of the last records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "VecDeque<u64>", into = "VecDeque<u64>")]
pub(super) struct Taken {
    order: VecDeque<u64>,
    known: HashSet<u64>,
}

impl Taken {
    /// Whether this is the first time that `record` is told as a `kind`.
    pub(super) fn is_first(&mut self, record: &RecordId, kind: &str) -> bool {
        let digest = digest([
            record.boot_id.as_bytes(),
            &record.cpu.to_le_bytes(),
            &record.sequence.to_le_bytes(),
            kind.as_bytes(),
        ]);
        if !self.known.insert(digest) {
            return false;
        }
        self.order.push_back(digest);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

impl From<VecDeque<u64>> for Taken {
    fn from(mut order: VecDeque<u64>) -> Self {
        order.truncate(REMEMBERED);
        Self { known: order.iter().copied().collect(), order }
    }
}

impl From<Taken> for VecDeque<u64> {
    fn from(taken: Taken) -> Self {
        taken.order
    }
}
