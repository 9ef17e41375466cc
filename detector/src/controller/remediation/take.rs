//! Takes one step: which executor does it, with what, and what came of it.
//!
//! Every executor may be called again after it was cut off anywhere: what stands already is left as it is, what is gone is
//! gone. Objects are meant by uid, never by name alone.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Policy, annotate, cordon,
    journal::Hands,
    node,
    pods::{self, Target},
    taint,
};
use crate::{
    cluster::{Answer, Outcome, answer, request},
    contract::incident::{KernelIncident, MAX_MESSAGE_BYTES, StepKind},
    controller::incident::NodeFacts,
    text,
};

/// For how long what was read of Node and Lease is proof enough to go on ending pods: a node that reboots meanwhile may have
/// started the same ones. A longer step is planned and verified again.
pub const PROOF_LASTS: Duration = Duration::from_secs(5);

/// Why a step that is not done goes on after it was verified again.
const LATE: &str = "the proof of death is to be read again";

/// What a step is taken with.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The API server.
    pub client: &'a kube::Client,
    /// The incident as it stands.
    pub incident: &'a KernelIncident,
    /// Its Node as it was read right before; `None`: there is none any more, or another one of its name.
    pub node: Option<&'a NodeFacts>,
    /// The node's pods. Read right before a step, it is fewest requests; an older list does no harm.
    pub pods: &'a [Target],
    /// What is allowed.
    pub policy: &'a Policy,
    /// By the clock of this replica.
    pub now: Timestamp,
    /// Whether what was verified may not be so any more ([`PROOF_LASTS`]): nothing that destroys is begun from then on. Never
    /// for a step that destroys nothing.
    pub late: &'a dyn Fn() -> bool,
}

impl Scene<'_> {
    /// `metadata.name` of the incident.
    #[must_use]
    pub fn incident_name(&self) -> &str {
        self.incident.metadata.name.as_deref().unwrap_or_default()
    }

    /// `metadata.uid` of the Node that died, as far as known.
    #[must_use]
    pub fn node_uid(&self) -> Option<&str> {
        let read = || self.node.map(|node| node.uid.as_str()).filter(|uid| !uid.is_empty());
        self.incident.spec.node_uid.as_deref().or_else(read)
    }
}

impl Hands for Scene<'_> {
    async fn take(&self, kind: StepKind) -> Report {
        take(kind, self).await
    }

    fn foretell(&self, kind: StepKind) -> String {
        foretell(kind, self)
    }
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It is done, as far as it can be; with numbers and what was left.
    Done(String),
    /// The API server refused for good, all of it.
    Refused(String),
    /// It is to be taken again: something was not answered, or not allowed.
    Later {
        /// Not before this time.
        after: Option<Duration>,
        /// Why.
        reason: String,
        /// Somebody does not allow it (403): a role, or an admission policy. That may never change.
        forbidden: bool,
        /// The rest was done, and what fails does so for itself (a webhook of one namespace, say): what is told if the step
        /// ends so.
        all_but: Option<String>,
    },
}

impl Report {
    /// Nothing of it is done by now.
    pub(super) const fn later(reason: String) -> Self {
        Self::Later { after: None, reason, forbidden: false, all_but: None }
    }
}

/// Takes the step.
pub async fn take(kind: StepKind, scene: &Scene<'_>) -> Report {
    if (scene.late)() {
        return Fate::Late.into_report(String::new, String::new);
    }
    match kind {
        StepKind::Cordon => cordon::cordon(scene).await,
        StepKind::Annotate => annotate::annotate(scene).await,
        StepKind::DeletePods => pods::delete(scene, None).await,
        StepKind::FailPods => pods::fail(scene).await,
        StepKind::TaintOutOfService => taint::taint(scene).await,
        StepKind::ForceDeletePods => pods::delete(scene, Some(0)).await,
        StepKind::DeleteNode => node::delete(scene).await,
        StepKind::Untaint => taint::untaint(scene).await,
        StepKind::Uncordon => cordon::uncordon(scene).await,
        StepKind::Retract => annotate::retract(scene).await,
    }
}

/// What would be done: for a dry run, which asks nothing of the server.
#[must_use]
pub fn foretell(kind: StepKind, scene: &Scene<'_>) -> String {
    let node = &scene.incident.spec.node;
    let message = match kind {
        StepKind::Cordon => format!("would cordon {node}"),
        StepKind::Annotate => {
            let pods = pods::sorted(scene, pods::Touch::Annotate);
            format!("would write the reason on {node} and on {}", pods.count("pod"))
        }
        StepKind::DeletePods => format!("would delete {}", pods::sorted(scene, pods::Touch::Delete).count("pod")),
        StepKind::FailPods => format!("would fail {}", pods::sorted(scene, pods::Touch::Delete).count("pod")),
        StepKind::TaintOutOfService => format!("would taint {node} as out of service"),
        StepKind::ForceDeletePods => {
            format!("would delete {} without grace", pods::sorted(scene, pods::Touch::Delete).count("pod"))
        }
        StepKind::DeleteNode => format!("would delete the Node {node}"),
        StepKind::Untaint => format!("would take the taint off {node}"),
        StepKind::Uncordon => format!("would uncordon {node}"),
        StepKind::Retract => format!("would take back what was written on {node} and its pods"),
    };
    text::cut(&message, MAX_MESSAGE_BYTES)
}

/// How one write fared, for the step as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    /// The object is gone, or another one has its name.
    Gone,
    Refused(String),
    Later {
        after: Option<Duration>,
        reason: String,
        forbidden: bool,
        /// Others would fare no better now.
        server: bool,
    },
    /// It was not asked for: see [`PROOF_LASTS`].
    Late,
}

impl Fate {
    pub(super) fn of(answer: Answer) -> Self {
        let (forbidden, server) = (answer.is_forbidden(), answer.is_about_server());
        match answer.outcome {
            Outcome::Done => Self::Done,
            Outcome::AlreadyThere | Outcome::Gone(_) => Self::Gone,
            // The uid of the patch or of the precondition is another one's: 409, or 422 from the validation of patches.
            Outcome::Retry { reason, .. } | Outcome::Final(reason)
                if matches!(answer.status, Some(409 | 422)) && mentions_uid(&reason) =>
            {
                Self::Gone
            }
            Outcome::Final(reason) => Self::Refused(reason),
            Outcome::Retry { after, reason } => Self::Later { after, reason, forbidden, server },
        }
    }

    pub(super) fn into_report(self, done: impl FnOnce() -> String, gone: impl FnOnce() -> String) -> Report {
        match self {
            Self::Done => Report::Done(done()),
            Self::Gone => Report::Done(gone()),
            Self::Refused(reason) => Report::Refused(reason),
            Self::Later { after, reason, forbidden, .. } => Report::Later { after, reason, forbidden, all_but: None },
            Self::Late => {
                Report::Later { after: Some(Duration::ZERO), reason: LATE.to_owned(), forbidden: false, all_but: None }
            }
        }
    }
}

fn mentions_uid(reason: &str) -> bool {
    reason.contains("UID in precondition") || reason.contains("metadata.uid")
}

/// Sends one request of the step.
pub(super) async fn send(scene: &Scene<'_>, request: Result<request::Raw, request::RequestError>) -> Answer {
    match request {
        Ok(request) => answer::send(scene.client, request).await,
        Err(error) => Answer { status: None, outcome: Outcome::Final(error.to_string()) },
    }
}

/// How many writes of one step fared how.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) done: usize,
    pub(super) gone: usize,
    /// Others that needed nothing any more: done by an earlier try.
    pub(super) already: usize,
    /// The Node was told as well: nothing of what is done to pods.
    pub(super) node: bool,
    refused: usize,
    /// Why the first was refused.
    refusal: Option<String>,
    later: usize,
    first_later: Option<(Option<Duration>, String)>,
    forbidden: bool,
    /// One failed as all others would.
    server: bool,
    late: usize,
}

impl Tally {
    pub(super) fn add(&mut self, fate: Fate) {
        match fate {
            Fate::Done => self.done += 1,
            Fate::Gone => self.gone += 1,
            Fate::Refused(reason) => {
                self.refused += 1;
                self.refusal.get_or_insert(reason);
            }
            Fate::Later { after, reason, forbidden, server } => {
                // Only if all that is missing is forbidden, waiting may be no use.
                self.forbidden = forbidden && (self.later == 0 || self.forbidden);
                self.server |= server;
                self.later += 1;
                let first = self.first_later.get_or_insert((after, reason));
                first.0 = first.0.max(after);
            }
            Fate::Late => self.late += 1,
        }
    }

    /// The report; `what` was done to `done` pods, and `rest` tells what was left alone.
    pub(super) fn report(self, what: &str, rest: &str) -> Report {
        if self.later + self.late > 0 {
            return self.unfinished(what, rest);
        }
        let message = text::cut(&self.ended(what, rest), MAX_MESSAGE_BYTES);
        if self.refused > 0 && self.done + self.already == 0 { Report::Refused(message) } else { Report::Done(message) }
    }

    fn ended(&self, what: &str, rest: &str) -> String {
        let mut message = format!("{} {what}", plural(self.done, "pod"));
        if self.gone > 0 {
            message.push_str(&format!(", {} gone already", self.gone));
        }
        message.push_str(rest);
        if let Some(reason) = &self.refusal {
            message.push_str(&format!("; {} refused: {reason}", self.refused));
        }
        message
    }

    fn unfinished(self, what: &str, rest: &str) -> Report {
        // Who was only late goes on at once.
        let (after, why) = self.first_later.clone().unwrap_or((Some(Duration::ZERO), LATE.to_owned()));
        let others = self.done + self.gone + self.already + usize::from(self.node);
        let all_but = (others > 0 && !self.server && self.late == 0).then(|| {
            let missing = format!("; {} not {what}: {why}", plural(self.later, "pod"));
            text::cut(&format!("{}{missing}", self.ended(what, rest)), MAX_MESSAGE_BYTES)
        });
        let reason = format!("{} not {what} yet: {why}", plural(self.later + self.late, "pod"));
        let reason = text::cut(&reason, MAX_MESSAGE_BYTES);
        Report::Later { after, reason, forbidden: self.forbidden && self.late == 0, all_but }
    }
}

/// `1 pod`, `2 pods`.
pub(super) fn plural(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, outcome: Outcome) -> Answer {
        Answer { status: Some(status), outcome }
    }

    fn retry(reason: &str) -> Outcome {
        Outcome::Retry { after: None, reason: reason.to_owned() }
    }

    #[test]
    fn an_object_of_another_uid_is_gone() {
        let reason =
            "the API server answered 409 Conflict: Precondition failed: UID in precondition: a, UID in object meta: b";
        assert_eq!(Fate::of(answer(409, retry(reason))), Fate::Gone);
        let reason = "Pod \"x\" is invalid: metadata.uid: Invalid value: \"a\": field is immutable";
        assert_eq!(Fate::of(answer(422, Outcome::Final(reason.to_owned()))), Fate::Gone);
        assert_eq!(Fate::of(answer(404, Outcome::Gone(String::new()))), Fate::Gone);
        assert!(matches!(Fate::of(answer(409, retry("the object has been modified"))), Fate::Later { .. }));
    }

    #[test]
    fn a_step_is_refused_only_if_nothing_of_it_could_be_done() {
        let mut tally = Tally::default();
        tally.add(Fate::Refused("no".to_owned()));
        tally.add(Fate::Done);
        assert_eq!(tally.report("deleted", ""), Report::Done("1 pod deleted; 1 refused: no".to_owned()));
        let mut tally = Tally::default();
        tally.add(Fate::Refused("no".to_owned()));
        assert_eq!(tally.report("deleted", ""), Report::Refused("0 pods deleted; 1 refused: no".to_owned()));
    }

    #[test]
    fn a_step_that_another_leader_did_all_but_one_pod_of_is_not_refused() {
        let mut tally = Tally { already: 9, ..Tally::default() };
        tally.add(Fate::Refused("no".to_owned()));
        assert_eq!(tally.report("deleted", ""), Report::Done("0 pods deleted; 1 refused: no".to_owned()));
        let mut tally = Tally { node: true, ..Tally::default() };
        tally.add(Fate::Refused("no".to_owned()));
        assert!(matches!(tally.report("told", ""), Report::Refused(_)), "the Node is no pod");
    }

    #[test]
    fn what_may_still_come_is_waited_for_and_bounded() {
        let later = |seconds, forbidden| Fate::Later {
            after: Some(Duration::from_secs(seconds)),
            reason: "ü".repeat(2000),
            forbidden,
            server: false,
        };
        let mut tally = Tally::default();
        for fate in [Fate::Done, later(1, true), later(7, true)] {
            tally.add(fate);
        }
        let Report::Later { after, reason, forbidden, .. } = tally.report("deleted", "") else { panic!("later") };
        assert_eq!((after, forbidden), (Some(Duration::from_secs(7)), true));
        assert!(reason.len() <= MAX_MESSAGE_BYTES && reason.starts_with("2 pods not deleted yet"), "{reason}");
    }

    /// What a step may end with although one pod failed so, beside `others`.
    fn all_but(others: &[Fate], server: bool) -> Option<String> {
        let mut tally = Tally::default();
        let failed = Fate::Later { after: None, reason: "500".to_owned(), forbidden: false, server };
        others.iter().cloned().chain([failed]).for_each(|fate| tally.add(fate));
        let Report::Later { all_but, .. } = tally.report("deleted", "; left: 1 of a DaemonSet") else {
            panic!("later")
        };
        all_but
    }

    #[test]
    fn one_pod_that_fails_for_itself_may_be_left_and_a_server_that_fails_is_waited_for() {
        let told = "1 pod deleted; left: 1 of a DaemonSet; 1 pod not deleted: 500".to_owned();
        assert_eq!(all_but(&[Fate::Done], false), Some(told));
        assert_eq!(all_but(&[Fate::Done], true), None, "the others would fare no better");
        assert_eq!(all_but(&[], false), None, "nothing says that it is about this pod");
        assert_eq!(all_but(&[Fate::Done, Fate::Late], false), None, "not all were asked for");
    }

    #[test]
    fn what_was_only_late_goes_on_at_once() {
        let mut tally = Tally::default();
        [Fate::Done, Fate::Late, Fate::Late].into_iter().for_each(|fate| tally.add(fate));
        let Report::Later { after, reason, .. } = tally.report("deleted", "") else { panic!("later") };
        assert_eq!((after, reason), (Some(Duration::ZERO), format!("2 pods not deleted yet: {LATE}")));
    }
}
