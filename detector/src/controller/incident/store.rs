//! The incidents in the API: one watch of all, and every write to them.
//!
//! | write | by whom | how |
//! |---|---|---|
//! | [`Store::create`] | whoever is first | a fixed name: who comes second reads what stands |
//! | [`Store::testify`] | each replica | applied by a manager of its own, all it has to say each time |
//! | [`Store::lead`] | the leader | applied by one manager, all but what replicas own; where a step is written down only if nobody wrote meanwhile |
//! | [`Store::delete`] | the leader | by uid |

pub mod known;
pub mod pace;
pub mod pending;
pub mod retention;
pub mod size;

use std::{borrow::Cow, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use http::Request as HttpRequest;
use k8s_openapi::ClusterResourceScope;
use kube::{
    Client, Resource as _,
    api::{DeleteParams, GetParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
    core::Request,
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::sleep};

use self::{
    known::{IncidentUpdate, WatchedIncident},
    pending::Pending,
};
use super::{Testimony, testimony::LEADER};
use crate::{
    clock::Moments,
    cluster::{
        Outcome, answer,
        watch::{Lists, watch},
    },
    contract::{
        incident::{KernelIncident, KernelIncidentSpec, KernelIncidentStatus, LogExcerpt},
        remediation::FIELD_MANAGER,
    },
};

/// Room for updates before they are taken; the watch is read no faster. An incident has up to 256 KiB.
pub const UPDATES: usize = 16;

/// Incidents of one page, where the server cannot stream its list.
const PAGE: u32 = 20;

/// Bytes of an answer that are read: an incident with what the server adds about its managers.
const INCIDENT_BYTES: usize = 2 << 20;

/// Testimonies that may be under way at once.
const AT_ONCE: usize = 8;

/// Field manager of who opens an incident.
const OPENER: &str = "detector-opener";

/// Field managers of replicas begin so.
const EVIDENCE_MANAGER: &str = "detector-evidence-";

/// Bytes of a replica's name in keys and field managers; those have at most 128 (`ValidateFieldManager`, apimachinery).
const WITNESS_BYTES: usize = 96;

/// Why a write does not stand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote meanwhile: what was to be written was made of an object that is not so any more.
    #[error("the incident has been changed by somebody else")]
    Changed,
    /// It was deleted.
    #[error("there is no such incident")]
    Gone,
    /// Asking again is no use.
    #[error("{0}")]
    Refused(String),
    /// It may stand if asked again.
    #[error("{reason}")]
    Later {
        /// Not before this time.
        after: Option<Duration>,
        /// Why.
        reason: String,
    },
}

/// Name of a replica in keys and field managers: the end of its pod's name, which is what differs.
#[must_use]
pub fn witness(pod: &str) -> String {
    let start = pod.ceil_char_boundary(pod.len().saturating_sub(WITNESS_BYTES));
    pod.get(start..).unwrap_or_default().to_owned()
}

/// Watches all incidents until nobody takes updates any more. Needs the rights to list and watch them.
pub async fn watch_incidents(client: Client, updates: mpsc::Sender<IncidentUpdate>) {
    watch::<WatchedIncident, IncidentUpdate>(client, "", Lists::Pages(PAGE), updates).await;
}

/// Writes incidents.
#[derive(Clone)]
pub struct Store {
    client: Client,
}

impl Store {
    /// A store behind `client`.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Opens the incident `name`; if it stands already, gives what stands. Needs the rights to create and get incidents.
    pub async fn create(&self, name: &str, spec: &KernelIncidentSpec) -> Result<KernelIncident, StoreError> {
        let params = PostParams { field_manager: Some(OPENER.to_owned()), ..PostParams::default() };
        let body = json!({
            "apiVersion": KernelIncident::api_version(&()), "kind": KernelIncident::kind(&()),
            "metadata": { "name": name }, "spec": spec,
        });
        let request = requests().create(&params, body.to_string().into_bytes());
        match self.ask(name, request).await {
            Err(StoreError::Changed) => self.read(name).await,
            result => result.and_then(|body| parse(name, &body)),
        }
    }

    /// Reads an incident past all caches, whole.
    pub async fn read(&self, name: &str) -> Result<KernelIncident, StoreError> {
        parse(name, &self.ask(name, requests().get(name, &GetParams::default())).await?)
    }

    /// Leaves all that `witness` ([`witness()`]) has to say about an incident: what it said before and does not repeat is
    /// gone. Needs the right to patch the incident's status.
    ///
    /// What the server refuses with a log it may take without: no more than [`crate::contract::incident::MAX_LOGS`] fit.
    pub async fn testify(&self, name: &str, witness: &str, testimony: &Testimony) -> Result<(), StoreError> {
        let manager = format!("{EVIDENCE_MANAGER}{witness}");
        let mut testimony = testimony.clone();
        size::fit_testimony(&mut testimony);
        let part = |log: Option<&LogExcerpt>| {
            let mut part = json!({ "evidence": testimony.evidence });
            if let Some(log) = log {
                part["logs"] = json!([log]);
            }
            part
        };
        let log = testimony.log.as_ref();
        match self.apply(name, &manager, None, part(log)).await {
            Err(StoreError::Refused(_)) if log.is_some() => {
                self.apply(name, &manager, None, part(None)).await.map(drop)
            }
            result => result.map(drop),
        }
    }

    /// Leaves what the leader has to say: all of `status` but what replicas told. `seen`: the object that it was made of; it
    /// stands only if nobody has written since, so that of two who believe to lead only one writes a step down.
    ///
    /// For an incident that is closed, `seen` has to be [`Self::read`]: what is kept of it in memory is not all of it.
    pub async fn lead(
        &self,
        seen: &KernelIncident,
        status: &KernelIncidentStatus,
    ) -> Result<KernelIncident, StoreError> {
        let name = seen.metadata.name.as_deref().unwrap_or_default();
        let Some(version) = seen.metadata.resource_version.as_deref() else { return Err(StoreError::Changed) };
        let mut part = leader_part(status);
        size::fit_leader(&mut part);
        let part = serde_json::to_value(&part)
            .map_err(|error| StoreError::Refused(format!("the status of {name} cannot be written: {error}")))?;
        self.apply(name, FIELD_MANAGER, Some(version), part).await
    }

    /// Deletes an incident, if it is still the one with this uid. Needs the right to delete incidents.
    pub async fn delete(&self, name: &str, uid: &str) -> Result<(), StoreError> {
        let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        match self.ask(name, requests().delete(name, &params)).await {
            // Gone, or another one of the same name.
            Ok(_) | Err(StoreError::Gone | StoreError::Changed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Applies a part of the status as `manager`. Keys of lists tell the parts of managers apart, so that force takes nothing
    /// from others.
    async fn apply(
        &self,
        name: &str,
        manager: &str,
        version: Option<&str>,
        status: Value,
    ) -> Result<KernelIncident, StoreError> {
        let mut body = json!({
            "apiVersion": KernelIncident::api_version(&()), "kind": KernelIncident::kind(&()),
            "metadata": { "name": name }, "status": status,
        });
        if let Some(version) = version {
            body["metadata"]["resourceVersion"] = json!(version);
        }
        let params = PatchParams::apply(manager).force();
        let request = requests().patch_subresource("status", name, &params, &Patch::Apply(body));
        parse(name, &self.ask(name, request).await?)
    }

    async fn ask(
        &self,
        name: &str,
        request: Result<HttpRequest<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Vec<u8>, StoreError> {
        let request = request.map_err(|error| {
            StoreError::Refused(format!("a request about the incident {name:?} cannot be made: {error}"))
        })?;
        let (answer, body) = answer::ask(&self.client, request, INCIDENT_BYTES).await;
        let missing = answer::is_missing(&answer, &body, name);
        match answer.outcome {
            Outcome::Done => Ok(body),
            _ if answer.status == Some(409) => Err(StoreError::Changed),
            Outcome::AlreadyThere => Err(StoreError::Changed),
            Outcome::Gone(_) if missing => Err(StoreError::Gone),
            // Something else is not there.
            Outcome::Gone(reason) => Err(StoreError::Later { after: None, reason }),
            Outcome::Retry { after, reason } => Err(StoreError::Later { after, reason }),
            Outcome::Final(reason) => Err(StoreError::Refused(reason)),
        }
    }
}

/// How a testimony ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// Name of the incident.
    pub name: String,
    /// Whether it stands; what may be tried again is, and told each time.
    pub result: Result<(), StoreError>,
    /// What was said, if it will not be tried again.
    pub ended: Option<Testimony>,
}

/// Delivers what `witness` has to say, the latest about each incident, until it stands or cannot stand; ends when
/// `testimonies` is closed and all is delivered, or when nobody takes `told` any more.
pub async fn deliver(
    store: Store,
    witness: String,
    moments: Moments,
    mut testimonies: mpsc::Receiver<(String, Testimony)>,
    told: mpsc::Sender<Delivered>,
) {
    let (mut pending, mut under_way, mut open) = (Pending::default(), FuturesUnordered::new(), true);
    while open || !pending.is_empty() || !under_way.is_empty() {
        let now = moments().monotonic;
        while under_way.len() < AT_ONCE
            && let Some((name, testimony)) = pending.next(now)
        {
            let (store, witness) = (&store, &witness);
            under_way.push(async move {
                let result = store.testify(&name, witness, &testimony).await;
                (name, testimony, result)
            });
        }
        let wait = pending.due().filter(|_| under_way.len() < AT_ONCE).map(|due| due.saturating_sub(now));
        tokio::select! {
            new = testimonies.recv(), if open => match new {
                Some((name, testimony)) => if let Err(ended) = pending.put(name.clone(), testimony) {
                    let result = Err(StoreError::Refused("too much waits to be written already".to_owned()));
                    if told.send(Delivered { name, result, ended: Some(ended) }).await.is_err() {
                        return;
                    }
                },
                None => open = false,
            },
            Some((name, testimony, result)) = under_way.next(), if !under_way.is_empty() => {
                let ended = pending.ended(&name, testimony, &result, moments().monotonic);
                if told.send(Delivered { name, result, ended }).await.is_err() {
                    return;
                }
            }
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
}

impl kube::Resource for WatchedIncident {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KernelIncident::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        KernelIncident::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        KernelIncident::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        KernelIncident::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }
}

fn requests() -> Request {
    Request::new(KernelIncident::url_path(&(), None))
}

/// A write stands by its status alone; without the object that was answered its version is not known.
fn parse(name: &str, body: &[u8]) -> Result<KernelIncident, StoreError> {
    serde_json::from_slice(body).map_err(|error| StoreError::Later {
        after: None,
        reason: format!("the answer about the incident {name} cannot be read: {error}"),
    })
}

/// What of a status the leader owns.
fn leader_part(status: &KernelIncidentStatus) -> KernelIncidentStatus {
    let mut part = KernelIncidentStatus { logs: Vec::new(), ..status.clone() };
    part.evidence.retain(|entry| entry.id.split_once('/').is_some_and(|(witness, _)| witness == LEADER));
    part
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use rstest::rstest;

    use super::*;
    use crate::{
        cluster::{
            fake_server::{Asked, FakeServer, end_of_list, line, moments, now, status},
            watch::Update,
        },
        contract::incident::{
            AffectedPod, Confidence, EvidenceEntry, EvidenceKind, Origin, Phase, StepEntry, StepKind, StepState,
        },
        controller::incident::store::known::{Incidents, SeenIncident},
    };

    fn at(second: i64) -> MicroTime {
        MicroTime(Timestamp::from_second(second).expect("a time"))
    }

    fn spec() -> KernelIncidentSpec {
        KernelIncidentSpec { node: "node-a".to_owned(), node_uid: None, boot_id: None, time: at(1) }
    }

    fn incident(name: &str, version: u64) -> KernelIncident {
        let mut incident = KernelIncident::new(name, spec());
        incident.metadata.uid = Some(format!("u-{name}"));
        incident.metadata.resource_version = Some(version.to_string());
        incident
    }

    fn stands(name: &str, version: u64) -> (u16, String) {
        (200, serde_json::to_string(&incident(name, version)).expect("JSON"))
    }

    fn evidence(id: &str) -> EvidenceEntry {
        EvidenceEntry {
            id: id.to_owned(),
            kind: EvidenceKind::Panic,
            origin: Origin::Netconsole,
            confidence: Confidence::Medium,
            time: at(1),
            message: "x".to_owned(),
            cause: None,
            boot_id: None,
            suspect: None,
        }
    }

    fn log(id: &str) -> LogExcerpt {
        LogExcerpt { id: id.to_owned(), origin: Origin::Netconsole, text: "a\nb\n".to_owned(), lines_missing: 0 }
    }

    fn testimony() -> Testimony {
        Testimony { evidence: vec![evidence("r-0/Panic")], log: Some(log("r-0")) }
    }

    fn store(server: &FakeServer) -> Store {
        Store::new(server.client())
    }

    fn only(server: &FakeServer) -> Asked {
        let asked = server.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].clone()
    }

    const PATH: &str = "/apis/detector.dev/v1alpha1/kernelincidents";

    #[tokio::test(start_paused = true)]
    async fn an_incident_is_opened_by_its_fixed_name() {
        let server = FakeServer::scripted(vec![(201, stands("a", 1).1)]);
        let opened = store(&server).create("a", &spec()).await.expect("an incident");
        assert_eq!(opened.metadata.uid.as_deref(), Some("u-a"));
        let asked = only(&server);
        assert!(asked.method == "POST" && asked.uri.starts_with(PATH), "{asked:?}");
        assert_eq!((&asked.body["metadata"], &asked.body["spec"]["node"]), (&json!({ "name": "a" }), &json!("node-a")));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_second_reads_what_stands() {
        let server = FakeServer::scripted(vec![status(409, "AlreadyExists", "a"), stands("a", 7)]);
        let found = store(&server).create("a", &spec()).await.expect("an incident");
        assert_eq!(found.metadata.resource_version.as_deref(), Some("7"));
        assert!(server.requests()[1].starts_with(&format!("GET {PATH}/a")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_testimony_is_applied_whole_by_a_manager_of_its_own() {
        let server = FakeServer::scripted(vec![stands("a", 2)]);
        store(&server).testify("a", "r-0", &testimony()).await.expect("it stands");
        let asked = only(&server);
        assert!(asked.method == "PATCH" && asked.uri.starts_with(&format!("{PATH}/a/status?")), "{asked:?}");
        assert!(
            asked.uri.contains("force=true") && asked.uri.contains("fieldManager=detector-evidence-r-0"),
            "{asked:?}"
        );
        assert_eq!(asked.content_type, "application/apply-patch+yaml");
        let status = &asked.body["status"];
        assert_eq!(
            status.as_object().map(|fields| fields.keys().cloned().collect()),
            Some(["evidence", "logs"].map(str::to_owned).to_vec())
        );
        assert_eq!(status["logs"][0]["id"], "r-0");
        assert_eq!(asked.body["metadata"], json!({ "name": "a" }), "no version: others write, too");
    }

    #[tokio::test(start_paused = true)]
    async fn where_no_further_log_fits_the_evidence_is_told_without_it() {
        let server = FakeServer::scripted(vec![status(422, "Invalid", "a"), stands("a", 2)]);
        store(&server).testify("a", "r-0", &testimony()).await.expect("it stands");
        assert_eq!(server.asked()[1].body["status"].get("logs"), None);
        let server = FakeServer::new(|_| Some(status(422, "Invalid", "a")));
        let refused = store(&server).testify("a", "r-0", &testimony()).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        assert_eq!(server.asked().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_leader_writes_all_but_what_replicas_own() {
        let server = FakeServer::scripted(vec![stands("a", 8)]);
        let status = KernelIncidentStatus {
            phase: Some(Phase::Dead),
            evidence: vec![evidence("r-0/Panic"), evidence("leader/LeaseStale"), evidence("leaderless/Panic")],
            logs: vec![log("r-0")],
            ..KernelIncidentStatus::default()
        };
        let seen = incident("a", 7);
        store(&server).lead(&seen, &status).await.expect("it stands");
        let first = server.asked()[0].clone();
        assert_eq!(first.body["metadata"], json!({ "name": "a", "resourceVersion": "7" }));
        assert!(
            first.uri.contains("fieldManager=detector-controller&")
                || first.uri.ends_with("fieldManager=detector-controller")
        );
        let written = &first.body["status"];
        assert_eq!(
            written["evidence"].as_array().map(|all| all.iter().map(|one| &one["id"]).collect()),
            Some(vec![&json!("leader/LeaseStale")])
        );
        assert_eq!((written.get("logs"), &written["phase"]), (None, &json!("Dead")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_is_not_written_down_over_what_somebody_else_wrote() {
        let server = FakeServer::scripted(vec![status(409, "Conflict", "a")]);
        let status = KernelIncidentStatus::default();
        assert_eq!(store(&server).lead(&incident("a", 7), &status).await, Err(StoreError::Changed));
        let without_version = KernelIncident::new("a", spec());
        assert_eq!(store(&server).lead(&without_version, &status).await, Err(StoreError::Changed));
        assert_eq!(server.asked().len(), 1, "the second was not even asked for");
    }

    #[rstest]
    #[case::gone(status(404, "NotFound", "a"), StoreError::Gone)]
    #[case::invalid(status(422, "Invalid", "a"), StoreError::Refused("the API server answered 422 Unprocessable Entity: Invalid".to_owned()))]
    #[case::no_definition((404, "404 page not found".to_owned()), StoreError::Later { after: None, reason: "the API server answered 404 Not Found: 404 page not found".to_owned() })]
    #[case::half_an_object((200, "{".to_owned()), StoreError::Later { after: None, reason: "the answer about the incident a cannot be read: EOF while parsing an object at line 1 column 1".to_owned() })]
    #[tokio::test(start_paused = true)]
    async fn what_an_answer_means_for_a_write(#[case] answer: (u16, String), #[case] wanted: StoreError) {
        let server = FakeServer::scripted(vec![answer]);
        assert_eq!(store(&server).read("a").await, Err(wanted));
    }

    #[tokio::test(start_paused = true)]
    async fn an_incident_is_deleted_by_uid() {
        for answer in [(200, "{}".to_owned()), status(404, "NotFound", "a"), status(409, "Conflict", "a")] {
            let server = FakeServer::scripted(vec![answer]);
            store(&server).delete("a", "u-a").await.expect("it is gone");
            let asked = only(&server);
            assert_eq!((asked.method.as_str(), &asked.body["preconditions"]["uid"]), ("DELETE", &json!("u-a")));
        }
    }

    #[test]
    fn a_long_name_of_a_replica_keeps_its_end() {
        let pod = format!("{}-7d9c-x2x5k", "n".repeat(200));
        assert!(witness(&pod).len() <= WITNESS_BYTES && witness(&pod).ends_with("-7d9c-x2x5k"));
        assert_eq!(witness("r-0"), "r-0");
    }

    #[tokio::test(start_paused = true)]
    async fn testimonies_are_delivered_until_they_stand_and_none_starves_the_others() {
        let tries = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tries);
        let server = FakeServer::new(move |asked| match asked.uri.contains("/broken/") {
            true if count.fetch_add(1, Ordering::SeqCst) < 3 => Some(status(503, "Unavailable", "")),
            _ => Some(stands("a", 2)),
        });
        let ((sender, testimonies), (told, mut delivered)) = (mpsc::channel(200), mpsc::channel(200));
        let task = tokio::spawn(deliver(store(&server), "r-0".to_owned(), moments(), testimonies, told));
        let begun = now();
        sender.send(("broken".to_owned(), testimony())).await.unwrap();
        for number in 0..100 {
            sender.send((format!("n-{number}"), testimony())).await.unwrap();
        }
        drop(sender);
        let (mut stand, mut failed) = (Vec::new(), 0);
        while let Some(Delivered { name, result, .. }) = delivered.recv().await {
            match result {
                Ok(()) => stand.push(name),
                Err(StoreError::Later { .. }) => failed += 1,
                Err(error) => panic!("{name}: {error}"),
            }
        }
        task.await.expect("it ends when all is delivered");
        assert_eq!((stand.len(), failed), (101, 3));
        assert_eq!(stand.last().map(String::as_str), Some("broken"));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn incidents_are_watched_and_one_that_cannot_be_read_hides_no_other() {
        let object = |name: &str| serde_json::to_value(incident(name, 3)).expect("JSON");
        let mut strange = object("strange");
        strange["status"] = json!({ "cause": "SomethingNew" });
        let lines =
            [line("ADDED", &object("a")), line("ADDED", &strange), end_of_list(), line("DELETED", &object("a"))];
        let server = FakeServer::scripted(vec![(200, lines.concat())]);
        let (sender, mut updates) = mpsc::channel(UPDATES);
        let task = tokio::spawn(watch_incidents(server.client(), sender));
        let mut incidents = Incidents::default();
        for wanted in [vec![], vec!["a"], vec![], vec![], vec!["a"]] {
            let update = updates.recv().await.expect("an update");
            assert_eq!(incidents.take(update), wanted);
        }
        assert!(incidents.is_complete() && incidents.iter().count() == 0);
        assert_eq!(incidents.unreadable(), 1);
        assert!(server.requests()[0].starts_with(&format!("GET {PATH}?")), "{:?}", server.requests());
        task.abort();
    }

    #[test]
    fn the_part_of_the_leader_may_hold_pods_and_steps() {
        let pod = AffectedPod {
            namespace: "n".to_owned(),
            name: "p".to_owned(),
            uid: "u".to_owned(),
            controller: None,
            left: None,
        };
        let step = StepEntry {
            kind: StepKind::Cordon,
            state: StepState::Intended,
            time: at(1),
            ended: None,
            message: String::new(),
        };
        let status = KernelIncidentStatus { pods: vec![pod], steps: vec![step], ..KernelIncidentStatus::default() };
        assert_eq!(leader_part(&status), status);
        let seen = Update::Seen(SeenIncident::Readable(Box::new(incident("a", 1))));
        assert_eq!(Incidents::default().take(seen), ["a"]);
    }
}
