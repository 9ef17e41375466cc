//! Reads of Leases over a server in memory.

use std::collections::BTreeMap;

use rstest::rstest;
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;
use crate::cluster::fake_server::{Asked, BEGIN, FakeServer, moments, now, status};

fn lease(name: &str, spec: &serde_json::Value) -> String {
    json!({ "kind": "Lease", "metadata": { "name": name, "namespace": "kube-node-lease" }, "spec": spec }).to_string()
}

const RENEWED: &str = "2026-11-22T12:00:00.123456Z";

fn name(asked: &Asked) -> String {
    asked.uri.rsplit('/').next().unwrap_or_default().trim_end_matches('?').to_owned()
}

/// A server with a good Lease for everybody.
fn good() -> FakeServer {
    FakeServer::new(|asked| {
        Some((200, lease(&name(asked), &json!({ "renewTime": RENEWED, "leaseDurationSeconds": 40 }))))
    })
}

fn unread(lease: &Lease) -> bool {
    matches!(lease, Lease::Unread { .. })
}

#[tokio::test(start_paused = true)]
async fn one_lease_is_read_by_its_name() {
    let server = good();
    let reading = read_lease(&server.client(), "node-a", &moments()).await;
    let renewed = RENEWED.parse().unwrap();
    assert_eq!(reading.lease, Lease::There { renewed, interval: Duration::from_secs(10) });
    let path = "GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-a";
    assert!(server.requests()[0].starts_with(path), "{:?}", server.requests());
}

#[rstest]
#[case::default_duration(json!({ "renewTime": RENEWED }), 10_000)]
#[case::a_long_one(json!({ "renewTime": RENEWED, "leaseDurationSeconds": 120 }), 30_000)]
#[case::one_too_short_to_be_believed(json!({ "renewTime": RENEWED, "leaseDurationSeconds": 1 }), 2_500)]
fn the_interval_is_a_quarter_of_the_duration(#[case] spec: serde_json::Value, #[case] milliseconds: u64) {
    let Lease::There { interval, .. } = meaning(lease("a", &spec).as_bytes(), "a") else { panic!("a lease") };
    assert_eq!(interval, Duration::from_millis(milliseconds));
}

#[rstest]
#[case::never_renewed(lease("a", &json!({ "holderIdentity": "a" })))]
#[case::empty(lease("a", &json!(null)))]
#[case::no_time(lease("a", &json!({ "renewTime": "soon" })))]
#[case::of_another(lease("b", &json!({ "renewTime": RENEWED })))]
#[case::a_web_page("<html>".to_owned())]
fn what_tells_no_renewal_of_this_node_is_unread(#[case] body: String) {
    assert!(unread(&meaning(body.as_bytes(), "a")), "{body}");
}

#[rstest]
#[case::missing(status(404, "NotFound", "node-a"), true)]
#[case::not_said_by_the_server((404, "404 page not found".to_owned()), false)]
#[case::forbidden(status(403, "Forbidden", "node-a"), false)]
#[case::broken(status(500, "InternalError", ""), false)]
#[tokio::test(start_paused = true)]
async fn only_a_server_that_says_so_makes_a_lease_missing(#[case] answer: (u16, String), #[case] missing: bool) {
    let server = FakeServer::scripted(vec![answer]);
    let reading = read_lease(&server.client(), "node-a", &moments()).await;
    assert_eq!(reading.lease == Lease::Missing, missing, "{reading:?}");
    assert_eq!(unread(&reading.lease), !missing);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_unread_and_the_time_is_told() {
    let server = FakeServer::scripted(Vec::new());
    let reading = read_lease(&server.client(), "node-a", &moments()).await;
    assert!(unread(&reading.lease));
    assert_eq!(reading.answered.monotonic - reading.asked.monotonic, answer::TIMEOUT);
}

/// Suspects that are followed.
struct Following {
    server: FakeServer,
    asks: mpsc::Sender<Ask>,
    readings: mpsc::Receiver<Reading>,
    task: JoinHandle<()>,
}

impl Following {
    fn of(server: FakeServer) -> Self {
        let ((asks, asked), (sender, readings)) = (mpsc::channel(MAX_SUSPECTS + 1), mpsc::channel(READINGS));
        let task = tokio::spawn(follow(server.client(), moments(), asked, sender));
        Self { server, asks, readings, task }
    }

    async fn follow(&self, count: usize) {
        for number in 0..count {
            self.asks.send(Ask::Follow(format!("node-{number}"))).await.unwrap();
        }
    }

    /// Takes readings for so long; how many there are of each node.
    async fn readings_within(&mut self, time: Duration) -> BTreeMap<String, usize> {
        let (until, mut seen) = (now() + time, BTreeMap::new());
        while let Ok(Some(reading)) = tokio::time::timeout_at(until, self.readings.recv()).await {
            *seen.entry(reading.node).or_default() += 1;
        }
        seen
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// A server whose Leases are all renewed every 10 s.
fn lively() -> FakeServer {
    let begun = now();
    FakeServer::new(move |asked| {
        let seconds = i64::try_from(begun.elapsed().as_secs()).unwrap() / 10 * 10;
        let renewed = Timestamp::from_second(BEGIN + seconds).unwrap();
        let spec = json!({ "renewTime": format!("{renewed:.6}"), "leaseDurationSeconds": 40 });
        Some((200, lease(&name(asked), &spec)))
    })
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_lives_is_read_twice_for_each_renewal_until_it_is_left() {
    let mut following = Following::of(lively());
    following.follow(1).await;
    let seen = following.readings_within(MINUTE).await;
    assert!((12..=13).contains(&seen["node-0"]), "{seen:?}");
    following.asks.send(Ask::Leave("node-0".to_owned())).await.unwrap();
    following.readings_within(PACE).await;
    assert_eq!(following.readings_within(MINUTE).await, BTreeMap::new());
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_is_silent_is_read_at_the_moment_at_which_it_is_stale_and_then_less_and_less_often() {
    let mut following = Following::of(good());
    following.follow(1).await;
    let (begun, mut times) = (now(), Vec::new());
    while begun.elapsed() < 15 * MINUTE {
        let reading = following.readings.recv().await.expect("a reading");
        times.push(begun.elapsed().as_secs_f64().round());
        assert!(!unread(&reading.lease));
    }
    assert_eq!(times[..7], [0.0, 5.0, 10.0, 15.0, 20.0, 22.0, 27.0]);
    assert!(times.len() <= 40, "{times:?}");
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!((60.0..=121.0).contains(&longest), "{times:?}");
    // Its Node says something else.
    following.follow(1).await;
    assert_eq!(following.readings_within(Duration::from_secs(1)).await["node-0"], 1);
}

#[tokio::test(start_paused = true)]
async fn many_suspects_share_the_budget_and_nobody_is_forgotten() {
    let mut following = Following::of(lively());
    following.follow(500).await;
    let seen = following.readings_within(MINUTE).await;
    assert_eq!(seen.len(), 500);
    let (least, most) = (seen.values().min().unwrap(), seen.values().max().unwrap());
    assert!(*least >= 4 && *most <= 7, "{least} to {most} times");
    assert!(following.server.asked().len() <= 3_010, "{}", following.server.asked().len());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_holds_a_bounded_number_of_reads() {
    let mut following = Following::of(FakeServer::scripted(Vec::new()));
    following.follow(100).await;
    assert_eq!(following.readings_within(answer::TIMEOUT / 2).await, BTreeMap::new());
    assert_eq!(following.server.asked().len(), AT_ONCE);
    assert!(following.readings_within(answer::TIMEOUT).await.len() >= AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_a_pause_gets_one() {
    let details = json!({ "kind": "Status", "reason": "TooManyRequests", "details": { "retryAfterSeconds": 30 } });
    let mut following = Following::of(FakeServer::new(move |_| Some((429, details.to_string()))));
    following.follow(1).await;
    assert_eq!(following.readings_within(MINUTE).await["node-0"], 2);
}

#[tokio::test(start_paused = true)]
async fn there_is_a_bound_and_who_is_beyond_it_is_told_to_be_unread() {
    let mut following = Following::of(good());
    following.follow(MAX_SUSPECTS + 1).await;
    let refused = loop {
        let reading = following.readings.recv().await.expect("a reading");
        if let Lease::Unread { .. } = reading.lease {
            break reading.node;
        }
    };
    assert_eq!(refused, format!("node-{MAX_SUSPECTS}"));
}
