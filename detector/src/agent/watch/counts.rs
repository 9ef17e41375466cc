//! What the kernel side counted, from its map to the pipeline: at the start, and at each check.

use super::{AgentError, sources::Sources};
use crate::{
    agent::{
        pipeline::{Pipeline, Settled},
        sink::{Counting, Stage},
        source::pin::Counts,
    },
    cause::error_chain,
};

/// Tells what was counted before the first record is read: by other versions of the kernel side, and by what counts now.
pub(super) fn begin(pipeline: &mut Pipeline<'_>, sources: &Sources) -> Result<(), AgentError> {
    for counts in sources.kills_of_others() {
        pipeline.count_kills(&counts, Counting::Over)?;
    }
    match read(pipeline, sources) {
        Some(counts) => pipeline.count_kills(&counts, Counting::Begins).map(drop),
        None => Ok(()),
    }
}

/// What was counted so far, if that can be read.
pub(super) fn read(pipeline: &mut Pipeline<'_>, sources: &Sources) -> Option<Counts> {
    match sources.kills_counted() {
        Ok(counts) => counts,
        Err(error) => {
            pipeline.note(Stage::Source, "kill_counts", || error_chain(&error));
            None
        }
    }
}

/// Tells what was counted before all records were read, and has forgotten what nobody needs any more. Returns whether
/// another look is needed soon.
pub(super) fn settle(pipeline: &mut Pipeline<'_>, sources: &mut Sources, counts: &Counts) -> Result<bool, AgentError> {
    let Settled { again, forgotten } = pipeline.count_kills(counts, Counting::GoesOn)?;
    if let Err(error) = sources.forget_kills(&forgotten) {
        pipeline.note(Stage::Source, "kill_counts", || error_chain(&error));
    }
    Ok(again)
}
