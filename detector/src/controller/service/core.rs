//! What all parts of the service share on their one thread: what is known, what may be done, what is due.
//!
//! Nothing here is the truth: that is in the API. Whoever loses all of it finds it again there, or hears it again.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use jiff::Timestamp;
use kube::Client;
use tokio::sync::{Notify, mpsc};

use super::{
    agenda::Agenda,
    brakes::Brakes,
    metric::Metrics,
    suspects::Suspects,
    witness::{own::Own, room},
};
use crate::{
    clock::Moments,
    config::controller::ControllerConfig,
    contract::incident::KernelIncident,
    controller::{
        incident::{
            Evidence, Fact, NodeFacts, Testimony,
            hearing::Hearing,
            store::{
                Store,
                known::{Incidents, is_closed},
            },
        },
        leader::Leadership,
        sink::event::deliver::Queue,
        source::{lease::Ask, nodes::Nodes},
    },
    ops::http::Readiness,
};

/// Facts that wait to be put into an incident.
pub(super) const FACTS: usize = 4096;
/// Bytes of all facts that wait, roughly, and half of it while what comes is told by an address alone: an excerpt of a log
/// has up to 32 KiB.
const FACT_BYTES: usize = 16 << 20;
/// What a fact is reckoned at besides its texts.
const FACT_ALONE: usize = 1024;

/// Part of [`Readiness`]: all Nodes are known.
pub(super) const NODES: &str = "nodes";
/// Part of [`Readiness`]: all incidents are known.
pub(super) const INCIDENTS: &str = "incidents";

/// The shared state.
pub(super) struct Core {
    pub(super) client: Client,
    pub(super) store: Store,
    pub(super) moments: Moments,
    /// Name of this replica's pod.
    pub(super) replica: String,
    /// The same in keys and field managers.
    pub(super) witness: String,
    /// Where Lease and brake are.
    pub(super) namespace: String,
    pub(super) config: RefCell<Rc<ControllerConfig>>,
    pub(super) nodes: RefCell<Nodes>,
    pub(super) incidents: RefCell<Incidents>,
    pub(super) hearing: RefCell<Hearing>,
    pub(super) suspects: RefCell<Suspects>,
    pub(super) agenda: RefCell<Agenda>,
    /// Something is due that was not.
    pub(super) due: Notify,
    /// Who is suspected has to be looked at again.
    pub(super) suspicion: Notify,
    pub(super) leadership: Leadership,
    pub(super) brakes: Brakes,
    /// Incidents whose first step is being written down: they use up the budget already.
    pub(super) reserved: RefCell<BTreeSet<String>>,
    /// Whether a namespace opts its pods out, and when ([`crate::clock::Moment::monotonic`]) that was read.
    pub(super) opt_outs: RefCell<BTreeMap<String, (bool, Duration)>>,
    pub(super) events: Queue,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    /// Facts for the task that finds their incident.
    pub(super) facts: mpsc::Sender<Evidence>,
    /// What this replica has to say, for the task that delivers it.
    pub(super) testimonies: mpsc::Sender<(String, Testimony)>,
    /// Whose Lease is to be read; `None`: this replica does not lead.
    pub(super) asks: RefCell<Option<mpsc::Sender<Ask>>>,
    /// Nodes and incidents are all known.
    pub(super) complete: Cell<bool>,
    /// Incidents whose Node has our conditions as Unknown, with the time of the silence.
    pub(super) darkened: RefCell<BTreeSet<(String, Option<Timestamp>)>>,
    pub(super) completed: Notify,
    /// Facts whose incident is being looked for.
    pub(super) unplaced: Cell<usize>,
    /// Bytes of facts that were told and have no incident yet.
    pub(super) fact_bytes: Cell<usize>,
    /// What this replica has said.
    pub(super) own: RefCell<Own>,
}

fn bytes(fact: &Evidence) -> usize {
    FACT_ALONE
        + match &fact.fact {
            Fact::Spoke { log, .. } => log.len(),
            Fact::Found { message, .. } => message.len(),
            _ => 0,
        }
}

impl Core {
    /// By the clock of this replica.
    pub(super) fn wall(&self) -> Timestamp {
        (self.moments)().wall
    }

    /// For deadlines.
    pub(super) fn monotonic(&self) -> Duration {
        (self.moments)().monotonic
    }

    /// The settings in force.
    pub(super) fn config(&self) -> Rc<ControllerConfig> {
        Rc::clone(&self.config.borrow())
    }

    /// The incident as it is known.
    pub(super) fn incident(&self, name: &str) -> Option<KernelIncident> {
        self.incidents.borrow().get(name).cloned()
    }

    /// The Node that `incident` is about; `None`: it is gone, or another one has its name.
    pub(super) fn node_of(&self, incident: &KernelIncident) -> Option<NodeFacts> {
        let nodes = self.nodes.borrow();
        let node = nodes.get(&incident.spec.node)?;
        incident.spec.node_uid.as_ref().is_none_or(|uid| *uid == node.uid).then(|| node.clone())
    }

    /// Has the incident looked at now, if this replica leads; who comes to lead looks at all of them.
    pub(super) fn wake(&self, incident: &KernelIncident) {
        if let Some(name) = incident.metadata.name.as_ref().filter(|_| self.leadership.is_leader()) {
            self.agenda.borrow_mut().wake(name, incident.spec.time.0, self.monotonic());
            self.due.notify_one();
        }
    }

    /// Has all open incidents of `node` looked at now.
    pub(super) fn wake_node(&self, node: &str) {
        let incidents = self.incidents.borrow();
        for incident in incidents.open().filter(|incident| incident.spec.node == node) {
            self.wake(incident);
        }
    }

    /// Hands a fact on; one that finds no room is counted.
    pub(super) fn tell(&self, fact: Evidence) {
        let bytes = self.fact_bytes.get() + bytes(&fact);
        if bytes <= room(&fact, FACT_BYTES) && self.facts.try_send(fact).is_ok() {
            self.fact_bytes.set(bytes);
        } else {
            self.metrics.fact_lost();
        }
    }

    /// A fact that was told waits no more.
    pub(super) fn took(&self, fact: &Evidence) {
        self.fact_bytes.set(self.fact_bytes.get().saturating_sub(bytes(fact)));
    }

    /// Whether all that was heard stands.
    pub(super) fn is_idle(&self) -> bool {
        let waiting = self.facts.max_capacity() - self.facts.capacity();
        let said = self.testimonies.max_capacity() - self.testimonies.capacity();
        waiting == 0 && said == 0 && self.unplaced.get() == 0 && self.own.borrow().is_empty()
    }

    /// A write was answered with this, before the watch tells it.
    pub(super) fn wrote(&self, incident: KernelIncident) {
        self.incidents.borrow_mut().wrote(incident);
    }

    /// Forgets what was kept of incidents that are not open any more.
    pub(super) fn forget(&self) {
        let incidents = self.incidents.borrow();
        let is_open = |name: &str| incidents.get(name).is_some_and(|incident| !is_closed(incident));
        self.darkened.borrow_mut().retain(|(name, _)| is_open(name));
    }

    /// Waits until Nodes and incidents are all known.
    pub(super) async fn is_complete(&self) {
        while !self.complete.get() {
            self.completed.notified().await;
        }
    }

    /// Nodes or incidents were listed to their end.
    pub(super) fn listed(&self) {
        let (nodes, incidents) = (self.nodes.borrow().is_complete(), self.incidents.borrow().is_complete());
        if nodes {
            self.readiness.there(NODES);
        }
        if incidents {
            self.readiness.there(INCIDENTS);
        }
        if nodes && incidents && !self.complete.replace(true) {
            self.completed.notify_waiters();
            // Whoever comes between the look and the wait.
            self.completed.notify_one();
        }
    }
}
