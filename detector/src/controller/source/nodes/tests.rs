//! The watch of Nodes, and what is known by it.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::{
    cluster::fake_server::{FakeServer, end_of_list, line, status},
    controller::source::node_facts::Ready,
};

fn node(name: &str, boot: &str) -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1", "metadata": { "name": name, "uid": format!("u-{name}"), "resourceVersion": "7" },
        "status": { "nodeInfo": { "bootID": boot }, "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

fn facts(name: &str, uid: &str, boot: &str) -> NodeFacts {
    NodeFacts { name: name.to_owned(), uid: uid.to_owned(), boot_id: Some(boot.to_owned()), ..NodeFacts::default() }
}

/// What a watch over `server` tells, in short.
fn watched(server: &FakeServer) -> mpsc::Receiver<NodeUpdate> {
    let (sender, updates) = mpsc::channel(UPDATES);
    tokio::spawn(watch_nodes(server.client(), sender));
    updates
}

async fn next(updates: &mut mpsc::Receiver<NodeUpdate>) -> String {
    match updates.recv().await.expect("an update") {
        Update::ListBegins => "begins".to_owned(),
        Update::Seen(node) => format!("seen {} {}", node.name, node.boot_id.unwrap_or_default()),
        Update::Gone(node) => format!("gone {}", node.name),
        Update::ListEnds => "ends".to_owned(),
        Update::Refused { .. } => "refused".to_owned(),
        Update::Failed { .. } => "failed".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_are_streamed_and_watched_on() {
    let lines = [
        line("ADDED", &node("a", "1")),
        line("ADDED", &node("b", "1")),
        end_of_list(),
        line("MODIFIED", &node("a", "2")),
        line("DELETED", &node("b", "1")),
    ];
    let server = FakeServer::scripted(vec![(200, lines.concat())]);
    let mut updates = watched(&server);
    for wanted in ["begins", "seen a 1", "seen b 1", "ends", "seen a 2", "gone b"] {
        assert_eq!(next(&mut updates).await, wanted);
    }
    let request = server.requests()[0].clone();
    assert!(request.starts_with("GET /api/v1/nodes?") && request.contains("sendInitialEvents=true"), "{request}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_stream_lists_is_asked_for_pages() {
    let page = |items: &[Value], token: &str| {
        let metadata = json!({ "resourceVersion": "5", "continue": token });
        (200, json!({ "kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": items }).to_string())
    };
    let answers = vec![
        status(422, "Invalid", ""),
        page(&[node("a", "1")], "more"),
        page(&[node("b", "1")], ""),
        (200, line("DELETED", &node("a", "1"))),
    ];
    let server = FakeServer::scripted(answers);
    let mut updates = watched(&server);
    for wanted in ["begins", "seen a 1", "seen b 1", "ends", "gone a"] {
        assert_eq!(next(&mut updates).await, wanted);
    }
    let requests = server.requests();
    // All Nodes in one body would not fit our memory.
    assert!(requests[1].contains("limit=50") && requests[2].contains("continue=more"), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_asked_again_ever_more_seldom() {
    let server = FakeServer::new(|_| Some((503, "not ready".to_owned())));
    let mut updates = watched(&server);
    assert_eq!(next(&mut updates).await, "failed");
    let quiet = tokio::time::timeout(Duration::from_secs(600), updates.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert!((10..=60).contains(&server.asked().len()), "{}", server.asked().len());
}

#[test]
fn changes_are_told_and_what_stayed_the_same_is_not() {
    let mut nodes = Nodes::default();
    let seen = |nodes: &mut Nodes, node: &NodeFacts| nodes.take(Update::Seen(node.clone()));
    let (old, new) = (facts("a", "u", "1"), facts("a", "u", "2"));
    let came = |before: Option<&NodeFacts>| vec![NodeChange::Came { name: "a".to_owned(), before: before.cloned() }];
    assert_eq!(seen(&mut nodes, &old), came(None));
    assert_eq!(seen(&mut nodes, &old), []);
    assert_eq!(seen(&mut nodes, &new), [NodeChange::Changed { name: "a".to_owned(), before: old }]);
    let other = facts("a", "another", "2");
    assert_eq!(seen(&mut nodes, &other), came(Some(&new)));
    assert_eq!(nodes.take(Update::Gone(other.clone())), [NodeChange::Went { before: other }]);
    assert_eq!(nodes.iter().count(), 0);
}

#[test]
fn who_is_missing_in_a_whole_list_is_gone() {
    let mut nodes = Nodes::default();
    for name in ["a", "b", "c"] {
        nodes.take(Update::Seen(facts(name, "u", "1")));
    }
    assert!(!nodes.is_complete());
    nodes.take(Update::ListBegins);
    nodes.take(Update::Seen(facts("b", "u", "1")));
    assert_eq!(nodes.iter().count(), 3, "the list has not ended");
    // It breaks off and begins anew.
    nodes.take(Update::ListBegins);
    nodes.take(Update::Seen(facts("c", "u", "1")));
    let gone = nodes.take(Update::ListEnds);
    let went = |name: &str| NodeChange::Went { before: facts(name, "u", "1") };
    assert_eq!(gone, [went("a"), went("b")]);
    assert!(nodes.is_complete() && nodes.get("c").is_some());
}

#[rstest]
#[case::there((200, node("a", "1").to_string()), "there")]
#[case::missing(status(404, "NotFound", "a"), "missing")]
#[case::another((200, node("b", "1").to_string()), "unread")]
#[case::not_the_server((404, "<html>".to_owned()), "unread")]
#[case::broken(status(500, "InternalError", ""), "unread")]
#[tokio::test(start_paused = true)]
async fn one_node_is_read_past_all_caches(#[case] answer: (u16, String), #[case] wanted: &str) {
    let server = FakeServer::scripted(vec![answer]);
    let read = match read_node(&server.client(), "a").await {
        Ok(Some(node)) if node.ready == Ready::True => "there",
        Ok(Some(_)) => "another",
        Ok(None) => "missing",
        Err(_) => "unread",
    };
    assert_eq!(read, wanted);
    assert!(server.requests()[0].starts_with("GET /api/v1/nodes/a"), "{:?}", server.requests());
}
