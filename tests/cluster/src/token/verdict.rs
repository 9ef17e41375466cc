//! What a test of rights expected and did not get, collected, so that one run tells all of it.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use kube::Error;

use crate::wait;

/// Collects what did not end as it should.
#[derive(Default)]
pub struct Verdict(String);

impl Verdict {
    /// `what` must have been taken (`None`) or refused with this code.
    pub fn expect<T>(&mut self, what: &str, outcome: &Result<T, Error>, refusal: Option<u16>) {
        let seen = match outcome {
            Ok(_) => None,
            Err(_) => Some(wait::refusal(outcome).unwrap_or_default()),
        };
        if seen != refusal {
            let why = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
            writeln!(self.0, "{what}: expected {refusal:?}, got {seen:?} {why}").ok();
        }
    }

    /// `what` must have been refused with 403 by a policy that says `words`; by RBAC is not enough.
    pub fn forbids<T>(&mut self, what: &str, outcome: &Result<T, Error>, words: &str) {
        self.expect(what, outcome, Some(403));
        if !is_refused(outcome, words) {
            let why = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
            writeln!(self.0, "{what}: not because `{words}`: {why}").ok();
        }
    }

    /// Whether all was as expected.
    ///
    /// # Errors
    /// It was not; the error has all that was different.
    pub fn holds(self) -> Result<()> {
        ensure!(self.0.is_empty(), "\n{}", self.0);
        Ok(())
    }
}

/// Whether it was refused in these words.
pub fn is_refused<T>(outcome: &Result<T, Error>, words: &str) -> bool {
    matches!(outcome, Err(Error::Api(status)) if status.message.contains(words))
}
