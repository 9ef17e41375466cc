//! Facts → their incident: found or opened, and what this replica heard left there.
//!
//! Facts of one node go one after the other, of several nodes at once: an API server that is slow for one holds up no other.

mod opening;
pub(super) mod own;

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::sleep};
use tracing::{debug, info, warn};

use self::opening::{Held, Openings, is_weak};
use super::{core::Core, turn::facts};
use crate::{
    contract::incident::KernelIncident,
    controller::incident::{
        Evidence, Fact,
        merge::{self, Place},
        store::{Delivered, StoreError, known::is_closed, pace::Pace},
        testimony,
    },
};

/// Facts under way at once.
const AT_ONCE: usize = 16;
/// Facts that wait at most, and half as many of them told by addresses alone; the newest is lost then.
const MAX_WAITING: usize = 4096;
/// Why what an address told is given up.
const TOO_LONG: &str = "too many panics were told by addresses alone, or the node lived when its last one was told";

/// Facts that wait for their turn.
#[derive(Default)]
struct Waiting {
    facts: VecDeque<Evidence>,
    /// Nodes of which a fact is under way.
    busy: BTreeSet<String>,
    pace: Pace,
}

/// What became of a fact that came.
enum Put {
    Kept,
    /// It says all that this one does.
    Instead(Evidence),
    /// There is no room.
    Lost(Evidence),
}

impl Waiting {
    fn put(&mut self, fact: Evidence) -> Put {
        if let Some(known) = self.facts.iter_mut().find(|known| says_all_of(known, &fact)) {
            return Put::Instead(std::mem::replace(known, fact));
        }
        if self.facts.len() >= room(&fact, MAX_WAITING) {
            return Put::Lost(fact);
        }
        self.facts.push_back(fact);
        Put::Kept
    }

    /// Whether one that came later says all that `fact` does.
    fn says_more(&self, fact: &Evidence) -> bool {
        self.facts.iter().any(|later| says_all_of(later, fact))
    }

    fn next(&mut self, now: Duration) -> Option<Evidence> {
        let free = |fact: &Evidence| !self.busy.contains(&fact.node) && self.pace.may(&key(fact), now);
        let place = self.facts.iter().position(free)?;
        let fact = self.facts.remove(place)?;
        self.busy.insert(fact.node.clone());
        Some(fact)
    }

    fn due(&self) -> Option<Duration> {
        let free = self.facts.iter().filter(|fact| !self.busy.contains(&fact.node));
        free.map(|fact| self.pace.until(&key(fact))).min()
    }
}

/// Whether of two facts the later one says all that the other does: what a boot said by now is all that it said before, too;
/// and a node is not silent twice.
fn says_all_of(one: &Evidence, other: &Evidence) -> bool {
    let same = match (&one.fact, &other.fact) {
        (Fact::Spoke { findings, .. }, Fact::Spoke { findings: others, .. }) => {
            findings.panic.is_some() && others.panic.is_some()
        }
        (Fact::LeaseStale { .. }, Fact::LeaseStale { .. }) => true,
        _ => false,
    };
    same && is_weak(one) == is_weak(other) && one.node == other.node && one.boot_id == other.boot_id
}

/// Up to where `fact` may fill a place of this size: what may be forged leaves room for what is proved.
pub(super) fn room(fact: &Evidence, size: usize) -> usize {
    if is_weak(fact) { size / 2 } else { size }
}

/// What waits together: what is proved does not wait because of what may be forged.
fn key(fact: &Evidence) -> String {
    if is_weak(fact) { format!("{} by its address", fact.node) } else { fact.node.clone() }
}

/// Why the incident of a fact is not there.
enum Missing {
    Store(StoreError),
    Held(Held),
}

impl From<StoreError> for Missing {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Takes facts for ever; finds their incidents once Nodes and incidents are known.
pub(super) async fn run(core: &Core, mut facts: mpsc::Receiver<Evidence>) {
    let openings = RefCell::new(Openings::default());
    let (mut waiting, mut under_way) = (Waiting::default(), FuturesUnordered::new());
    let (mut known, mut complete) = (std::pin::pin!(core.is_complete()), false);
    loop {
        core.unplaced.set(waiting.facts.len() + under_way.len());
        let now = core.monotonic();
        while complete
            && under_way.len() < AT_ONCE
            && let Some(fact) = waiting.next(now)
        {
            let openings = &openings;
            under_way.push(async move {
                let found = place(core, openings, &fact).await;
                (fact, found)
            });
        }
        let wait = waiting.due().filter(|_| complete && under_way.len() < AT_ONCE);
        let wait = wait.map(|due| due.saturating_sub(now));
        tokio::select! {
            () = &mut known, if !complete => complete = true,
            fact = facts.recv() => match fact {
                Some(fact) => put(core, &mut waiting, fact),
                None => return,
            },
            Some((fact, found)) = under_way.next(), if !under_way.is_empty() => {
                waiting.busy.remove(&fact.node);
                match found {
                    Ok(incident) => {
                        waiting.pace.ended(&key(&fact));
                        if let Some(incident) = incident {
                            testify(core, &fact, &incident);
                        }
                        core.took(&fact);
                    }
                    Err(missing) => again(core, &mut waiting, fact, missing),
                }
            }
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
}

fn put(core: &Core, waiting: &mut Waiting, fact: Evidence) {
    match waiting.put(fact) {
        Put::Kept => {}
        Put::Instead(before) => core.took(&before),
        Put::Lost(fact) => {
            core.took(&fact);
            core.metrics.fact_lost();
        }
    }
}

/// A fact without an incident waits, unless that is of no use.
fn again(core: &Core, waiting: &mut Waiting, fact: Evidence, missing: Missing) {
    let lost = |reason: &str| {
        warn!(node = fact.node, reason, "an incident cannot be opened");
        core.took(&fact);
        core.metrics.fact_lost();
    };
    let after = match missing {
        Missing::Store(StoreError::Refused(reason)) => return lost(&reason),
        Missing::Held(Held::TooLong) => return lost(TOO_LONG),
        Missing::Store(error) => {
            warn!(node = fact.node, reason = %error, "an incident is not open yet");
            match error {
                StoreError::Later { after, .. } => after,
                _ => None,
            }
        }
        Missing::Held(Held::For(time)) => {
            debug!(node = fact.node, "no incident is opened yet on the word of an address");
            Some(time)
        }
    };
    waiting.pace.failed(&key(&fact), after, core.monotonic());
    if waiting.says_more(&fact) {
        core.took(&fact);
    } else {
        put(core, waiting, fact);
    }
}

/// The incident that `fact` belongs to, opened if need be; `None`: none. Where something of ours stands, it is whole.
async fn place(core: &Core, openings: &RefCell<Openings>, fact: &Evidence) -> Result<Option<KernelIncident>, Missing> {
    let place = {
        let (nodes, incidents) = (core.nodes.borrow(), core.incidents.borrow());
        merge::place(fact, nodes.get(&fact.node), incidents.iter())
    };
    match place {
        Place::Nowhere => Ok(None),
        Place::Existing(name) => {
            let Some(known) = core.incident(&name) else { return Ok(None) };
            if own::is_known(fact, &known, &core.witness) {
                return Ok(None);
            }
            let elsewhere = core.own.borrow().stands_elsewhere(&name, &known, &core.witness);
            if elsewhere && matches!(fact.fact, Fact::Spoke { .. }) {
                return Ok(Some(core.store.read(&name).await?));
            }
            Ok(Some(known))
        }
        Place::New { name, spec } => {
            let found = matches!(fact.fact, Fact::Found { .. });
            let young = core.nodes.borrow().get(&fact.node).is_some_and(|node| facts::is_young(node, core.wall()));
            if found && !young {
                return Ok(None);
            }
            opening::may(core, openings, fact).map_err(Missing::Held)?;
            let incident = core.store.create(&name, &spec).await?;
            core.wrote(incident.clone());
            // It was there, and is not known here yet: the fact gets another one.
            if is_closed(&incident) {
                return Err(StoreError::Changed.into());
            }
            info!(incident = name, node = fact.node, "an incident is open");
            Ok(Some(incident))
        }
    }
}

/// Leaves what this replica heard in `incident`.
fn testify(core: &Core, fact: &Evidence, incident: &KernelIncident) {
    let Some(name) = incident.metadata.name.clone() else { return };
    // What Node and Lease tell the leader adds by itself.
    if matches!(fact.fact, Fact::Spoke { .. }) {
        let (mut own, known) = (core.own.borrow_mut(), core.incidents.borrow());
        own.retain(|name| known.get(name).is_some_and(|incident| !is_closed(incident)));
        let all = own.add(&name, incident, &core.witness, testimony::of(fact, &core.witness));
        if core.testimonies.try_send((name.clone(), all)).is_err() {
            own.forget(&name);
            core.metrics.fact_lost();
        }
    }
    core.wake(incident);
    core.suspicion.notify_one();
}

/// Tells of testimonies that could not be left.
pub(super) async fn delivered(core: &Core, mut told: mpsc::Receiver<Delivered>) {
    while let Some(Delivered { name, result, ended }) = told.recv().await {
        core.metrics.testified(result.is_ok());
        if let Some(testimony) = ended {
            core.own.borrow_mut().ended(&name, &testimony);
        }
        if let Err(error) = result {
            warn!(incident = name, reason = %error, "what was heard is not written into the incident");
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{contract::incident::Confidence, controller::decode::Findings};

    fn fact(node: &str, fact: Fact) -> Evidence {
        Evidence { node: node.to_owned(), at: Timestamp::UNIX_EPOCH, boot_id: None, fact }
    }

    fn told(node: &str, log: &str, author: Confidence) -> Evidence {
        let findings = Findings { panic: Some("x".to_owned()), ..Findings::default() };
        fact(node, Fact::Spoke { findings, author, log: log.to_owned(), lines_missing: 0 })
    }

    fn spoke(node: &str, log: &str) -> Evidence {
        told(node, log, Confidence::High)
    }

    #[test]
    fn what_may_be_forged_takes_neither_the_place_nor_the_room_of_what_is_proved() {
        let mut waiting = Waiting::default();
        assert!(matches!(waiting.put(spoke("a", "proved")), Put::Kept));
        assert!(matches!(waiting.put(told("a", "forged", Confidence::Low)), Put::Kept));
        for number in 0..MAX_WAITING {
            drop(waiting.put(told(&format!("node-{number}"), "forged", Confidence::Low)));
        }
        assert_eq!(waiting.facts.len(), MAX_WAITING / 2);
        assert!(matches!(waiting.put(spoke("b", "proved")), Put::Kept));
        assert_eq!(waiting.next(Duration::ZERO), Some(spoke("a", "proved")));
    }

    #[test]
    fn what_comes_back_takes_the_place_of_nothing_that_says_more() {
        let mut waiting = Waiting::default();
        let first = spoke("a", "one line");
        assert!(matches!(waiting.put(spoke("a", "some lines")), Put::Kept));
        let Put::Instead(before) = waiting.put(spoke("a", "all lines")) else { panic!("it waits beside the other") };
        assert_eq!(before, spoke("a", "some lines"));
        assert!(waiting.says_more(&first) && !waiting.says_more(&spoke("b", "one line")));
        assert_eq!(waiting.next(Duration::ZERO), Some(spoke("a", "all lines")));
        assert!(!waiting.says_more(&first));
    }

    #[test]
    fn a_silence_that_is_told_again_and_again_waits_once_for_each_node() {
        let stale = |node: &str| fact(node, Fact::LeaseStale { renewed: Timestamp::UNIX_EPOCH });
        let mut waiting = Waiting::default();
        for _ in 0..100 {
            drop(waiting.put(stale("a")));
            drop(waiting.put(stale("b")));
        }
        assert_eq!(waiting.facts, [stale("a"), stale("b")]);
    }
}
