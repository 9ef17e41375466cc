//! One turn of one incident, by the leader: what all evidence amounts to is written down, then steps are planned, written
//! down, taken and written down, until one waits or none is left.
//!
//! Everything is made anew from the object and from what Node and Lease tell, each time: a turn that was cut off anywhere is
//! gone through again.

pub(super) mod act;
mod book;
mod darken;
pub(super) mod facts;
mod pods;
pub(super) mod status;

use std::time::Duration;

use jiff::Timestamp;
use tracing::{info, warn};

use self::{book::Book, facts::Look, pods::Listed, status::Material};
use super::{core::Core, suspects::Charge};
use crate::{
    contract::incident::{KernelIncident, KernelIncidentStatus, Phase},
    controller::{
        incident::{
            NodeFacts,
            store::{StoreError, known::is_closed},
            weigh::Weight,
        },
        remediation::pods::Target,
        source::nodes,
    },
};

/// An incident that was opened, and whose evidence is still on its way, is left alone for this time.
const UNSAID: Duration = Duration::from_secs(10);

/// Conditions of the node that could not be written are tried again after this time.
const CONDITIONS_AGAIN: Duration = Duration::from_secs(15);

/// Why a turn was not gone through to its end.
#[derive(Debug)]
pub(super) struct Trouble {
    /// When to try again at the earliest; zero: at once, somebody else wrote meanwhile.
    pub(super) after: Option<Duration>,
    pub(super) reason: String,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        let after = match &error {
            StoreError::Later { after, .. } => *after,
            StoreError::Changed => Some(Duration::ZERO),
            _ => None,
        };
        Self { after, reason: error.to_string() }
    }
}

/// Goes through the turn of the incident `name`; when it is due again by time alone.
pub(super) async fn turn(core: &Core, name: &str, reread: bool) -> Result<Option<Timestamp>, Trouble> {
    if reread {
        match core.store.read(name).await {
            Ok(incident) => core.wrote(incident),
            // The watch tells it as well.
            Err(StoreError::Gone) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    core.reserved.borrow_mut().remove(name);
    let Some(incident) = core.incident(name) else { return Ok(None) };
    if is_closed(&incident) {
        return late(core, name).await;
    }
    if let Some(wait) = unsaid(core, &incident) {
        return Ok(Some(wait));
    }
    let mut turn = Turn {
        core,
        node: core.node_of(&incident),
        listed: None,
        ended: false,
        gone: Vec::new(),
        book: Book::new(core, incident),
        again: None,
    };
    turn.assess().await?;
    turn.act().await?;
    if turn.ended {
        // It may be what the incident was kept open for, and nobody wakes us for our own writes.
        turn.assess().await?;
    }
    if !darken::darken(core, &turn.book.incident(), turn.node.as_ref()).await {
        turn.wait(CONDITIONS_AGAIN);
    }
    Ok(turn.again)
}

/// Whoever opened the incident has not said yet why: there is nothing to assess until then, or until it seems that nobody
/// will.
fn unsaid(core: &Core, incident: &KernelIncident) -> Option<Timestamp> {
    let said = incident.status.as_ref().is_some_and(|status| !status.evidence.is_empty());
    let node = &incident.spec.node;
    let silent = core.suspects.borrow().is_silent(node);
    let found = core.nodes.borrow().get(node).is_some_and(|node| node.found.is_some());
    let until = incident.spec.time.0.checked_add(UNSAID).ok()?;
    (!said && !silent && !found && core.wall() < until).then_some(until)
}

/// What came after it was closed is still written down.
async fn late(core: &Core, name: &str) -> Result<Option<Timestamp>, Trouble> {
    let whole = core.store.read(name).await?;
    let node = core.nodes.borrow().get(&whole.spec.node).cloned();
    let Some(evidence) = node.as_ref().and_then(|node| facts::late(&whole, node)) else { return Ok(None) };
    let config = core.config();
    let heard = node.is_some_and(|node| node.secret_sha256.is_some());
    let material = Material { incident: &whole, evidence, pods: None, heard, policy: &config.policy, now: core.wall() };
    let (status, _) = status::made(material);
    Book::new(core, whole).leave(&status).await?;
    Ok(None)
}

/// A turn under way.
pub(super) struct Turn<'a> {
    core: &'a Core,
    book: Book<'a>,
    node: Option<NodeFacts>,
    /// The node's pods, if this turn has listed them.
    listed: Option<Listed>,
    /// A step has ended in this turn.
    ended: bool,
    /// Pods that a step may have removed before this turn.
    gone: Vec<Target>,
    /// When it is due again by time alone.
    again: Option<Timestamp>,
}

impl Turn<'_> {
    fn name(&self) -> String {
        self.book.incident().metadata.name.unwrap_or_default()
    }

    fn node_name(&self) -> String {
        self.book.incident().spec.node
    }

    fn soon(&mut self, at: Option<Timestamp>) {
        self.again = match (self.again, at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    fn wait(&mut self, time: Duration) {
        self.soon(self.core.wall().checked_add(time).ok());
    }

    /// Writes down what all evidence amounts to, if that is news.
    async fn assess(&mut self) -> Result<(), Trouble> {
        let incident = self.book.incident();
        let known = incident.status.as_ref().is_some_and(|status| status.pod_count.is_some());
        if !known && self.listed.is_none() {
            self.list().await;
        }
        let (mut made, mut again) = self.made(&incident);
        let closes = made.phase == Some(Phase::Closed);
        if closes && Weight::of(&made.evidence).refuted() {
            // For good: what the Node says now counts, not what the watch told some time ago.
            self.node = self.read_node().await.map_err(|reason| Trouble { after: None, reason })?;
            (made, again) = self.made(&incident);
        }
        self.soon(again);
        let before = incident.status.unwrap_or_default();
        if before == made {
            return Ok(());
        }
        if before.phase != made.phase {
            let (name, node) = (self.name(), self.node_name());
            info!(incident = name, node, phase = ?made.phase, cause = ?made.cause, "{}", made.message.as_deref().unwrap_or(""));
        }
        Ok(self.book.leave(&made).await?)
    }

    fn made(&mut self, incident: &KernelIncident) -> (KernelIncidentStatus, Option<Timestamp>) {
        let (now, config) = (self.core.wall(), self.core.config());
        let lease = {
            let boot = incident.spec.boot_id.as_deref();
            let same = self.node.as_ref().is_some_and(|node| boot.is_some() && node.boot_id.as_deref() == boot);
            let mut suspects = self.core.suspects.borrow_mut();
            suspects.accuse(&incident.spec.node, Charge::of(incident), self.core.monotonic());
            suspects.evidence(&incident.spec.node, boot, same)
        };
        let (evidence, looked) = facts::evidence(&Look { incident, node: self.node.as_ref(), lease, now });
        let heard = self.node.as_ref().is_some_and(|node| node.secret_sha256.is_some());
        let pods = self.listed.as_ref().map(|listed| listed.affected.clone());
        let pods = pods.filter(|_| incident.status.as_ref().is_none_or(|status| status.pod_count.is_none()));
        let material = Material { incident, evidence, pods, heard, policy: &config.policy, now };
        let (made, again) = status::made(material);
        (made, [looked, again].into_iter().flatten().min())
    }

    async fn list(&mut self) {
        match pods::list(self.core, &self.node_name(), false).await {
            Ok(listed) => self.listed = Some(listed),
            Err(outcome) => {
                warn!(node = self.node_name(), reason = pods::why(&outcome), "the pods of the node cannot be listed");
                self.listed = None;
                self.wait(Duration::from_secs(2));
            }
        }
    }

    async fn read_node(&self) -> Result<Option<NodeFacts>, String> {
        let incident = self.book.incident();
        let read = nodes::read_node(&self.core.client, &incident.spec.node).await;
        let read = read.map_err(|outcome| pods::why(&outcome))?;
        Ok(read.filter(|node| incident.spec.node_uid.as_ref().is_none_or(|uid| *uid == node.uid)))
    }
}
