//! What is kept of pods, and how they are asked for.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::cluster::fake_server::{FakeServer, status};

fn pod(namespace: &str, name: &str, change: &Value) -> Value {
    let mut pod = json!({
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("u-{name}"),
            "ownerReferences": [{ "kind": "Other" }, { "kind": "ReplicaSet", "controller": true }],
        },
        "spec": { "containers": [{ "name": "c" }] },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True", "lastProbeTime": null }] },
    });
    merge(&mut pod, change);
    pod
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn read(pod: &Value) -> NodePod {
    serde_json::from_value::<Wire>(pod.clone()).expect("a pod").into()
}

fn page(pods: &[Value], token: &str) -> (u16, String) {
    (200, json!({ "kind": "PodList", "metadata": { "continue": token }, "items": pods }).to_string())
}

#[test]
fn what_steps_need_is_kept_of_a_pod() {
    let change = json!({
        "metadata": {
            "deletionTimestamp": "2026-11-22T12:00:00Z",
            "annotations": { "detector.dev/incident": "node-a-1", "kubernetes.io/config.mirror": "x" },
        },
    });
    let wanted = NodePod {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        uid: "u-web".to_owned(),
        controller: Some("ReplicaSet".to_owned()),
        mirror: true,
        phase: PodPhase::Running,
        deletion: Some("2026-11-22T12:00:00Z".parse().unwrap()),
        incident: Some("node-a-1".to_owned()),
    };
    assert_eq!(read(&pod("shop", "web", &change)), wanted);
    assert_eq!(read(&json!({})), NodePod::default());
}

#[test]
fn affected_are_those_that_live_and_some_of_them_are_left_alone() {
    let ended = json!({ "status": { "phase": "Succeeded" } });
    let pods = [pod("a", "ended", &ended), pod("a", "web", &json!({})), pod("quiet", "web", &json!({}))];
    let pods = NodePods { pods: pods.iter().map(read).collect(), passed_over: 3 };
    let (affected, count) = pods.affected(|pod| (pod.namespace == "quiet").then_some("it wants it"));
    let left: Vec<_> = affected.iter().map(|pod| (pod.namespace.as_str(), pod.left.as_deref())).collect();
    assert_eq!(left, [("a", None), ("quiet", Some("it wants it"))]);
    assert_eq!(count, 2 + 3);
    assert_eq!(pods.namespaces(), BTreeSet::from(["a".to_owned(), "quiet".to_owned()]));
}

#[test]
fn more_pods_than_an_incident_names_are_counted() {
    let many: Vec<NodePod> = (0..300).map(|number| read(&pod("a", &format!("{number:03}"), &json!({})))).collect();
    let (named, count) = NodePods { pods: many, passed_over: 0 }.affected(|_| None);
    assert_eq!((named.len(), count), (MAX_PODS, 300));
}

#[tokio::test(start_paused = true)]
async fn pods_are_listed_once_from_the_servers_cache() {
    let pods = [pod("b", "one", &json!({})), pod("a", "two", &json!({}))];
    let server = FakeServer::scripted(vec![page(&pods, "")]);
    let listed = list_pods(&server.client(), "node-a").await.expect("pods");
    let names: Vec<_> = listed.pods.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!(names, ["two", "one"]);
    let requests = server.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(request.starts_with("GET /api/v1/pods?") && request.contains("fieldSelector=spec.nodeName%3Dnode-a"));
    // With a limit an older server would read the pods of all nodes from etcd.
    assert!(request.contains("resourceVersion=0") && !request.contains("limit="), "{request}");
}

#[tokio::test(start_paused = true)]
async fn pages_are_followed_if_the_server_gives_pages() {
    let of = |name: &str| [pod("a", name, &json!({}))];
    let server = FakeServer::scripted(vec![page(&of("one"), "more"), page(&of("two"), "")]);
    assert_eq!(list_pods(&server.client(), "node-a").await.expect("pods").pods.len(), 2);
    let second = &server.requests()[1];
    assert!(second.contains("continue=more") && !second.contains("resourceVersion="), "{second}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_ends_its_list_is_given_up() {
    let server = FakeServer::new(|_| Some(page(&[], "more")));
    assert!(matches!(list_pods(&server.client(), "node-a").await, Err(Outcome::Final(_))));
    assert_eq!(server.asked().len(), MAX_PAGES);
}

#[tokio::test(start_paused = true)]
async fn pods_beyond_the_bound_are_counted() {
    let many: Vec<Value> = (0..MAX_LISTED + 5).map(|number| pod("a", &number.to_string(), &json!({}))).collect();
    let server = FakeServer::scripted(vec![page(&many, "")]);
    let listed = list_pods(&server.client(), "node-a").await.expect("pods");
    assert_eq!((listed.pods.len(), listed.passed_over), (MAX_LISTED, 5));
}

#[rstest]
#[case::not_json((200, "<html>".to_owned()))]
#[case::broken(status(500, "InternalError", ""))]
#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_read_may_be_asked_for_again(#[case] answer: (u16, String)) {
    let server = FakeServer::scripted(vec![answer]);
    assert!(matches!(list_pods(&server.client(), "node-a").await, Err(Outcome::Retry { .. })));
}

#[tokio::test(start_paused = true)]
async fn each_namespace_is_read_once() {
    let server = FakeServer::new(|asked| {
        let name = asked.uri.rsplit('/').next().unwrap_or_default().trim_end_matches('?').to_owned();
        let labels =
            |value: &str| json!({ "metadata": { "name": name, "labels": { "detector.dev/remediation": value } } });
        Some(match name.as_str() {
            "quiet" => (200, labels("disabled").to_string()),
            "loud" => (200, labels("enabled").to_string()),
            "gone" => status(404, "NotFound", "gone"),
            "proxied" => (404, "<html>".to_owned()),
            _ => (200, json!({ "metadata": { "name": name } }).to_string()),
        })
    });
    let names = ["quiet", "loud", "gone", "proxied", "plain"].map(str::to_owned);
    let read = read_opt_outs(&server.client(), names).await;
    let known = |name: &str| read[name].clone().ok();
    assert_eq!((known("quiet"), known("loud"), known("gone")), (Some(true), Some(false), Some(false)));
    assert_eq!((known("plain"), known("proxied")), (Some(false), None));
    assert_eq!(server.asked().len(), 5);
}
