//! What is kept of a Node.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::contract::{netconsole::NODE_ANNOTATION, remediation::OPT_OUT};

fn facts(node: &Value) -> NodeFacts {
    serde_json::from_str::<WatchedNode>(&node.to_string()).expect("a node").facts
}

/// A Node as kubelet, cloud and agent write it, in parts.
fn node() -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {
            "name": "node-a", "uid": "170c6c76-520e-48c0-8a57-93936dad7835", "resourceVersion": "7",
            "annotations": { NODE_ANNOTATION: "ab12", "node.alpha.kubernetes.io/ttl": "0" },
            "labels": { "topology.kubernetes.io/zone": "eu-1a", "kubernetes.io/os": "linux" },
            "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:status": {} } }],
        },
        "spec": { "podCIDR": "10.0.0.0/24", "unschedulable": true, "taints": [{ "key": "x", "effect": "NoSchedule" }] },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": "10.0.0.7" }, { "type": "InternalIP", "address": "fd00::7" },
                { "type": "ExternalIP", "address": "192.0.2.7" }, { "type": "Hostname", "address": "10.9.9.9" },
                { "type": "InternalIP", "address": "::ffff:10.0.0.7" }, { "type": "InternalIP", "address": "none" },
            ],
            "conditions": [
                { "type": "MemoryPressure", "status": "False" },
                { "type": "Ready", "status": "Unknown", "lastTransitionTime": "2026-11-22T12:00:00Z", "reason": "x" },
            ],
            "images": [{ "names": ["a"], "sizeBytes": 7 }],
            "nodeInfo": { "bootID": "0f3c7a52-11aa-4b5c-9c7e-000000000000", "kernelVersion": "6.12" },
        },
    })
}

#[test]
fn what_matters_is_kept() {
    let wanted = NodeFacts {
        name: "node-a".to_owned(),
        uid: "170c6c76-520e-48c0-8a57-93936dad7835".to_owned(),
        boot_id: Some("0f3c7a52-11aa-4b5c-9c7e-000000000000".to_owned()),
        addresses: ["10.0.0.7", "fd00::7", "192.0.2.7"].map(|address| address.parse().unwrap()).to_vec(),
        secret_sha256: Some("ab12".to_owned()),
        ready: Ready::Unknown,
        ready_since: Some("2026-11-22T12:00:00Z".parse().unwrap()),
        cordoned: true,
        control_plane: false,
        zone: Some("eu-1a".to_owned()),
        opted_out: false,
        found: None,
    };
    assert_eq!(facts(&node()), wanted);
}

#[rstest]
#[case::nothing(json!({}))]
#[case::nulls(json!({ "metadata": { "annotations": null, "labels": null }, "spec": { "taints": null }, "status": null }))]
#[case::new(json!({ "spec": {}, "status": { "nodeInfo": { "bootID": "" }, "addresses": null, "conditions": null } }))]
fn a_node_of_which_nothing_is_known_is_a_node(#[case] node: Value) {
    assert_eq!(facts(&node), NodeFacts::default());
}

#[rstest]
#[case("True", Ready::True)]
#[case("False", Ready::False)]
#[case("Unknown", Ready::Unknown)]
#[case("Maybe", Ready::Unknown)]
fn readiness_is_what_its_condition_says(#[case] status: &str, #[case] ready: Ready) {
    let node = json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
    assert_eq!(facts(&node).ready, ready);
}

#[rstest]
#[case::label(json!({ "metadata": { "labels": { "node-role.kubernetes.io/control-plane": "" } } }))]
#[case::old_label(json!({ "metadata": { "labels": { "node-role.kubernetes.io/master": "" } } }))]
#[case::taint(json!({ "spec": { "taints": [{ "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" }] } }))]
#[case::old_taint(json!({ "spec": { "taints": [{ "key": "node-role.kubernetes.io/master", "effect": "NoSchedule" }] } }))]
fn the_control_plane_is_known_by_label_or_taint(#[case] node: Value) {
    assert!(facts(&node).control_plane);
}

#[test]
fn marks_of_remediation_are_seen() {
    let of = |value: &str| facts(&json!({ "metadata": { "labels": { OPT_OUT: value } } })).opted_out;
    assert!(of("disabled") && !of("enabled") && !of(""));
}

#[test]
fn what_the_agent_found_is_kept_and_what_others_write_there_is_not() {
    let of = |message: &str| {
        let condition = json!({
            "type": PREVIOUS_BOOT_CRASH.kind, "status": "True", "reason": "KernelPanic", "message": message,
            "lastTransitionTime": "2026-11-22T12:00:00Z",
        });
        facts(&json!({ "status": { "conditions": [condition] } })).found
    };
    let message = "The boot before ended in a kernel panic, by pstore (erst): Kernel panic - not syncing: x";
    let since = Some("2026-11-22T12:00:00Z".parse().unwrap());
    assert_eq!(of(message), Some(Found { message: message.to_owned(), since }));
    assert_eq!(of("nothing found"), None);
    let long = format!("{message}{}", "ü".repeat(5_000));
    assert!(of(&long).expect("ours").message.len() <= MAX_MESSAGE);
}

#[test]
fn what_is_kept_of_a_node_has_a_bound() {
    let addresses: Vec<_> =
        (0..200).map(|last| json!({ "type": "InternalIP", "address": format!("10.0.0.{last}") })).collect();
    let node = json!({
        "metadata": { "annotations": { NODE_ANNOTATION: "f".repeat(100_000) } }, "status": { "addresses": addresses },
    });
    let facts = facts(&node);
    assert_eq!(facts.addresses.len(), MAX_ADDRESSES);
    assert_eq!(facts.secret_sha256.map(|hash| hash.len()), Some(MAX_TEXT));
}
