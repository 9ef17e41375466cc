//! What a turn does once the evidence is written down: steps are planned, written down, taken and written down, until one
//! waits or none is left.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use tracing::{debug, info};

use super::{super::core::Core, Trouble, Turn, pods, status};
use crate::{
    contract::incident::{HoldReason, KernelIncident, KernelIncidentStatus, Phase, StepEntry, StepKind, StepState},
    controller::{
        incident::{NodeFacts, weigh::Weight},
        remediation::{
            LeaseView, Plan, Situation,
            brake::Brake,
            budget,
            journal::{self, Circumstances, Course},
            plan::plan,
            pods::{Left, Target},
            take::{PROOF_LASTS, Scene},
        },
        sink::event::{self, Subject},
        source::lease,
    },
};

/// Steps and holds of one turn at most: as many as there are steps, twice.
const ROUNDS: usize = 20;
/// What waits for others (budget, brake, an unwell cluster) is looked at again after this time.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(15);
/// What waits for people (an opt-out) is looked at again after this time, unless the Node changes.
const WAIT_FOR_PEOPLE: Duration = Duration::from_secs(5 * 60);
/// What could not be read is read again after this time; later the longer it has been so, up to the second.
const READ_AGAIN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(60)];

/// What one round came to.
enum Round {
    /// Something stands now: look again.
    On,
    /// Nothing more for now.
    Over,
}

impl Turn<'_> {
    /// Plans and takes what is to be done by now.
    pub(super) async fn act(&mut self) -> Result<(), Trouble> {
        for _ in 0..ROUNDS {
            if !self.core.leadership.is_leader() {
                return Ok(());
            }
            match self.round().await? {
                Round::On => {}
                Round::Over => return Ok(()),
            }
        }
        self.wait(Duration::from_secs(1));
        Ok(())
    }

    async fn round(&mut self) -> Result<Round, Trouble> {
        let incident = self.book.incident();
        if incident.status.as_ref().is_none_or(|status| status.phase == Some(Phase::Closed)) {
            return Ok(Round::Over);
        }
        if let Some(course) = self.abandon(&incident).await {
            return self.ended(course);
        }
        let brake = self.core.brakes.look(self.core, false).await;
        let lease = self.core.suspects.borrow().view(&incident.spec.node);
        match self.plan(&incident, lease, brake.as_ref()) {
            Plan::Take(step) => self.step(step, brake.is_some()).await,
            other => self.waits(other, brake.is_some()).await,
        }
    }

    async fn abandon(&self, incident: &KernelIncident) -> Option<Course> {
        let config = self.core.config();
        let (leads, now) = (|| self.core.leadership.is_leader(), || self.core.wall());
        let at = Circumstances { incident, act: config.policy.act, leads: &leads, now: &now };
        journal::abandon(&at, self.node.is_some(), &self.book).await
    }

    fn plan(&self, incident: &KernelIncident, lease: LeaseView, brake: Option<&Brake>) -> Plan {
        let config = self.core.config();
        let (nodes, incidents, reserved) =
            (self.core.nodes.borrow(), self.core.incidents.borrow(), self.core.reserved.borrow());
        let used = budget::Used {
            reserved: &reserved,
            since: brake.and_then(|brake| brake.released_by_now(self.core.wall())),
            act: config.policy.act,
            now: self.core.wall(),
        };
        let usage = budget::usage(incident, incidents.iter(), &nodes, &used);
        plan(&Situation {
            incident,
            node: self.node.as_ref(),
            lease,
            usage: &usage,
            braked: brake.is_none_or(|brake| brake.pulled),
            policy: &config.policy,
            now: self.core.wall(),
        })
    }

    /// Takes the step that was planned; one that destroys something only if it is planned again with what is read now.
    async fn step(&mut self, step: StepKind, brake_known: bool) -> Result<Round, Trouble> {
        if destroys(step) || (needs_pods(step) && self.listed.is_none()) {
            // Only what is read right before a step is fresh enough to destroy something.
            let (core, name) = (self.core, self.node_name());
            match pods::list(core, &name, destroys(step)).await {
                Ok(listed) => self.listed = Some(listed),
                Err(outcome) => {
                    let why = format!("the pods of the node cannot be listed: {}", pods::why(&outcome));
                    return self.unverified(step, &why).await;
                }
            }
            if !destroys(step) {
                // Others had their turn meanwhile, and may have used up the budget.
                return Ok(Round::On);
            }
        }
        // What is read from here on was so then, or later.
        let verified = self.core.monotonic();
        if destroys(step) {
            if let Some(why) = self.listed.as_ref().and_then(|listed| listed.unsure.clone()) {
                return self.unverified(step, &why).await;
            }
            if let Some(why) = self.forbids(step) {
                return self.hold(step, HoldReason::Excluded, &why).await;
            }
            match self.verify().await {
                Err(why) => return self.unverified(step, &why).await,
                Ok(Plan::Take(again)) if again == step => {}
                Ok(Plan::Take(_)) => return Ok(Round::On),
                Ok(other) => return self.waits(other, brake_known).await,
            }
        }
        self.gone = self.removed_before(step);
        // From the plan to here nothing else had its turn, or the plan was made again.
        let name = self.name();
        if self.counts(step) {
            self.core.reserved.borrow_mut().insert(name.clone());
        }
        let course = self.go(step, verified).await;
        if matches!(course, Course::Ended(_)) {
            self.core.reserved.borrow_mut().remove(&name);
        }
        self.ended(course)
    }

    /// Whether it uses up the budget: so does the reason of a node that is only silent.
    fn counts(&self, step: StepKind) -> bool {
        let is_told = |status: KernelIncidentStatus| Weight::of(&status.evidence).told.is_some();
        match step {
            StepKind::Annotate => !self.book.incident().status.is_some_and(is_told),
            _ => destroys(step) || step == StepKind::Cordon,
        }
    }

    /// Plans again with what Node, Lease and brake say now, past all caches.
    async fn verify(&mut self) -> Result<Plan, String> {
        let (core, incident) = (self.core, self.book.incident());
        let (node, reading, brake) = futures::join!(
            self.read_node(),
            lease::read_lease(&core.client, &incident.spec.node, &core.moments),
            core.brakes.look(core, true),
        );
        self.node = node?;
        if let lease::Lease::Unread { reason } = &reading.lease {
            return Err(format!("the Lease of the node cannot be read: {reason}"));
        }
        let brake = brake.ok_or_else(|| "whether the brake is pulled is not known".to_owned())?;
        let news = core.suspects.borrow_mut().take(&reading);
        news.iter().for_each(|node| core.wake_node(node));
        let view = core.suspects.borrow().view(&incident.spec.node);
        Ok(self.plan(&incident, view, Some(&brake)))
    }

    /// Why the Node as a whole must not be given up: that would end pods that want to be left alone. The taint ends all pods
    /// that do not tolerate it, and PodGC deletes those of a Node that is gone. Pods of a DaemonSet lose nothing: no other
    /// node waits for them, and each comes again with its node.
    fn forbids(&self, step: StepKind) -> Option<String> {
        if !matches!(step, StepKind::TaintOutOfService | StepKind::DeleteNode) {
            return None;
        }
        let incident = self.book.incident().name_any();
        let stays = |pod: &&Target| !pod.ended && Left::of(pod, &incident) == Some(Left::OptedOut);
        let mut stay = self.listed.iter().flat_map(|listed| &listed.targets).filter(stays);
        let first = stay.next()?;
        let (namespace, name, count) = (&first.namespace, &first.name, 1 + stay.count());
        Some(format!("pods of namespaces that opted out are on the node: {count}, such as {namespace}/{name}"))
    }

    /// Takes the step. `verified`: right before what it depends on was read.
    async fn go(&self, step: StepKind, verified: Duration) -> Course {
        let (core, incident, config) = (self.core, self.book.incident(), self.core.config());
        let (leads, now) = (|| core.leadership.is_leader(), || core.wall());
        let at = Circumstances { incident: &incident, act: config.policy.act, leads: &leads, now: &now };
        let late = || destroys(step) && core.monotonic().saturating_sub(verified) >= PROOF_LASTS;
        let scene = Scene {
            client: &core.client,
            incident: &incident,
            node: self.node.as_ref(),
            pods: self.pods(),
            policy: &config.policy,
            now: core.wall(),
            late: &late,
        };
        journal::go(step, &at, &self.book, &scene).await
    }

    fn ended(&mut self, course: Course) -> Result<Round, Trouble> {
        match course {
            Course::Ended(entry) => {
                self.ended = true;
                self.tell(&entry);
                Ok(Round::On)
            }
            Course::Unfinished { after, reason } => Err(Trouble { after, reason }),
            Course::Deposed => Ok(Round::Over),
        }
    }

    /// Pods that are gone since `step` was begun, by another leader or in a turn before: they are told of as well.
    fn removed_before(&self, step: StepKind) -> Vec<Target> {
        let incident = self.book.incident();
        let Some(status) = incident.status.as_ref().filter(|_| removes(step)) else { return Vec::new() };
        let begun = status.steps.iter().any(|entry| entry.kind == step && entry.state == StepState::Intended);
        let is_there = |pod: &Target| self.pods().iter().any(|listed| listed.uid == pod.uid);
        pods::named(&status.pods).into_iter().filter(|pod| begun && !is_there(pod)).collect()
    }

    fn pods(&self) -> &[Target] {
        self.listed.as_ref().map_or(&[], |listed| listed.targets.as_slice())
    }

    fn tell(&self, entry: &StepEntry) {
        let incident = self.book.incident();
        let (name, node) = (self.name(), &incident.spec.node);
        info!(incident = name, node, step = ?entry.kind, state = ?entry.state, "{}", entry.message);
        self.core.metrics.step(entry.kind, entry.state);
        let pods: Vec<_> = self.pods().iter().chain(&self.gone).cloned().collect();
        self.core.events.push(event::of_step(&self.subject(&incident, &pods), entry));
    }

    fn subject<'s>(&'s self, incident: &'s KernelIncident, pods: &'s [Target]) -> Subject<'s> {
        Subject { incident, node_uid: uid(incident, self.node.as_ref()), pods, instance: &self.core.replica }
    }

    async fn waits(&mut self, plan: Plan, brake_known: bool) -> Result<Round, Trouble> {
        match plan {
            Plan::Take(_) => Ok(Round::On),
            Plan::Nothing { until } => {
                self.soon(until);
                Ok(Round::Over)
            }
            Plan::Hold { step, reason: HoldReason::Brake, .. } if !brake_known => {
                self.unverified(step, "whether the brake is pulled is not known").await
            }
            Plan::Hold { step, reason, message, until, brake } => {
                if brake {
                    let (name, now) = (self.name(), self.core.wall());
                    self.core.brakes.pull(self.core, &message, &name, now).await;
                }
                self.soon(until);
                self.hold(step, reason, &message).await
            }
        }
    }

    async fn unverified(&mut self, step: StepKind, why: &str) -> Result<Round, Trouble> {
        let incident = self.book.incident();
        let holds = incident.status.iter().flat_map(|status| &status.holds);
        let mut holds = holds.filter(|hold| hold.step == step && hold.reason == HoldReason::Unverified);
        let since = holds.next().map_or(Duration::ZERO, |hold| status::until(self.core.wall(), hold.since.0));
        let [first, longest] = READ_AGAIN;
        self.wait((since / 4).clamp(first, longest));
        self.hold(step, HoldReason::Unverified, why).await
    }

    async fn hold(&mut self, step: StepKind, reason: HoldReason, message: &str) -> Result<Round, Trouble> {
        match reason {
            HoldReason::Budget | HoldReason::ClusterUnwell | HoldReason::Brake => self.wait(WAIT_FOR_OTHERS),
            HoldReason::Excluded => self.wait(WAIT_FOR_PEOPLE),
            HoldReason::NoCorroboration | HoldReason::NodeReturned | HoldReason::Unverified => {}
        }
        let incident = self.book.incident();
        let mut status = incident.status.clone().unwrap_or_default();
        let Some(entry) = status::hold(&mut status, step, reason, message, self.core.wall()) else {
            return Ok(Round::Over);
        };
        self.book.leave(&status).await?;
        debug!(incident = self.name(), step = ?step, reason = ?reason, message, "waits");
        self.core.metrics.held(reason);
        self.core.events.push(event::of_hold(&self.subject(&incident, self.pods()), &entry));
        Ok(Round::Over)
    }
}

/// Cannot be taken back.
pub(super) const fn destroys(step: StepKind) -> bool {
    matches!(
        step,
        StepKind::DeletePods
            | StepKind::FailPods
            | StepKind::TaintOutOfService
            | StepKind::ForceDeletePods
            | StepKind::DeleteNode
    )
}

/// Pods may be gone by it.
const fn removes(step: StepKind) -> bool {
    matches!(step, StepKind::DeletePods | StepKind::ForceDeletePods)
}

const fn needs_pods(step: StepKind) -> bool {
    destroys(step) || matches!(step, StepKind::Annotate | StepKind::Retract)
}

/// The uid of the incident's Node, the same before and after that is deleted: an event that is told again is the same event.
fn uid<'a>(incident: &'a KernelIncident, node: Option<&'a NodeFacts>) -> Option<&'a str> {
    incident.spec.node_uid.as_deref().or_else(|| node.map(|node| node.uid.as_str()))
}

/// Events about what another leader did lately: it may have ended before it told.
pub(in crate::controller::service) fn retell(core: &Core, incident: &KernelIncident, since: Timestamp) {
    let Some(status) = &incident.status else { return };
    let pods = pods::named(&status.pods);
    let node = core.node_of(incident);
    let node_uid = uid(incident, node.as_ref());
    let subject = Subject { incident, node_uid, pods: &pods, instance: &core.replica };
    for entry in &status.steps {
        if entry.state != StepState::Intended && entry.ended.as_ref().is_some_and(|ended| ended.0 >= since) {
            core.events.push(event::of_step(&subject, entry));
        }
    }
    for hold in status.holds.iter().filter(|hold| hold.since.0 >= since) {
        core.events.push(event::of_hold(&subject, hold));
    }
}
