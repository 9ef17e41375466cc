//! Conditions of the Node: each scenario of the server against reading and writing, in paused time.

use std::{cell::RefCell, time::Duration};

use detector::{
    agent::sink::condition::{
        ConditionWrite, Conditions, Setup, Snapshot,
        deliver::{self, Desk, NodeApi as _},
        kube_node::KubeNode,
    },
    clock::WallClock,
    cluster::Outcome,
    config,
};
use http::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::fake_api::{Asked, FakeApi, Scenario};

const NODE: &str = "/api/v1/nodes/node-a";
const STATUS: &str = "/api/v1/nodes/node-a/status";
const SECOND: Duration = Duration::from_secs(1);

/// Conditions, server and a clock that follows paused time.
struct Rig {
    api: FakeApi,
    desk: Desk,
    started: Instant,
    ended: RefCell<Vec<Outcome>>,
}

impl Rig {
    /// A Node on which these conditions stand.
    fn new(standing: &Value) -> Self {
        let api = FakeApi::new();
        let ready = json!({"type": "Ready", "status": "True"});
        let conditions: Vec<_> = [&ready].into_iter().chain(standing.as_array().into_iter().flatten()).collect();
        let node = json!({"kind": "Node", "metadata": {"name": "node-a"}, "status": {"conditions": conditions}});
        api.put(NODE, node);
        let setup = Setup {
            config: config::Conditions::default(),
            node: "node-a".to_owned(),
            boot_id: "b0071d".to_owned(),
            scan: Some(SECOND * 60),
            wall: WallClock::with_offset(1_767_225_600_000_000_000),
        };
        let mut conditions = Conditions::new(setup, 0);
        conditions.restore(Snapshot::default(), 0);
        Self { api, desk: Desk::new(conditions), started: Instant::now(), ended: RefCell::default() }
    }

    /// Lets the delivery run for so long.
    async fn run(&self, time: Duration) {
        let api = KubeNode::new(self.api.client(), "node-a".to_owned());
        let clock = || u64::try_from(self.started.elapsed().as_nanos()).expect("a time");
        let told = |_: &ConditionWrite, outcome: &Outcome| self.ended.borrow_mut().push(outcome.clone());
        tokio::time::timeout(time, deliver::run(&self.desk, &api, clock, told)).await.expect_err("it never ends");
    }

    /// The status of each condition on the Node, by type.
    fn statuses(&self) -> Vec<(String, String)> {
        let node = self.api.objects(NODE).remove(0);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let conditions = node["status"]["conditions"].as_array().expect("a list").clone();
        conditions.iter().map(|condition| (text(&condition["type"]), text(&condition["status"]))).collect()
    }

    fn is_written(&self) -> bool {
        let ours = [("KernelDeadlock", "False"), ("TaskHung", "False")];
        let statuses = self.statuses();
        ours.iter().all(|(kind, status)| statuses.contains(&((*kind).to_owned(), (*status).to_owned())))
    }

    /// How each request ended: `done`, `later` or `refused`.
    fn results(&self) -> Vec<&'static str> {
        let word = |outcome: &Outcome| match outcome {
            Outcome::Done => "done",
            // A name is never taken here: it is as good as any other failure.
            Outcome::Retry { .. } | Outcome::AlreadyThere => "later",
            _ => "refused",
        };
        self.ended.borrow().iter().map(word).collect()
    }
}

/// The parameters of a request, in the order of their names.
fn query(asked: &Asked) -> Vec<&str> {
    let mut pairs: Vec<_> = asked.query.split('&').filter(|pair| !pair.is_empty()).collect();
    pairs.sort_unstable();
    pairs
}

fn is_read(asked: &Asked) -> bool {
    asked.content_type == "application/merge-patch+json"
}

#[tokio::test(start_paused = true)]
async fn the_node_is_read_by_a_dry_run_and_written_by_an_apply_of_all_types() {
    let rig = Rig::new(&json!([]));
    rig.run(SECOND).await;
    let asked = rig.api.asked();
    let [read, apply] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((&read.method, read.path.as_str()), (&Method::PATCH, STATUS));
    assert_eq!(read.content_type, "application/merge-patch+json");
    assert_eq!(query(read), ["dryRun=All", "fieldManager=detector-agent"]);
    assert_eq!(read.body, json!({}));
    assert_eq!((&apply.method, apply.path.as_str()), (&Method::PATCH, STATUS));
    assert_eq!(apply.content_type, "application/apply-patch+yaml");
    assert_eq!(query(apply), ["fieldManager=detector-agent", "force=true"]);
    let time = "2026-01-01T00:00:00Z";
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": "False", "reason": reason, "message": message,
               "lastHeartbeatTime": time, "lastTransitionTime": time})
    };
    let conditions = [
        condition("KernelDeadlock", "KernelHasNoDeadlock", "kernel has no deadlock"),
        condition("TaskHung", "NoTaskHung", "no task hangs"),
        condition("PreviousBootCrash", "NoPreviousBootCrash", "of the boot before no crash is known"),
    ];
    let expected = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}, "status": {"conditions": conditions},
    });
    assert_eq!(apply.body, expected);
    assert!(rig.statuses().contains(&("Ready".to_owned(), "True".to_owned())), "{:?}", rig.statuses());
}

#[tokio::test(start_paused = true)]
async fn what_stands_true_is_kept_until_two_scans_have_passed() {
    let standing = json!([{"type": "TaskHung", "status": "True", "reason": "TaskHung", "message": "task x hangs"}]);
    let rig = Rig::new(&standing);
    rig.run(SECOND * 119).await;
    assert!(rig.statuses().contains(&("TaskHung".to_owned(), "True".to_owned())), "{:?}", rig.statuses());
    let hung = rig.api.objects(NODE).remove(0)["status"]["conditions"].clone();
    assert!(hung.to_string().contains("stood before the agent started, is being verified: task x hangs"), "{hung}");
    rig.run(SECOND * 2).await;
    assert!(rig.is_written(), "{:?}", rig.statuses());
}

#[rstest]
#[case::conflict(Scenario::Conflict, &["later", "done", "done"])]
#[case::half_a_body(Scenario::HalfABody, &["later", "done", "done"])]
#[case::not_json(Scenario::NotJson, &["later", "done", "done"])]
#[case::gone(Scenario::Gone, &["refused", "done"])]
#[case::unprocessable(Scenario::Unprocessable, &["refused", "done"])]
#[case::forbidden(Scenario::Forbidden, &["later", "done", "done"])]
#[case::no_such_node(Scenario::NoNamespace, &["refused", "done"])]
#[case::too_many(Scenario::TooMany(7), &["later", "done", "done"])]
#[case::server_error(Scenario::ServerError, &["later", "done", "done"])]
#[case::half_an_error(Scenario::HalfAnError, &["later", "done", "done"])]
#[case::unavailable(Scenario::Unavailable(3), &["later", "done", "done"])]
#[case::unauthorized(Scenario::Unauthorized, &["later", "done", "done"])]
#[case::hangs(Scenario::Hangs, &["later", "done", "done"])]
#[case::down(Scenario::Down, &["later", "done", "done"])]
#[case::answer_lost(Scenario::AnswerLost, &["later", "done", "done"])]
#[tokio::test(start_paused = true)]
async fn each_answer_to_the_read_has_its_behaviour(#[case] scenario: Scenario, #[case] results: &[&str]) {
    let rig = Rig::new(&json!([]));
    rig.api.answer_next([scenario]);
    rig.run(SECOND * 60).await;
    assert_eq!(rig.results(), results);
    assert!(rig.is_written(), "{:?}", rig.statuses());
    let read_again = rig.api.asked().iter().filter(|asked| is_read(asked)).count();
    assert_eq!(read_again, results.len() - 1, "without the right to read it writes all the same");
}

#[rstest]
#[case::conflict(Scenario::Conflict, "later")]
#[case::half_a_body(Scenario::HalfABody, "done")]
#[case::not_json(Scenario::NotJson, "done")]
#[case::gone(Scenario::Gone, "refused")]
#[case::unprocessable(Scenario::Unprocessable, "refused")]
#[case::forbidden(Scenario::Forbidden, "later")]
#[case::no_such_node(Scenario::NoNamespace, "refused")]
#[case::too_many(Scenario::TooMany(7), "later")]
#[case::server_error(Scenario::ServerError, "later")]
#[case::half_an_error(Scenario::HalfAnError, "later")]
#[case::unavailable(Scenario::Unavailable(3), "later")]
#[case::unauthorized(Scenario::Unauthorized, "later")]
#[case::hangs(Scenario::Hangs, "later")]
#[case::down(Scenario::Down, "later")]
#[case::answer_lost(Scenario::AnswerLost, "later")]
#[tokio::test(start_paused = true)]
async fn each_answer_to_the_write_has_its_behaviour(#[case] scenario: Scenario, #[case] result: &str) {
    let rig = Rig::new(&json!([]));
    rig.api.answer_next([Scenario::Ok, scenario]);
    rig.run(SECOND * 60).await;
    match result {
        "done" => assert_eq!(rig.results(), ["done", "done"]),
        "later" => assert_eq!(rig.results(), ["done", "later", "done"]),
        refused => {
            assert_eq!(rig.results(), ["done", refused], "a right may be given, but nobody gives it at once");
            rig.run(SECOND * 400).await;
            assert_eq!(rig.results(), ["done", refused, "done"]);
        }
    }
    assert!(rig.is_written(), "{:?}", rig.statuses());
}

#[rstest]
#[case::too_many(Scenario::TooMany(7), 7)]
#[case::unavailable(Scenario::Unavailable(20), 20)]
#[tokio::test(start_paused = true)]
async fn the_server_is_not_asked_before_the_time_it_said(#[case] scenario: Scenario, #[case] seconds: u32) {
    let rig = Rig::new(&json!([]));
    rig.api.answer_next([Scenario::Ok, scenario]);
    rig.run(SECOND * 60).await;
    let asked = rig.api.asked();
    let wait = asked[2].at - asked[1].at;
    assert!((SECOND * seconds..SECOND * seconds * 3 / 2 + SECOND).contains(&wait), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_conditions_are_not_to_be_understood_is_asked_again_and_nothing_is_written_over() {
    let rig = Rig::new(&json!([]));
    rig.api.put(NODE, json!({"kind": "Node", "status": {"conditions": 7}}));
    rig.run(SECOND * 30).await;
    assert!(rig.results().iter().all(|result| *result == "later"), "{:?}", rig.results());
    assert!(rig.api.asked().iter().all(is_read));
    rig.api.put(NODE, json!({"kind": "Node", "status": {}}));
    rig.run(SECOND * 60).await;
    assert!(rig.is_written(), "{:?}", rig.statuses());
}

#[tokio::test(start_paused = true)]
async fn withdrawing_leaves_no_condition_of_ours_whoever_wrote_it() {
    let foreign = json!([{"type": "KernelDeadlock", "status": "True", "reason": "DockerHung", "message": "m"}]);
    let rig = Rig::new(&foreign);
    let node = KubeNode::new(rig.api.client(), "node-a".to_owned());
    assert_eq!(deliver::withdraw(&node).await, Outcome::Done);
    assert_eq!(rig.statuses(), [("Ready".to_owned(), "True".to_owned())]);
    let asked = rig.api.asked();
    assert_eq!(
        (asked[0].content_type.as_str(), query(&asked[0])),
        ("application/apply-patch+yaml", vec!["fieldManager=detector-agent", "force=true"])
    );
    assert_eq!(
        (asked[2].content_type.as_str(), asked[2].path.as_str()),
        ("application/strategic-merge-patch+json", STATUS)
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_that_no_node_can_have_is_refused_without_a_request() {
    let api = FakeApi::new();
    let node = KubeNode::new(api.client(), String::new());
    assert!(matches!(node.apply(&[]).await, Outcome::Final(_)));
    assert!(matches!(node.read().await, Err(Outcome::Final(_))));
    assert_eq!(api.asked().len(), 0);
}
