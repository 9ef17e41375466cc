//! What the leader does besides: whose Lease is looked at, whose turn it is, what is deleted.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::pending,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, info, warn};

use super::{
    core::Core,
    retell::retell,
    suspects::Charge,
    turn::{self, Trouble, facts, status},
};
use crate::{
    contract::incident::KernelIncident,
    controller::{
        incident::{
            Evidence, Fact, Ready,
            merge::{self, Place},
            store::{
                pace::Pace,
                retention::{Retention, surplus},
            },
        },
        sink::event::Event,
        source::lease::{self, Reading},
    },
};

/// Turns under way at once, each with up to eight requests about pods: who died first shares the API server with so many others.
const TURNS: usize = 8;
/// After a write that did not stand because somebody else wrote: replicas tell what they hear.
const AT_ONCE: Duration = Duration::from_millis(20);
/// Whose Lease is to be read; the reader takes them at once.
const ASKS: usize = 16_384;
/// How often it is looked for what has to be deleted, and who is silent.
const SWEEP: Duration = Duration::from_secs(10);
/// Closed incidents that are deleted in one sweep.
const DELETED_AT_ONCE: usize = 32;

/// Leads whenever this replica is the leader, for ever.
pub(super) async fn run(core: &Core) {
    let mut leadership = core.leadership.clone();
    core.is_complete().await;
    loop {
        if core.leadership.is_leader() {
            info!("leads");
            core.metrics.leads(true);
            let mut term = core.leadership.clone();
            let over = async {
                while core.leadership.is_leader() {
                    if term.changed().await.is_none() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = over => {}
                () = term_of(core) => {}
            }
            end(core);
            info!("leads no more");
        }
        if leadership.changed().await.is_none() {
            return;
        }
    }
}

fn end(core: &Core) {
    core.metrics.leads(false);
    core.metrics.events(core.events.counts());
    *core.asks.borrow_mut() = None;
    core.suspects.borrow_mut().clear();
    core.agenda.borrow_mut().clear();
    core.reserved.borrow_mut().clear();
    core.darkened.borrow_mut().clear();
}

async fn term_of(core: &Core) {
    let (asks, asked) = mpsc::channel(ASKS);
    let (told, mut readings) = mpsc::channel(lease::READINGS);
    *core.asks.borrow_mut() = Some(asks);
    begin(core);
    let reader = lease::follow(core.client.clone(), core.moments.clone(), asked, told);
    let looking = async {
        loop {
            tokio::select! {
                reading = readings.recv() => match reading {
                    Some(reading) => take(core, &reading),
                    None => return,
                },
                () = core.suspicion.notified() => suspect(core),
            }
        }
    };
    let now = || core.monotonic();
    let told = |event: &Event, reason: &str| debug!(namespace = event.namespace, reason, "an event was not written");
    let events = core.events.deliver(&core.client, &now, &told);
    tokio::select! {
        () = reader => {}
        () = looking => {}
        () = turns(core) => {}
        () = sweep(core) => {}
        () = async {
            retell(core).await;
            pending::<()>().await;
        } => {}
        never = events => match never {},
    }
}

/// All that another leader may have left.
fn begin(core: &Core) {
    let incidents = core.incidents.borrow();
    incidents.open().for_each(|incident| core.wake(incident));
    let mut of_node: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for incident in incidents.iter() {
        of_node.entry(&incident.spec.node).or_default().push(incident);
    }
    for node in core.nodes.borrow().iter() {
        let Some(found) = facts::found(node) else { continue };
        let own = of_node.get(node.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        if merge::place(&found, Some(node), own.iter().copied()) != Place::Nowhere {
            core.tell(found);
        }
    }
    core.suspicion.notify_one();
}

/// Chooses whose Lease is read: nodes with an open incident, and those that the control plane gave up.
fn suspect(core: &Core) {
    let (nodes, incidents) = (core.nodes.borrow(), core.incidents.borrow());
    let open: BTreeSet<String> = incidents.open().map(|incident| incident.spec.node.clone()).collect();
    let mut suspects = core.suspects.borrow_mut();
    let now = core.monotonic();
    let asks = suspects.choose(&open, &nodes, now);
    for incident in incidents.open() {
        suspects.accuse(&incident.spec.node, Charge::of(incident), now);
    }
    core.metrics.suspects(suspects.len());
    core.metrics.incidents(incidents.iter());
    if let Some(reader) = &*core.asks.borrow() {
        for ask in asks {
            // What finds no room comes again with the next sweep.
            if reader.try_send(ask.clone()).is_err() {
                warn!("more Leases are to be read than the reader can take now");
                break;
            }
            suspects.asked(&ask);
        }
    }
}

fn take(core: &Core, reading: &Reading) {
    if let lease::Lease::Unread { reason } = &reading.lease {
        debug!(node = reading.node, reason, "a Lease cannot be read");
    }
    let news = core.suspects.borrow_mut().take(reading);
    for node in &news {
        core.wake_node(node);
        silent(core, node, reading.answered.wall);
    }
    if !news.is_empty() {
        // Samples may not be needed any more.
        core.suspicion.notify_one();
    }
}

/// A node that the control plane gave up and whose Lease stands still is dead, or not to be heard: an incident.
fn silent(core: &Core, name: &str, now: Timestamp) {
    let nodes = core.nodes.borrow();
    let Some(node) = nodes.get(name).filter(|node| node.ready == Ready::Unknown) else { return };
    // An incident of a boot before this one is not about this silence.
    let before = |incident: &KernelIncident| {
        let boots = incident.spec.boot_id.as_deref().zip(node.boot_id.as_deref());
        boots.is_some_and(|(died, now)| died != now)
    };
    if core.incidents.borrow().open().any(|incident| incident.spec.node == *name && !before(incident)) {
        return;
    }
    let suspects = core.suspects.borrow();
    let told = suspects.evidence(name, None, false).into_iter().find_map(|one| match one.fact {
        Fact::LeaseStale { renewed } if suspects.is_silent(name) => Some(renewed),
        _ => None,
    });
    if let Some(renewed) = told {
        let fact = Fact::LeaseStale { renewed };
        core.tell(Evidence { node: name.to_owned(), at: now, boot_id: None, fact });
    }
}

type Ended = (String, Result<Option<Timestamp>, Trouble>);

/// Gives incidents their turns.
async fn turns(core: &Core) {
    let mut under_way: FuturesUnordered<LocalBoxFuture<'_, Ended>> = FuturesUnordered::new();
    let (reread, mut pace) = (RefCell::new(BTreeSet::new()), Pace::default());
    loop {
        let now = core.monotonic();
        while under_way.len() < TURNS && core.leadership.is_leader() {
            let Some(name) = core.agenda.borrow_mut().next(now) else { break };
            let anew = reread.borrow_mut().remove(&name);
            under_way.push(
                async move {
                    let ended = turn::turn(core, &name, anew).await;
                    (name, ended)
                }
                .boxed_local(),
            );
        }
        let due = core.agenda.borrow().due().filter(|_| under_way.len() < TURNS);
        let wait = due.map(|due| due.saturating_sub(core.monotonic()));
        tokio::select! {
            Some((name, ended)) = under_way.next(), if !under_way.is_empty() => {
                let again = match ended {
                    Ok(again) => {
                        pace.ended(&name);
                        let now = core.moments.as_ref()();
                        again.map(|at| now.monotonic + status::until(at, now.wall).max(Duration::from_millis(50)))
                    }
                    Err(Trouble { after, reason }) => {
                        debug!(incident = name, reason, "is looked at again");
                        reread.borrow_mut().insert(name.clone());
                        let now = core.monotonic();
                        match after {
                            Some(Duration::ZERO) => Some(now + AT_ONCE),
                            after => Some(pace.failed(&name, after, now)),
                        }
                    }
                };
                core.agenda.borrow_mut().ended(&name, again);
                core.metrics.events(core.events.counts());
            }
            () = core.due.notified() => {}
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
}

/// Deletes incidents that are kept no longer, and looks for who is silent.
async fn sweep(core: &Core) {
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        core.metrics.events(core.events.counts());
        core.suspicion.notify_one();
        core.forget();
        // Without an open incident nobody else looks, and the metric would stay as it was.
        core.brakes.look(core, false).await;
        let lost: Vec<String> = {
            let nodes = core.nodes.borrow();
            nodes.iter().filter(|node| node.ready == Ready::Unknown).map(|node| node.name.clone()).collect()
        };
        for node in lost {
            silent(core, &node, core.wall());
        }
        let config = core.config();
        let retention = Retention {
            age: config.retention.age,
            number: usize::try_from(config.retention.number).unwrap_or(usize::MAX),
        };
        let over = surplus(core.incidents.borrow().iter(), retention, core.wall());
        for incident in over.into_iter().take(DELETED_AT_ONCE) {
            // The term ends when that is told: the Lease may be renewed in this very moment.
            if !core.leadership.is_leader() {
                break;
            }
            match core.store.delete(&incident.name, &incident.uid).await {
                Ok(()) => debug!(incident = incident.name, "is kept no longer"),
                Err(error) => {
                    warn!(incident = incident.name, reason = %error, "an old incident cannot be deleted");
                    break;
                }
            }
        }
    }
}
