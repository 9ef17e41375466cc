//! The Leases of suspected nodes in `kube-node-lease`: read on suspicion, never watched.
//!
//! 5,000 Leases renewed every 10 s would be 500 events a second for each who watches them; a few suspects cost what they
//! are:
//!
//! | what was read | read again |
//! |---|---|
//! | a value that may be renewed yet | twice while the kubelet renews it once, and at the moment at which it is stale |
//! | a value that is stale | the later the longer it stands; at once when its Node changes ([`Ask::Follow`]) |
//! | nothing, or no answer | after `PACE` |

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use kube::{Client, api::GetParams, core::Request};
use serde::Deserialize;
use tokio::{sync::mpsc, time::sleep};

use crate::{
    clock::{Moment, Moments},
    cluster::{Outcome, answer},
};

/// After this time a Lease is read again that could not be read or is missing.
const PACE: Duration = Duration::from_secs(5);

/// Reads while the kubelet renews once.
const READS: u32 = 2;

/// A stale value is read again after this part of the time for which it stands, and after [`LONGEST`] renewals at most.
const PART: u32 = 8;
const LONGEST: u32 = 12;

/// Shortest time between two reads: with more than a hundred suspects each has its turn less often.
const APART: Duration = Duration::from_millis(20);

/// Reads that may be under way at once.
const AT_ONCE: usize = 16;

/// Suspects that are followed at once; whoever comes then is told to be unread.
pub const MAX_SUSPECTS: usize = 1_000;

/// Room for readings before they are taken.
pub const READINGS: usize = 64;

/// Bytes of a Lease that are read; it has some 800.
const LEASE_BYTES: usize = 64 * 1024;

/// `leaseDurationSeconds` where a Lease tells none (kubelet's default).
const DURATION: u32 = 40;

/// The kubelet renews four times in `leaseDurationSeconds` (`nodeLeaseRenewIntervalFraction`, `pkg/kubelet/kubelet.go`).
const RENEWALS: u32 = 4;

/// Renewals that are missed surely before a Lease is called stale.
pub const STALE_AFTER: u32 = 2;

/// Shortest interval that is believed: with a shorter one a delay on the way would look like a missed renewal.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(2_500);

/// Where the Leases of nodes are.
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// What is known of a node's Lease in `kube-node-lease`. Judged by the time for which nobody saw it change, never by the
/// node's clock against ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseView {
    /// It could not be read.
    Unread,
    /// There is none.
    Missing,
    /// It was read.
    Seen {
        /// `spec.renewTime`.
        renewed: Timestamp,
        /// For how long this replica has seen this value and no other.
        unchanged: Duration,
        /// How often the kubelet renews it: a quarter of `spec.leaseDurationSeconds` (kubelet's
        /// `nodeLeaseRenewIntervalFraction`), 10 s by default.
        interval: Duration,
    },
}

impl LeaseView {
    /// Renewals that were missed, surely: whole intervals without a change, less a tenth of one each for delays on the way.
    #[must_use]
    pub fn missed(&self) -> u32 {
        match *self {
            Self::Seen { unchanged, interval, .. } if !interval.is_zero() => {
                u32::try_from(unchanged.as_millis() / surely(interval).as_millis().max(1)).unwrap_or(u32::MAX)
            }
            _ => 0,
        }
    }
}

/// Time after which a renewal is missed: the interval and a tenth, in whole milliseconds.
#[must_use]
pub fn surely(interval: Duration) -> Duration {
    Duration::from_millis(u64::try_from(interval.as_millis() * 11 / 10).unwrap_or(u64::MAX))
}

/// What a read of a Lease said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It could not be read.
    Unread {
        /// Why.
        reason: String,
    },
    /// There is none.
    Missing,
    /// It is there.
    There {
        /// `spec.renewTime`, by the node's clock.
        renewed: Timestamp,
        /// How often it is renewed.
        interval: Duration,
    },
}

/// One read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Name of the Node.
    pub node: String,
    /// When the server was asked: what it answered was so then or later.
    pub asked: Moment,
    /// When the answer was here: what it says was so by then.
    pub answered: Moment,
    /// What it said.
    pub lease: Lease,
}

/// Who is to be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Read the Lease of this node now, and again and again. Asked once more, it is read at once unless a read is under way,
    /// and goes on as before.
    Follow(String),
    /// No more.
    Leave(String),
}

/// Reads the Lease of `node` once, past all caches. Needs the right to get Leases in `kube-node-lease`.
pub async fn read_lease(client: &Client, node: &str, moments: &Moments) -> Reading {
    read(client, node.to_owned(), moments).await.0
}

/// Reads the Leases of those that are to be followed, each at its pace, until nobody asks or takes any more.
pub async fn follow(client: Client, moments: Moments, mut asks: mpsc::Receiver<Ask>, readings: mpsc::Sender<Reading>) {
    let mut round = Round::default();
    let mut under_way: FuturesUnordered<BoxFuture<'_, (Reading, Option<Duration>)>> = FuturesUnordered::new();
    loop {
        let now = moments().monotonic;
        let wait = round.next().filter(|_| under_way.len() < AT_ONCE).map(|next| next.saturating_sub(now));
        tokio::select! {
            ask = asks.recv() => match ask {
                Some(Ask::Follow(node)) => if !round.follow(&node, now) {
                    let moment = moments();
                    let reason = format!("{MAX_SUSPECTS} other nodes are suspected");
                    let reading = Reading { node, asked: moment, answered: moment, lease: Lease::Unread { reason } };
                    if readings.send(reading).await.is_err() {
                        return;
                    }
                },
                Some(Ask::Leave(node)) => round.leave(&node),
                None => return,
            },
            Some((reading, later)) = under_way.next(), if !under_way.is_empty() => {
                round.answered(&reading, later);
                if readings.send(reading).await.is_err() {
                    return;
                }
            }
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => {
                if let Some(node) = round.begin(moments().monotonic) {
                    under_way.push(Box::pin(read(&client, node, &moments)));
                }
            }
        }
    }
}

/// The reading, and when to ask again if the server said so.
async fn read(client: &Client, node: String, moments: &Moments) -> (Reading, Option<Duration>) {
    let asked = moments();
    let unread = |reason: String| Lease::Unread { reason };
    let (lease, later) = match Request::new(LEASES).get(&node, &GetParams::default()) {
        Err(error) => (unread(format!("a request about the Lease of {node:?} cannot be made: {error}")), None),
        Ok(request) => {
            let (answer, body) = answer::ask(client, request, LEASE_BYTES).await;
            let missing = answer::is_missing(&answer, &body, &node);
            match answer.outcome {
                _ if missing => (Lease::Missing, None),
                Outcome::Done => (meaning(&body, &node), None),
                Outcome::Retry { after, reason } => (unread(reason), after),
                Outcome::Final(reason) | Outcome::Gone(reason) => (unread(reason), None),
                Outcome::AlreadyThere => (unread("the API server answered 409 to a read".to_owned()), None),
            }
        }
    };
    (Reading { node, asked, answered: moments(), lease }, later)
}

#[derive(Deserialize)]
struct Wire {
    metadata: Metadata,
    spec: Option<Spec>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    renew_time: Option<String>,
    lease_duration_seconds: Option<u32>,
}

fn meaning(body: &[u8], node: &str) -> Lease {
    let unread = |reason: &str| Lease::Unread { reason: reason.to_owned() };
    let Ok(wire) = serde_json::from_slice::<Wire>(body) else { return unread("the answer is no Lease") };
    if wire.metadata.name != node {
        return unread("the answer is another node's Lease");
    }
    let Some(spec) = wire.spec else { return unread("the Lease is empty") };
    match spec.renew_time.and_then(|time| time.parse().ok()) {
        Some(renewed) => {
            let seconds = spec.lease_duration_seconds.unwrap_or(DURATION);
            let interval = Duration::from_secs(u64::from(seconds)) / RENEWALS;
            Lease::There { renewed, interval: interval.max(SHORTEST_INTERVAL) }
        }
        // Somebody made it who is no kubelet: that tells nothing of the node.
        None => unread("the Lease tells no time of renewal"),
    }
}

/// Who is read next. Each waits for its turn; nobody is read twice at the same time.
#[derive(Default)]
struct Round {
    turns: BTreeMap<String, Turn>,
    begun: Option<Duration>,
}

/// One who is followed.
struct Turn {
    /// When it is due; `None`: a read is under way.
    due: Option<Duration>,
    /// The value that was read last, and when it was read first.
    stands: Option<(Timestamp, Duration)>,
}

impl Turn {
    /// How long to wait after this reading: until there may be something new to see.
    fn wait(&mut self, reading: &Reading) -> Duration {
        let Lease::There { renewed, interval } = reading.lease else { return PACE };
        let now = reading.answered.monotonic;
        let (_, first) =
            *self.stands.insert(self.stands.filter(|(value, _)| *value == renewed).unwrap_or((renewed, now)));
        let (stood, stale, pace) = (now.saturating_sub(first), surely(interval) * STALE_AFTER, interval / READS);
        match stale.checked_sub(stood) {
            Some(left) if !left.is_zero() => pace.min(left),
            _ => pace.max(stood / PART).min(interval * LONGEST),
        }
    }
}

impl Round {
    fn follow(&mut self, node: &str, now: Duration) -> bool {
        if let Some(turn) = self.turns.get_mut(node) {
            turn.due = turn.due.map(|due| due.min(now));
        } else if self.turns.len() < MAX_SUSPECTS {
            self.turns.insert(node.to_owned(), Turn { due: Some(now), stands: None });
        } else {
            return false;
        }
        true
    }

    fn leave(&mut self, node: &str) {
        self.turns.remove(node);
    }

    fn first(&self) -> Option<(Duration, &String)> {
        self.turns.iter().filter_map(|(node, turn)| Some((turn.due?, node))).min()
    }

    /// When somebody may be read.
    fn next(&self) -> Option<Duration> {
        let due = self.first()?.0;
        Some(self.begun.map_or(due, |begun| due.max(begun + APART)))
    }

    fn begin(&mut self, now: Duration) -> Option<String> {
        let node = self.first()?.1.clone();
        self.begun = Some(now);
        self.turns.get_mut(&node)?.due = None;
        Some(node)
    }

    /// `later`: the server wants to be asked no sooner than after this time.
    fn answered(&mut self, reading: &Reading, later: Option<Duration>) {
        if let Some(turn) = self.turns.get_mut(&reading.node) {
            let wait = turn.wait(reading);
            turn.due = Some(reading.answered.monotonic.saturating_add(later.unwrap_or(wait)));
        }
    }
}

#[cfg(test)]
mod tests;
