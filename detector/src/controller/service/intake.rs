//! What every replica takes in: datagrams, Nodes, incidents.

use std::{collections::BTreeMap, io, time::Duration};

use tokio::{sync::mpsc, time::sleep};
use tracing::warn;

use super::{core::Core, turn::facts};
use crate::{
    clock::{WallClock, boot_ns},
    cluster::watch::Update,
    contract::metric::controller::incidents::LeftOut,
    controller::{
        incident::{
            NodeFacts,
            store::known::{IncidentUpdate, MAX_INCIDENTS, SeenIncident, is_closed},
        },
        source::{
            netconsole::Receiver,
            nodes::{NodeChange, NodeUpdate},
        },
    },
};

/// How often the clocks are compared and the kernel is asked what it dropped, while datagrams come; and once after the last.
const LOOK_AROUND: Duration = Duration::from_secs(10);

fn boot_now() -> Duration {
    Duration::from_nanos(boot_ns())
}

/// Hears what kernels say, until the socket breaks.
///
/// # Errors
///
/// The socket broke.
pub(super) async fn hear(core: &Core, mut receiver: Receiver) -> io::Result<()> {
    let (mut told, mut wall, mut looked) = (Vec::new(), WallClock::measure(), Duration::ZERO);
    // Datagrams came since: there may be some that the kernel dropped.
    let mut unseen = false;
    core.metrics.buffer(receiver.buffer_bytes());
    loop {
        let look = unseen.then(|| looked + LOOK_AROUND);
        let due = core.hearing.borrow().due().into_iter().chain(look).min();
        let wait = due.map(|due| due.saturating_sub(boot_now()));
        let now = tokio::select! {
            read = receiver.receive(|datagram| core.hearing.borrow_mut().hear(datagram, &mut told)) => {
                unseen = true;
                read?
            }
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => {
                let now = boot_now();
                core.hearing.borrow_mut().tick(now, &mut told);
                now
            }
        };
        if now.saturating_sub(looked) >= LOOK_AROUND {
            (looked, unseen) = (now, false);
            let mut hearing = core.hearing.borrow_mut();
            if wall.is_off() {
                wall = WallClock::measure();
                hearing.set_wall(wall);
            }
            if let Some(dropped) = receiver.kernel_dropped() {
                hearing.set_kernel_dropped(dropped);
            }
        }
        core.metrics.heard(core.hearing.borrow().samples());
        told.drain(..).for_each(|fact| core.tell(fact));
    }
}

/// Tells what was heard by now and not told: the program ends.
pub(super) fn finish(core: &Core) {
    let mut told = Vec::new();
    core.hearing.borrow_mut().finish(boot_now(), &mut told);
    told.into_iter().for_each(|fact| core.tell(fact));
}

/// Takes what the watch of Nodes tells.
pub(super) async fn nodes(core: &Core, mut updates: mpsc::Receiver<NodeUpdate>) {
    while let Some(update) = updates.recv().await {
        let ends = matches!(update, Update::ListEnds);
        if let Update::Refused { reason } | Update::Failed { reason } = &update {
            warn!(reason, "Nodes are not watched");
        }
        let changes = core.nodes.borrow_mut().take(update);
        core.metrics.left_out(LeftOut::Node, core.nodes.borrow().passed_over());
        for change in changes {
            node(core, change);
        }
        if ends {
            core.listed();
        }
    }
}

fn node(core: &Core, change: NodeChange) {
    let (name, before) = match change {
        NodeChange::Went { before } => {
            core.hearing.borrow_mut().remove_node(&before.name);
            core.wake_node(&before.name);
            core.suspicion.notify_one();
            return;
        }
        NodeChange::Came { name, before } => (name, before),
        NodeChange::Changed { name, before } => (name, Some(before)),
    };
    let nodes = core.nodes.borrow();
    let Some(node) = nodes.get(&name) else { return };
    core.hearing.borrow_mut().upsert_node(node);
    if differs(before.as_ref(), node) {
        core.wake_node(&name);
        core.suspicion.notify_one();
    }
    let news = before.as_ref().is_none_or(|before| before.found != node.found);
    if news && core.leadership.is_leader() {
        facts::found(node).into_iter().for_each(|found| core.tell(found));
    }
}

/// Whether something changed that an incident depends on.
fn differs(before: Option<&NodeFacts>, node: &NodeFacts) -> bool {
    let without = |node: &NodeFacts| NodeFacts { addresses: Vec::new(), secret_sha256: None, ..node.clone() };
    before.is_none_or(|before| without(before) != without(node))
}

/// Takes what the watch of incidents tells.
pub(super) async fn incidents(core: &Core, mut updates: mpsc::Receiver<IncidentUpdate>) {
    let mut nodes: BTreeMap<String, String> = BTreeMap::new();
    while let Some(update) = updates.recv().await {
        let ends = matches!(update, Update::ListEnds);
        match &update {
            Update::Refused { reason } | Update::Failed { reason } => warn!(reason, "incidents are not watched"),
            Update::Seen(SeenIncident::Unreadable { name, reason }) => {
                warn!(incident = name, reason, "an incident cannot be read: nothing is done of it");
            }
            _ => {}
        }
        let changed = core.incidents.borrow_mut().take(update);
        {
            let incidents = core.incidents.borrow();
            core.metrics.left_out(LeftOut::Incident, incidents.passed_over());
            core.metrics.left_out(LeftOut::UnreadableIncident, incidents.unreadable());
        }
        for name in changed {
            incident(core, &mut nodes, &name);
        }
        if ends {
            core.listed();
        }
        // Those that were closed and gave way to others.
        if nodes.len() > MAX_INCIDENTS {
            nodes.retain(|name, _| core.incidents.borrow().get(name).is_some());
        }
    }
}

fn incident(core: &Core, nodes: &mut BTreeMap<String, String>, name: &str) {
    let incidents = core.incidents.borrow();
    let node = match incidents.get(name) {
        Some(incident) => {
            nodes.insert(name.to_owned(), incident.spec.node.clone());
            if core.leadership.is_leader() && !is_closed(incident) {
                core.wake(incident);
            }
            Some(incident.spec.node.clone())
        }
        None => nodes.remove(name),
    };
    if let Some(node) = node {
        let open = incidents.open().any(|incident| incident.spec.node == node);
        core.hearing.borrow_mut().set_open(&node, open);
        core.suspicion.notify_one();
    }
}
