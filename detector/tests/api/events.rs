//! Delivery of events: each scenario of the server, in paused time, and the whole client on a loopback port.

use std::{cell::RefCell, time::Duration};

use detector::{
    agent::sink::{
        event::{
            Events,
            deliver::{Ended, Handle},
        },
        report::{KillReport, RecordId, Subject},
    },
    cluster::{self, Identity, client},
    config,
    contract::metric::WriteResult,
};
use rstest::rstest;
use tokio::time::Instant;

use super::fake_api::{FakeApi, Scenario};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events/";
const SECOND: Duration = Duration::from_secs(1);

fn kill(sequence: u64, pod: &str, boot_ns: u64) -> KillReport {
    KillReport {
        id: RecordId { boot_id: "b0071d".to_owned(), cpu: 1, sequence },
        time_us: 1_767_225_600_000_000 + i64::try_from(boot_ns / 1000).expect("a time"),
        boot_ns,
        subject: Subject {
            namespace: Some("shop".to_owned()),
            pod: Some(pod.to_owned()),
            pod_uid: Some(format!("uid-of-{pod}")),
            container: Some("app".to_owned()),
            container_id: Some("8d1f6c2e9a7b".to_owned()),
            ..Subject::default()
        },
        process: "child".to_owned(),
        limit: "container".to_owned(),
        limit_bytes: Some(64 << 20),
        comm: Some("worker".to_owned()),
        pid: Some(4242),
        namespace_pid: Some(7),
        memory_bytes: Some(64 << 20),
        incident: sequence,
        victim: 1,
        group_kill: false,
    }
}

/// Queue, server and a clock that follows paused time.
struct Rig {
    api: FakeApi,
    handle: Handle,
    started: Instant,
    ended: RefCell<Vec<(WriteResult, Option<Duration>)>>,
}

impl Rig {
    fn new() -> Self {
        let identity = Identity { node: "node-a".to_owned(), node_uid: None };
        let events = Events::new(config::Events::default(), identity, "b0071d");
        Self { api: FakeApi::new(), handle: Handle::new(events), started: Instant::now(), ended: RefCell::default() }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).expect("a time") + 1_000_000_000
    }

    fn kill(&self, sequence: u64, pod: &str) {
        let now_ns = self.now_ns();
        self.handle.kill(&kill(sequence, pod, now_ns), now_ns);
    }

    /// Lets the delivery run for so long.
    async fn run(&self, time: Duration) {
        self.run_with(&self.api.client(), time).await;
    }

    async fn run_with(&self, client: &kube::Client, time: Duration) {
        let told = |ended: &Ended<'_>| self.ended.borrow_mut().push((ended.outcome.into(), ended.delay));
        let clock = || self.now_ns();
        tokio::time::timeout(time, self.handle.deliver(client, &clock, &told)).await.expect_err("it never ends");
    }

    fn results(&self) -> Vec<WriteResult> {
        self.ended.borrow().iter().map(|(result, _)| *result).collect()
    }

    /// Sum of all counts that the server holds.
    fn held(&self) -> u64 {
        self.api.objects(EVENTS).iter().map(|event| event["series"]["count"].as_u64().unwrap_or(1)).sum()
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_is_written_at_once_and_its_delay_told() {
    let rig = Rig::new();
    rig.kill(1, "cart");
    rig.run(SECOND).await;
    assert_eq!(rig.held(), 1);
    assert_eq!(*rig.ended.borrow(), [(WriteResult::Done, Some(Duration::ZERO))]);
    let asked = &rig.api.asked()[0];
    assert_eq!((asked.path.as_str(), asked.content_type.as_str()), (EVENTS.trim_end_matches('/'), "application/json"));
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_few_writes_and_the_whole_count() {
    let rig = Rig::new();
    for sequence in 0..1000 {
        rig.kill(sequence, "cart");
    }
    rig.run(SECOND * 60).await;
    assert_eq!(rig.held(), 1000);
    assert_eq!(rig.results(), [WriteResult::Done], "all was known before the first write");
    for sequence in 1000..2000 {
        rig.kill(sequence, "cart");
        rig.run(Duration::from_millis(1)).await;
    }
    rig.run(SECOND * 130).await;
    assert_eq!(rig.held(), 2000);
    assert!(rig.api.asked().len() <= 4, "{:?}", rig.results());
}

#[rstest]
#[case::conflict(Scenario::Conflict, &[WriteResult::AlreadyThere])]
#[case::half_a_body(Scenario::HalfABody, &[WriteResult::Done])]
#[case::not_json(Scenario::NotJson, &[WriteResult::Done])]
#[case::gone(Scenario::Gone, &[WriteResult::Final])]
#[case::unprocessable(Scenario::Unprocessable, &[WriteResult::Final])]
#[case::terminating(Scenario::Terminating, &[WriteResult::Gone])]
#[case::no_namespace(Scenario::NoNamespace, &[WriteResult::Gone])]
#[case::forbidden(Scenario::Forbidden, &[WriteResult::Retry, WriteResult::Done])]
#[case::not_ready(Scenario::NotReady, &[WriteResult::Retry, WriteResult::Done])]
#[case::too_many(Scenario::TooMany(7), &[WriteResult::Retry, WriteResult::Done])]
#[case::server_error(Scenario::ServerError, &[WriteResult::Retry, WriteResult::Done])]
#[case::half_an_error(Scenario::HalfAnError, &[WriteResult::Retry, WriteResult::Done])]
#[case::unavailable(Scenario::Unavailable(3), &[WriteResult::Retry, WriteResult::Done])]
#[case::unauthorized(Scenario::Unauthorized, &[WriteResult::Retry, WriteResult::Done])]
#[case::hangs(Scenario::Hangs, &[WriteResult::Retry, WriteResult::Done])]
#[case::down(Scenario::Down, &[WriteResult::Retry, WriteResult::Done])]
#[case::answer_lost(Scenario::AnswerLost, &[WriteResult::Retry, WriteResult::AlreadyThere])]
#[tokio::test(start_paused = true)]
async fn each_answer_has_its_behaviour(#[case] scenario: Scenario, #[case] results: &[WriteResult]) {
    let rig = Rig::new();
    rig.api.answer_next([scenario]);
    rig.kill(1, "cart");
    rig.run(SECOND * 60).await;
    assert_eq!(rig.results(), results);
    let refused = u64::from(results == [WriteResult::Final]);
    assert_eq!(rig.handle.counts().dropped, refused);
    assert_eq!(rig.handle.counts().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn the_server_is_not_asked_before_the_time_it_said() {
    let rig = Rig::new();
    rig.api.answer_next([Scenario::TooMany(7)]);
    rig.kill(1, "cart");
    rig.run(SECOND * 60).await;
    let asked = rig.api.asked();
    let wait = asked[1].at - asked[0].at;
    assert!((Duration::from_secs(7)..Duration::from_millis(10_500)).contains(&wait), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_and_forbids_for_a_while_is_told_everything_once() {
    let rig = Rig::new();
    rig.api.answer_all(Scenario::Down);
    for pod in 0..5 {
        rig.kill(pod, &format!("pod-{pod}"));
    }
    rig.run(SECOND * 300).await;
    rig.api.answer_all(Scenario::NotReady);
    rig.run(SECOND * 20).await;
    rig.api.answer_all(Scenario::Ok);
    rig.run(SECOND * 60).await;
    assert_eq!((rig.held(), rig.handle.counts().dropped, rig.handle.counts().waiting), (5, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_namespace_whose_webhook_fails_delays_no_event_of_others() {
    let rig = Rig::new();
    rig.api.answer_all(Scenario::ServerError);
    rig.kill(1, "poison");
    rig.run(SECOND * 100).await;
    let asked = rig.api.asked().len();
    assert!((4..=12).contains(&asked), "it waits longer and longer: {asked} times");
    rig.api.answer_all(Scenario::Ok);
    rig.kill(2, "cart");
    rig.run(SECOND / 2).await;
    let told = rig.api.objects(EVENTS);
    assert!(told.iter().any(|event| event["regarding"]["name"] == "cart"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn of_an_event_that_was_there_already_nobody_knows_how_late_it_came() {
    let rig = Rig::new();
    rig.api.answer_next([Scenario::AnswerLost]);
    rig.kill(1, "cart");
    rig.run(SECOND * 10).await;
    assert_eq!(*rig.ended.borrow(), [(WriteResult::Retry, None), (WriteResult::AlreadyThere, None)]);
}

#[tokio::test(start_paused = true)]
async fn after_ten_minutes_without_a_server_everything_arrives_with_its_true_time() {
    let rig = Rig::new();
    rig.api.answer_all(Scenario::Down);
    for minute in 0..10 {
        rig.kill(minute, &format!("pod-{minute}"));
        rig.kill(100 + minute, "cart");
        rig.run(SECOND * 60).await;
    }
    let asked = rig.api.asked().len();
    assert!(asked <= 40, "an absent server is asked rarely: {asked} times");
    rig.api.answer_all(Scenario::Ok);
    rig.run(SECOND * 180).await;
    assert_eq!(rig.held(), 20);
    let events = rig.api.objects(EVENTS);
    assert_eq!(events.len(), 11);
    for event in events {
        let name = event["regarding"]["name"].as_str().expect("a name");
        let time = event["eventTime"].as_str().expect("a time");
        let minute = name.strip_prefix("pod-").unwrap_or("0");
        assert!(time.starts_with(&format!("2026-01-01T00:0{minute}:01.")), "{name} at {time}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_expired_comes_back_with_its_whole_count() {
    let rig = Rig::new();
    rig.kill(1, "cart");
    rig.run(SECOND).await;
    let name = rig.api.objects(EVENTS)[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    rig.api.remove(&format!("{EVENTS}{name}"));
    rig.kill(2, "cart");
    rig.run(SECOND * 10).await;
    assert_eq!(rig.results(), [WriteResult::Done, WriteResult::Gone, WriteResult::Done]);
    assert_eq!(rig.held(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_in_the_middle_of_a_write_leaves_it_to_the_next() {
    let rig = Rig::new();
    rig.api.answer_next([Scenario::Hangs]);
    rig.kill(1, "cart");
    rig.run(SECOND).await;
    let identity = Identity { node: "node-a".to_owned(), node_uid: None };
    let text = serde_json::to_string(&rig.handle.snapshot()).expect("JSON");
    let snapshot = serde_json::from_str(&text).expect("JSON of ours");
    let events = Events::restore(config::Events::default(), identity, "b0071d", snapshot, rig.now_ns());
    let next = Rig { handle: Handle::new(events), ..rig };
    next.run(SECOND).await;
    assert_eq!(next.held(), 1);
}

#[tokio::test]
async fn the_whole_client_writes_over_a_connection_and_names_itself() {
    let rig = Rig::new();
    let address = rig.api.listen().await;
    let url = format!("http://{address}").parse().expect("a URL");
    let client = client::client(kube::Config::new(url)).expect("a client");
    rig.api.answer_next([Scenario::HalfABody]);
    rig.kill(1, "cart");
    rig.kill(2, "shop");
    let done = async {
        while rig.held() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = rig.run_with(&client, SECOND * 10) => panic!("not written in time"),
        () = done => {}
    }
    assert_eq!(rig.held(), 2);
    let expected = concat!("detector/", env!("CARGO_PKG_VERSION"));
    assert!(rig.api.asked().iter().all(|asked| asked.user_agent == expected), "{:?}", rig.api.asked());
}

#[tokio::test]
async fn a_half_error_over_a_connection_is_told_by_its_status_code() {
    let api = FakeApi::new();
    api.answer_all(Scenario::HalfAnError);
    let url = format!("http://{}", api.listen().await).parse().expect("a URL");
    let client = client::client(kube::Config::new(url)).expect("a client");
    let request = http::Request::post("/apis/x").body(b"{}".to_vec()).expect("a request");
    let answer = cluster::send(&client, request).await;
    assert_eq!(answer.status, Some(500));
    assert!(matches!(answer.outcome, cluster::Outcome::Retry { .. }), "{answer:?}");
}
