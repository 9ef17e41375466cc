//! Leader election by a Lease in the controller's namespace: of all replicas at most one leads.
//!
//! ```text
//! read ─▶ candidate (whose is it, has it run out) ─▶ write, if nobody wrote meanwhile ─▶ leads until its deadline
//! ```
//!
//! What a leader asked the server for before its deadline may arrive later than that: whatever two leaders must not both do
//! is guarded by the object's version or does no harm when it is done twice.

pub mod candidate;

use std::{
    hash::{BuildHasher as _, RandomState},
    pin::pin,
    time::Duration,
};

use http::Request as HttpRequest;
use kube::{
    Client,
    api::{GetParams, Patch, PatchParams, PostParams},
    core::Request,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use self::candidate::{Candidate, Record, Timing, Wish};
use crate::{
    clock::Moments,
    cluster::{Outcome, answer},
    contract::remediation::{FIELD_MANAGER, LEADER_LEASE},
};

/// Bytes of a Lease that are read.
const LEASE_BYTES: usize = 64 * 1024;

/// How often a leader can ask before its deadline is over, if no answer comes.
const TRIES: u32 = 2;

/// Shortest wait for a deadline, should timers and clocks differ.
const SHORTEST: Duration = Duration::from_millis(5);

/// What others see of an election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Term {
    leads: bool,
    /// [`crate::clock::Moment::boot`].
    until: Duration,
}

/// Whether this process leads.
#[derive(Clone)]
pub struct Leadership {
    term: watch::Receiver<Term>,
    moments: Moments,
}

impl Leadership {
    /// Whether it leads right now, by the clock: ask again before each step.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        let term = *self.term.borrow();
        term.leads && self.moments.as_ref()().boot < term.until
    }

    /// Waits until it has become leader or has ceased to be; `None`: the election is over.
    pub async fn changed(&mut self) -> Option<bool> {
        self.term.changed().await.ok()?;
        Some(self.term.borrow_and_update().leads)
    }
}

/// One replica's part in the election.
pub struct Election {
    client: Client,
    namespace: String,
    candidate: Candidate,
    timing: Timing,
    moments: Moments,
    term: watch::Sender<Term>,
    /// Why the last try failed, told once.
    trouble: watch::Sender<Option<String>>,
}

impl Election {
    /// Takes part as `pod` in `namespace`. Needs the rights to create, get and patch Leases there.
    #[must_use]
    pub fn new(client: Client, namespace: &str, pod: &str, timing: Timing, moments: Moments) -> Self {
        // A restarted container has its pod's name again, and does not know what the one before was doing.
        let identity = format!("{pod}_{:016x}", random());
        let candidate = Candidate::new(identity, timing);
        let (term, trouble) = (watch::Sender::default(), watch::Sender::default());
        Self { client, namespace: namespace.to_owned(), candidate, timing, moments, term, trouble }
    }

    /// Whether it leads, for all who want to know.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        Leadership { term: self.term.subscribe(), moments: self.moments.clone() }
    }

    /// Why the Lease cannot be read or written, while that is so.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Takes part until `stop` is over, then gives the Lease free.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        {
            let campaign = pin!(self.campaign());
            tokio::select! {
                () = campaign => {}
                () = stop => {}
            }
        }
        self.candidate.resign();
        self.publish();
        self.release().await;
    }

    async fn campaign(&mut self) {
        loop {
            let trouble = self.attempt().await.err();
            self.publish();
            self.trouble.send_if_modified(|told| {
                let differs = *told != trouble;
                *told = trouble;
                differs
            });
            let pause =
                self.timing.retry + self.timing.retry / 5 * u32::try_from(random() % 1_000).unwrap_or(0) / 1_000;
            self.patiently(sleep(pause)).await;
        }
    }

    /// Reads, unless what was written last is known, and writes if it may. A reason in words if the server did not let it.
    async fn attempt(&mut self) -> Result<(), String> {
        let mut known = self.candidate.until((self.moments)()).is_some();
        loop {
            if !known {
                let request = requests(&self.namespace).get(LEADER_LEASE, &GetParams::default());
                let record = match self.ask(request).await {
                    Ok(record) => Some(record),
                    Err((Some(404), _)) => None,
                    Err((_, reason)) => return Err(reason),
                };
                self.candidate.read(record, (self.moments)());
                self.publish();
            }
            let asked = (self.moments)();
            let request = match self.candidate.wish(asked) {
                Wish::Wait => return Ok(()),
                Wish::Create(record) => create(&self.namespace, &record),
                Wish::Write(record) => write(&self.namespace, &record),
            };
            match self.ask(request).await {
                Ok(record) => {
                    self.candidate.wrote(record, asked);
                    return Ok(());
                }
                // Somebody wrote meanwhile, or an earlier write of ours stands whose answer was lost: see who.
                Err((Some(404 | 409), _)) if known => known = false,
                Err((Some(409), _)) => return Ok(()),
                Err((_, reason)) => return Err(reason),
            }
        }
    }

    /// Gives the Lease free. A write that was under way may have changed its version.
    async fn release(&mut self) {
        for _ in 0..TRIES {
            let Some(record) = self.candidate.farewell((self.moments)()) else { return };
            let request = write(&self.namespace, &record);
            if !matches!(self.ask(request).await, Err((Some(409), _))) {
                return;
            }
            let request = requests(&self.namespace).get(LEADER_LEASE, &GetParams::default());
            let Ok(record) = self.ask(request).await else { return };
            self.candidate.read(Some(record), (self.moments)());
        }
    }

    async fn ask(
        &mut self,
        request: Result<HttpRequest<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Record, (Option<u16>, String)> {
        let request = request.map_err(|error| (None, format!("a request about the Lease cannot be made: {error}")))?;
        let (client, patience) = (self.client.clone(), self.timing.renew_deadline / TRIES);
        let asking = timeout(patience, async move { answer::ask(&client, request, LEASE_BYTES).await });
        let Ok((answer, body)) = self.patiently(asking).await else {
            return Err((None, format!("the API server did not answer within {patience:?}")));
        };
        match answer.outcome {
            Outcome::Done => serde_json::from_slice::<Wire>(&body)
                .map(Record::from)
                .map_err(|error| (None, format!("the answer is no Lease: {error}"))),
            Outcome::AlreadyThere => Err((answer.status, "the Lease is there already".to_owned())),
            Outcome::Final(reason) | Outcome::Gone(reason) | Outcome::Retry { reason, .. } => {
                Err((answer.status, reason))
            }
        }
    }

    /// Waits for `work`, and tells of the end of the term when it comes meanwhile.
    async fn patiently<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let now = (self.moments)();
            let left = self.candidate.until(now).map(|until| until.saturating_sub(now.boot).max(SHORTEST));
            tokio::select! {
                done = &mut work => return done,
                () = sleep(left.unwrap_or_default()), if left.is_some() => self.publish(),
            }
        }
    }

    fn publish(&self) {
        let until = self.candidate.until((self.moments)());
        let now = Term { leads: until.is_some(), until: until.unwrap_or_default() };
        // A term that goes on is no news.
        self.term.send_if_modified(|term| {
            let differs = term.leads != now.leads;
            *term = now;
            differs
        });
    }
}

/// From the system's random numbers, by the keys of a hasher.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

fn requests(namespace: &str) -> Request {
    Request::new(format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"))
}

fn spec(record: &Record) -> Value {
    json!({
        "holderIdentity": record.holder, "leaseDurationSeconds": record.seconds, "acquireTime": record.acquired,
        "renewTime": record.renewed, "leaseTransitions": record.transitions,
    })
}

type Asked = Result<HttpRequest<Vec<u8>>, kube::core::request::Error>;

fn create(namespace: &str, record: &Record) -> Asked {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": LEADER_LEASE },
        "spec": spec(record),
    });
    requests(namespace).create(&params, lease.to_string().into_bytes())
}

/// Stands only if the Lease is still the version that was read.
fn write(namespace: &str, record: &Record) -> Asked {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patch = json!({ "metadata": { "resourceVersion": record.version }, "spec": spec(record) });
    requests(namespace).patch(LEADER_LEASE, &params, &Patch::Merge(patch))
}

#[derive(Deserialize)]
struct Wire {
    metadata: Metadata,
    #[serde(default)]
    spec: Option<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    resource_version: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    holder_identity: Option<String>,
    lease_duration_seconds: Option<u64>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    lease_transitions: Option<u64>,
}

impl From<Wire> for Record {
    fn from(wire: Wire) -> Self {
        let spec = wire.spec.unwrap_or_default();
        Self {
            version: wire.metadata.resource_version,
            holder: spec.holder_identity.unwrap_or_default(),
            seconds: spec.lease_duration_seconds.unwrap_or_default(),
            acquired: spec.acquire_time.unwrap_or_default(),
            renewed: spec.renew_time.unwrap_or_default(),
            transitions: spec.lease_transitions.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;
