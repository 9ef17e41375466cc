//! What an answer of the API server means for the one who asked.

use std::time::Duration;

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stands.
    Done,
    /// It stood already (409 on a name that we chose).
    AlreadyThere,
    /// What it was to change, or the namespace that it was to stand in, is there no more or about to go (404 by the API server
    /// itself, or 403 while the namespace ends); why, in a sentence. No error: objects come and go.
    Gone(String),
    /// It will never stand, and asking again is no use; why, in a sentence.
    Final(String),
    /// It may stand if asked again.
    Retry {
        /// Not before this time (`Retry-After`).
        after: Option<Duration>,
        /// Why, in a sentence.
        reason: String,
    },
}
