//! Keeps what the kernel says when it dies up to date: from the pipeline, which knows containers, to the kernel side.

use super::{ladder::Ladder, sources::Sources};
use crate::{
    agent::{options::Detector, pipeline::Pipeline, sink::Stage},
    cause::error_chain,
};

/// Whether there will be any: the probe on panic is attached.
pub(super) fn are_prepared(ladders: &[Ladder]) -> bool {
    ladders.iter().any(|ladder| ladder.detector() == Detector::Panic && ladder.method().is_some())
}

/// Whether there may be some: it is, or will be tried.
pub(super) fn may_be_prepared(ladders: &[Ladder]) -> bool {
    are_prepared(ladders) || ladders.iter().any(|ladder| ladder.detector() == Detector::Panic && ladder.waits())
}

/// Tells the kernel side what it must know beforehand.
pub(super) fn begin(pipeline: &mut Pipeline<'_>, sources: &mut Sources) {
    if let Err(error) = sources.find_symbols() {
        pipeline.note(Stage::Source, "last_words", || {
            let reason = error_chain(&error);
            format!("when the kernel dies, oopses are not told, and whom an interrupt hit is named: {reason}")
        });
    }
    hand_on(pipeline, sources);
}

/// Hands on what became known of containers since the last call.
pub(super) fn hand_on(pipeline: &mut Pipeline<'_>, sources: &mut Sources) {
    let namings = pipeline.take_namings();
    if !namings.is_empty()
        && let Err(error) = sources.hear_names(namings)
    {
        pipeline.note(Stage::Source, "last_words", || error_chain(&error));
    }
}
