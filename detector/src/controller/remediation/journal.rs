//! One step from its plan to its end: written down, taken, written down. Cut off anywhere, it is gone through again by
//! whoever leads then, with one effect.
//!
//! ```text
//! (nothing) ── write ──▶ Intended ── take ──▶ ── write ──▶ Done | Failed
//!     └─ dry run ──────────────────────────────── write ──▶ Told
//! ```
//!
//! | cut | what stands | then |
//! |---|---|---|
//! | before `Intended` is written | nothing | planned anew |
//! | before or in the middle of taking it | `Intended`, a part of the effect | taken again: what stands is left as it is |
//! | before its end is written | `Intended`, the effect | taken again: nothing changes |
//!
//! Who does not lead any more writes nothing and takes nothing: it is asked before each of the three.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{
    plan::standing::{Standing, takes_back},
    take::Report,
};
use crate::{
    contract::incident::{KernelIncident, MAX_MESSAGE_BYTES, StepEntry, StepKind, StepState},
    controller::incident::weigh::Weight,
    text,
};

/// What is not allowed for so long will not be allowed: the step has failed. Long enough for a role to be mended, and for a
/// server that starts up and forbids what it does not know yet.
pub const FORBIDDEN_FOR: Duration = Duration::from_secs(30 * 60);

/// What fails for some pods alone, while the others were done, is waited for so long: nothing that comes after it is to wait
/// for a webhook of one namespace.
pub const STUCK_FOR: Duration = Duration::from_secs(2 * 60);

/// Where steps are written down: the incident's object.
pub trait Ledger {
    /// Puts `entry` in the place of the entry of its kind. Once this returns well, whoever leads next sees it.
    fn write(&self, incident: &KernelIncident, entry: &StepEntry) -> impl Future<Output = Result<(), Unwritten>>;
}

/// An entry could not be written; whether it stands is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write down a step: {reason}")]
pub struct Unwritten {
    /// Not before this time again.
    pub after: Option<Duration>,
    /// Why.
    pub reason: String,
}

/// What takes steps.
pub trait Hands {
    /// Takes it; may be done again.
    fn take(&self, kind: StepKind) -> impl Future<Output = Report>;

    /// What taking it would do.
    fn foretell(&self, kind: StepKind) -> String;
}

/// What a step depends on besides.
pub struct Circumstances<'a> {
    /// The incident as it stands.
    pub incident: &'a KernelIncident,
    /// Really do it; else it is only told. What takes something back is always done.
    pub act: bool,
    /// Whether this replica leads, as of now. Never `true` after another one may have begun to.
    pub leads: &'a dyn Fn() -> bool,
    /// The clock of this replica.
    pub now: &'a dyn Fn() -> Timestamp,
}

/// How far it came.
#[derive(Clone, Debug, PartialEq)]
pub enum Course {
    /// It ended, and that is written down.
    Ended(StepEntry),
    /// It stands written down, or nothing stands; it is to be gone through again.
    Unfinished {
        /// Not before this time.
        after: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// Somebody else leads.
    Deposed,
}

/// Goes through the step `kind`, which was planned, and whose node was read right before.
pub async fn go(kind: StepKind, at: &Circumstances<'_>, ledger: &impl Ledger, hands: &impl Hands) -> Course {
    // What was done is really taken back, whatever was chosen since.
    let act = at.act || takes_back(kind);
    let status = at.incident.status.clone().unwrap_or_default();
    let standing = Standing::of(&status, act);
    let entry = match standing.entry(kind) {
        Some(entry) if entry.state != StepState::Intended => return Course::Ended(entry.clone()),
        Some(entry) if !act => {
            // A part may have been done: it has failed and is taken back like any other; it was not only told.
            let message = "given up: dry run was chosen while it was under way".to_owned();
            return end(entry, StepState::Failed, message, at, ledger).await;
        }
        Some(entry) => entry.clone(),
        None => {
            let time = MicroTime(standing.next((at.now)()));
            let entry = StepEntry { kind, state: StepState::Intended, time, ended: None, message: String::new() };
            if !act {
                return end(&entry, StepState::Told, hands.foretell(kind), at, ledger).await;
            }
            if !(at.leads)() {
                return Course::Deposed;
            }
            if let Err(Unwritten { after, reason }) = ledger.write(at.incident, &entry).await {
                return Course::Unfinished { after, reason };
            }
            entry
        }
    };
    if !(at.leads)() {
        return Course::Deposed;
    }
    match hands.take(kind).await {
        Report::Done(message) => end(&entry, StepState::Done, message, at, ledger).await,
        Report::Refused(message) => end(&entry, StepState::Failed, message, at, ledger).await,
        Report::Later { all_but: Some(message), .. } if stood_for(&entry, STUCK_FOR, at) => {
            end(&entry, StepState::Done, message, at, ledger).await
        }
        Report::Later { reason, forbidden: true, .. } if stood_for(&entry, FORBIDDEN_FOR, at) => {
            end(&entry, StepState::Failed, format!("not allowed: {reason}"), at, ledger).await
        }
        Report::Later { after, reason, .. } => Course::Unfinished { after, reason },
    }
}

/// Ends a step that stands as intended and will not be planned any more: the node is back, or its Node is gone. Else it would
/// stand so for ever, and keep the incident from being closed. `None`: there is no such step; of several, one for each call.
///
/// It may have been done in part. So it has failed and was not only told: what it did is taken back.
pub async fn abandon(at: &Circumstances<'_>, node_is_there: bool, ledger: &impl Ledger) -> Option<Course> {
    let status = at.incident.status.as_ref()?;
    let back = Weight::of(&status.evidence).is_back();
    let ends = |entry: &&StepEntry| match entry.kind {
        _ if entry.state != StepState::Intended => None,
        kind if back && kind <= StepKind::DeleteNode => Some((StepState::Failed, "given up: the node is back")),
        StepKind::DeleteNode if !node_is_there => Some((StepState::Done, "there is no such Node any more")),
        // Pods and incident may still be there.
        StepKind::Annotate | StepKind::Retract => None,
        _ if !node_is_there => Some((StepState::Failed, "given up: there is no such Node any more")),
        _ => None,
    };
    let (entry, (state, why)) = status.steps.iter().find_map(|entry| Some((entry, ends(&entry)?)))?;
    Some(end(entry, state, why.to_owned(), at, ledger).await)
}

fn stood_for(entry: &StepEntry, time: Duration, at: &Circumstances<'_>) -> bool {
    let stood = (at.now)().duration_since(entry.time.0);
    SignedDuration::try_from(time).is_ok_and(|time| stood >= time)
}

async fn end(
    entry: &StepEntry,
    state: StepState,
    message: String,
    at: &Circumstances<'_>,
    ledger: &impl Ledger,
) -> Course {
    if !(at.leads)() {
        return Course::Deposed;
    }
    let message = text::cut(&text::harmless(&message), MAX_MESSAGE_BYTES);
    let entry = StepEntry { state, ended: Some(MicroTime((at.now)())), message, ..entry.clone() };
    match ledger.write(at.incident, &entry).await {
        Ok(()) => Course::Ended(entry),
        Err(Unwritten { after, reason }) => Course::Unfinished { after, reason },
    }
}

#[cfg(test)]
mod tests;
