//! What is kept of real pods, and the watch over a server that says what it is told to say.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use kube::client::Body;
use rstest::rstest;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::*;

const ALL_KINDS: &str = include_str!("../../../../../tests/fixtures/pods/all-kinds.json");
const STATIC: &str = include_str!("../../../../../tests/fixtures/pods/static.json");
const PENDING: &str = include_str!("../../../../../tests/fixtures/pods/pending.json");

fn facts(json: &str) -> PodFacts {
    serde_json::from_str::<WatchedPod>(json).unwrap().into_facts()
}

#[test]
fn containers_of_all_kinds_are_known_and_so_is_the_one_that_was_killed() {
    let facts = facts(ALL_KINDS);
    assert_eq!((facts.namespace.as_str(), facts.name.as_str()), ("shop", "web-7d9c-x2x5k"));
    assert_eq!((facts.uid.as_str(), facts.config_hash), ("170c6c76-520e-48c0-8a57-93936dad7835", None));
    let short: Vec<(&str, &str)> = facts.containers.iter().map(|(id, name)| (&id[..4], name.as_str())).collect();
    assert_eq!(short, [("33bf", "migrate"), ("545e", "app"), ("a172", "app"), ("35ed", "debugger-x7f2k")]);
    assert!(facts.containers.iter().all(|(id, _)| id.len() == 64));
}

#[test]
fn a_static_pod_tells_the_uid_that_its_path_has() {
    let facts = facts(STATIC);
    assert_eq!(facts.uid, "100780d3-e0df-473c-8f7b-1258b336bbde");
    assert_eq!(facts.config_hash.as_deref(), Some("2053dbbf6ec7135c4e994d3464c478db"));
    assert_eq!(facts.containers[0].1, "etcd");
}

#[test]
fn a_pod_without_containers_and_one_with_nothing_at_all_are_pods() {
    assert_eq!(facts(PENDING).containers, []);
    assert_eq!(facts("{}"), PodFacts::default());
    let empty =
        r#"{"metadata": {"annotations": null}, "status": {"containerStatuses": [{"name": "a", "containerID": ""}]}}"#;
    assert_eq!(facts(empty), PodFacts::default());
}

/// What a server does with a request.
#[derive(Clone)]
enum Answer {
    Says(u16, String),
    /// Nobody listens.
    Absent,
}

impl From<(u16, String)> for Answer {
    fn from((status, body): (u16, String)) -> Self {
        Self::Says(status, body)
    }
}

/// Answers request after request as told, and after the last as `always`, or not at all.
#[derive(Clone)]
struct Fake {
    next: Arc<Mutex<VecDeque<Answer>>>,
    always: Option<Answer>,
    /// When each came, and what was asked.
    asked: Arc<Mutex<Vec<(Duration, String)>>>,
    started: Instant,
}

impl tower_service::Service<Request<Body>> for Fake {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.asked.lock().unwrap().push((self.started.elapsed(), request.uri().to_string()));
        let answer = self.next.lock().unwrap().pop_front().or_else(|| self.always.clone());
        Box::pin(async move {
            match answer {
                Some(Answer::Says(status, body)) => {
                    Ok(Response::builder().status(status).body(Body::from(body.into_bytes())).unwrap())
                }
                Some(Answer::Absent) => Err(io::ErrorKind::ConnectionRefused.into()),
                None => std::future::pending().await,
            }
        })
    }
}

/// The runtime's time, which stands still while anything is to do.
fn now() -> Instant {
    sleep(Duration::ZERO).deadline()
}

/// A watch over such a server.
struct Server {
    fake: Fake,
    watch: JoinHandle<()>,
    updates: mpsc::Receiver<PodUpdate>,
}

impl Server {
    fn start(answers: Vec<(u16, String)>) -> Self {
        Self::start_and(answers, None)
    }

    fn start_and(answers: Vec<(u16, String)>, always: Option<Answer>) -> Self {
        let next = Arc::new(Mutex::new(answers.into_iter().map(Answer::from).collect()));
        let fake = Fake { next, always, asked: Arc::default(), started: now() };
        let (sender, updates) = mpsc::channel(UPDATES);
        let client = Client::new(fake.clone(), "default");
        let watch = tokio::spawn(watch_pods(client, "node-a".to_owned(), sender));
        Self { fake, watch, updates }
    }

    /// The next update in short.
    async fn next(&mut self) -> String {
        match self.updates.recv().await.expect("an update") {
            PodUpdate::ListBegins => "begins".to_owned(),
            PodUpdate::Seen(facts) => format!("seen {}", facts.name),
            PodUpdate::Gone { uid } => format!("gone {}", &uid[..4]),
            PodUpdate::ListEnds => "ends".to_owned(),
            PodUpdate::Refused { reason } => format!("refused {reason}"),
            PodUpdate::Failed { reason } => format!("failed {reason}"),
        }
    }

    async fn expect(&mut self, updates: &[&str]) {
        for update in updates {
            assert_eq!(self.next().await, *update);
        }
    }

    /// Takes updates for so long; the failures among them.
    async fn failures_within(&mut self, time: Duration) -> usize {
        let (until, mut failures) = (now() + time, 0);
        while let Ok(Some(update)) = tokio::time::timeout_at(until, self.updates.recv()).await {
            failures += usize::from(matches!(update, PodUpdate::Refused { .. } | PodUpdate::Failed { .. }));
        }
        failures
    }

    fn requests(&self) -> Vec<String> {
        self.fake.asked.lock().unwrap().iter().map(|(_, request)| request.clone()).collect()
    }

    /// Times between two requests that follow each other.
    fn gaps(&self) -> Vec<Duration> {
        self.fake.asked.lock().unwrap().windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// A line of a watch.
fn line(kind: &str, object: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{}}}\n", object.replace('\n', " "))
}

fn end_of_list() -> String {
    let mark = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}"#;
    line("BOOKMARK", mark)
}

fn status(code: u16, reason: &str) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"{reason}","reason":"{reason}","code":{code}}}"#
    )
}

/// All of a list in one.
fn list(pods: &str) -> (u16, String) {
    (200, format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"5"}},"items":[{pods}]}}"#))
}

/// A streamed list.
fn streamed() -> (u16, String) {
    (200, [line("ADDED", STATIC), end_of_list()].concat())
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_list_is_streamed_and_watched_on() {
    let lines = [line("ADDED", PENDING), end_of_list(), line("MODIFIED", ALL_KINDS), line("DELETED", STATIC)];
    let mut server = Server::start(vec![(200, lines.concat())]);
    server.expect(&["begins", "seen web-7d9c-x2x5k", "ends", "seen web-7d9c-x2x5k", "gone 1007"]).await;
    let request = server.requests()[0].clone();
    assert!(request.starts_with("/api/v1/pods?"), "{request}");
    assert!(request.contains("fieldSelector=spec.nodeName%3Dnode-a") && request.contains("sendInitialEvents=true"));
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn without_the_right_that_is_told_once_and_asked_ever_more_seldom(#[values(401, 403)] code: u16) {
    let mut server = Server::start_and(Vec::new(), Some(Answer::Says(code, status(code, "Refused"))));
    assert!(server.next().await.starts_with("refused "));
    assert_eq!(server.failures_within(600 * MINUTE).await, 0);
    let gaps = server.gaps();
    assert!((1..=2).contains(&gaps[0].as_secs()) && gaps[..8].is_sorted(), "{gaps:?}");
    let longest = gaps.iter().max().unwrap();
    assert!((300..=600).contains(&longest.as_secs()) && gaps.len() < 130, "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_a_moment_costs_a_moment() {
    let mut server = Server::start(vec![(403, status(403, "Forbidden")), streamed()]);
    assert!(server.next().await.starts_with("refused "));
    server.expect(&["begins", "seen etcd-node-a", "ends"]).await;
    assert!(server.fake.started.elapsed() <= Duration::from_secs(2));
}

#[rstest]
#[case::an_old_server((422, status(422, "Invalid")), 0)]
#[case::one_that_takes_no_such_parameter((400, status(400, "BadRequest")), 0)]
#[case::an_old_storage((200, line("ERROR", &status(500, "InternalError"))), 1)]
#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_stream_lists_is_asked_for_what_its_cache_has(
    #[case] refusal: (u16, String),
    #[case] begun: usize,
) {
    let pods = format!("{PENDING},{STATIC}");
    let mut server = Server::start(vec![refusal, list(&pods), (200, line("DELETED", STATIC))]);
    server.expect(&["begins"][..begun]).await;
    server.expect(&["begins", "seen web-7d9c-x2x5k", "seen etcd-node-a", "ends", "gone 1007"]).await;
    let requests = server.requests();
    // Without the version the server reads the pods of all nodes from its storage.
    assert!(requests[1].contains("resourceVersion=0") && !requests[1].contains("limit="), "{requests:?}");
    assert!(requests[2].contains("watch=true&") && requests[2].contains("resourceVersion=5"), "{requests:?}");
}

#[rstest]
#[case::that_starts((503, "not ready".to_owned()))]
#[case::that_is_broken((500, status(500, "InternalError")))]
#[case::that_has_much_to_do((429, status(429, "TooManyRequests")))]
#[tokio::test(start_paused = true)]
async fn a_server_is_asked_for_a_stream_again(#[case] first: (u16, String)) {
    let mut server = Server::start(vec![first, streamed()]);
    while server.next().await != "ends" {}
    let requests = server.requests();
    assert!(requests.len() == 2 && requests[1].contains("sendInitialEvents=true"), "{requests:?}");
}

#[rstest]
#[case::by_streams(Vec::new())]
#[case::by_lists(vec![(422, status(422, "Invalid"))])]
#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_is_asked_ever_more_seldom(#[case] first: Vec<(u16, String)>) {
    let mut server = Server::start_and(first, Some(Answer::Absent));
    assert_eq!(server.failures_within(10 * MINUTE).await, 1);
    // Some eight until the pauses are longest, then two a minute at most.
    assert!((10..=30).contains(&server.requests().len()), "{:?}", server.gaps());
    assert!(server.gaps().last().unwrap().as_secs() >= 15, "{:?}", server.gaps());
}

#[tokio::test(start_paused = true)]
async fn after_a_list_the_pauses_are_short_again() {
    let absent = || (503, "half a body".to_owned());
    let mut answers: Vec<(u16, String)> = (0..8).map(|_| absent()).collect();
    answers.extend([streamed(), absent(), streamed()]);
    let mut server = Server::start(answers);
    while server.next().await != "ends" {}
    let before = server.gaps();
    assert!(before[7] >= Duration::from_secs(15), "{before:?}");
    assert!(server.next().await.starts_with("failed "));
    server.expect(&["seen etcd-node-a"]).await;
    assert!(*server.gaps().last().unwrap() <= Duration::from_secs(2), "{:?}", server.gaps());
}

#[rstest]
#[case::before_the_list_ends(Vec::new())]
#[case::after_it(vec![streamed()])]
#[tokio::test(start_paused = true)]
async fn a_watch_that_is_closed_at_once_begins_anew_after_a_second(#[case] first: Vec<(u16, String)>) {
    let mut server = Server::start_and(first, Some(Answer::Says(200, String::new())));
    assert_eq!(server.failures_within(MINUTE).await, 0);
    let gaps = server.gaps();
    assert!(gaps.len() >= 55 && gaps.iter().all(|gap| *gap >= Duration::from_secs(1)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_became_too_old_begins_anew() {
    let first = [line("ADDED", STATIC), end_of_list(), line("ERROR", &status(410, "Expired"))].concat();
    let mut server = Server::start(vec![(200, first), (200, [line("ADDED", PENDING), end_of_list()].concat())]);
    server.expect(&["begins", "seen etcd-node-a", "ends", "begins", "seen web-7d9c-x2x5k", "ends"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_tried_again_and_that_is_told_once() {
    let first = (500, status(500, "InternalError"));
    let second = (503, "half a body".to_owned());
    let mut server = Server::start(vec![streamed(), first, second, (200, line("DELETED", STATIC))]);
    server.expect(&["begins", "seen etcd-node-a", "ends"]).await;
    assert!(server.next().await.starts_with("failed "));
    server.expect(&["gone 1007"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_watch_ends_when_nobody_takes_updates_any_more() {
    let mut server = Server::start(vec![streamed()]);
    server.updates.close();
    (&mut server.watch).await.expect("it ends by itself");
}
