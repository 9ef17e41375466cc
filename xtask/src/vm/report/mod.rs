//! What guests said, and how it is shown: [`verdict`] reads a serial console, [`fixture`] compares what `doctor` answered
//! with what it did before, [`table`] shows all guests side by side.

pub(super) mod fixture;
pub(super) mod table;
pub(super) mod verdict;

use anyhow::Result;

use self::verdict::Verdict;
use super::kernels::Kernel;
use crate::test::Outcome;

/// What one guest said.
pub(super) struct Judged {
    pub(super) kernel: Kernel,
    /// Its words, or why there are none.
    pub(super) verdict: Result<Verdict>,
    /// From the start of the machine to its end.
    pub(super) seconds: f64,
}

/// Sums up; a guest without verdict is one failure.
pub(super) fn outcome(judged: &[Judged]) -> Outcome {
    let sum = |count: fn(&Verdict) -> u32, without: u32| -> u32 {
        judged.iter().map(|one| one.verdict.as_ref().map_or(without, count)).sum()
    };
    Outcome { passed: sum(Verdict::passed, 0), failed: sum(Verdict::failed, 1), skipped: 0 }
}
