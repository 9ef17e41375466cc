//! What is told of steps and holds.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::*;
use crate::contract::incident::{HoldReason, KernelIncidentSpec, StepState};

fn at(second: i64) -> MicroTime {
    MicroTime(Timestamp::from_second(second).expect("a time"))
}

fn incident() -> KernelIncident {
    let spec = KernelIncidentSpec { node: "node-a".to_owned(), node_uid: None, boot_id: None, time: at(0) };
    let mut incident = KernelIncident::new("node-a-0f3c", spec);
    incident.metadata.uid = Some("uid-of-incident".to_owned());
    incident
}

fn pods(number: usize) -> Vec<Target> {
    let pod = |number| Target {
        namespace: "shop".to_owned(),
        name: format!("web-{number}"),
        uid: format!("uid-{number}"),
        ..Target::default()
    };
    (0..number).map(pod).collect()
}

fn step(kind: StepKind, state: StepState, message: &str) -> StepEntry {
    StepEntry { kind, state, time: at(10), ended: Some(at(11)), message: message.to_owned() }
}

fn told(pods: &[Target], instance: &str, entry: &StepEntry) -> Vec<Event> {
    let incident = incident();
    of_step(&Subject { incident: &incident, node_uid: Some("uid-of-node"), pods, instance }, entry)
}

#[test]
fn a_step_on_pods_is_told_on_incident_node_and_pods() {
    let events = told(&pods(1), "replica-1", &step(StepKind::DeletePods, StepState::Done, "1 pod deleted"));
    let regarding: Vec<_> = events.iter().map(|event| event.body["regarding"]["kind"].as_str()).collect();
    assert_eq!(regarding, [Some("KernelIncident"), Some("Node"), Some("Pod")]);
    assert_eq!(events.iter().map(|event| event.namespace.as_str()).collect::<Vec<_>>(), ["default", "default", "shop"]);
    let body = &events[2].body;
    assert_eq!(
        (&body["type"], &body["reason"], &body["action"]),
        (&"Warning".into(), &"PodDeleted".into(), &"DeletePods".into())
    );
    assert_eq!((&body["note"], &body["eventTime"]), (&"1 pod deleted".into(), &"1970-01-01T00:00:11.000000Z".into()));
    assert_eq!((&body["related"]["uid"], &body["regarding"]["uid"]), (&"uid-of-incident".into(), &"uid-0".into()));
}

#[test]
fn whoever_tells_it_it_is_the_same_event() {
    let entry = step(StepKind::DeletePods, StepState::Done, "");
    let later = StepEntry { ended: Some(at(99)), message: "2 pods deleted".to_owned(), ..entry.clone() };
    let names = |events: Vec<Event>| {
        events.iter().map(|event| event.body["metadata"]["name"].to_string()).collect::<BTreeSet<_>>()
    };
    let first = names(told(&pods(3), "replica-1", &entry));
    assert_eq!(first.len(), 5);
    assert_eq!(first, names(told(&pods(3), "replica-2", &later)));
    let failed = names(told(&pods(3), "replica-1", &step(StepKind::DeletePods, StepState::Failed, "")));
    assert!(first.is_disjoint(&failed));
}

#[test]
fn every_event_is_one_that_the_api_server_takes() {
    let long = "ä\u{1b}".repeat(3000);
    let entry = step(StepKind::Annotate, StepState::Told, &long);
    for event in told(&pods(1), &long, &entry) {
        assert!(event.body["note"].as_str().expect("a note").len() <= NOTE_BYTES);
        assert!(!event.body["note"].as_str().expect("a note").contains('\u{1b}'));
        assert!(event.body["reportingInstance"].as_str().expect("an instance").len() <= INSTANCE_BYTES);
    }
    let mut one = pods(1);
    one[0].name = format!("{}.", "n".repeat(252));
    let events = told(&one, "r", &entry);
    let name = events[2].body["metadata"]["name"].as_str().expect("a name");
    assert!(name.len() <= 253, "{name}");
    assert!(events.iter().all(|event| event.body["note"] != ""));
}

#[test]
fn pods_are_told_of_holds_that_last_and_are_bounded() {
    let (incident, pods) = (incident(), pods(1000));
    let subject = Subject { incident: &incident, node_uid: None, pods: &pods, instance: "r" };
    let hold = |reason| HoldEntry { step: StepKind::DeletePods, reason, since: at(5), message: "x".to_owned() };
    assert_eq!(of_hold(&subject, &hold(HoldReason::NoCorroboration)).len(), 2);
    let events = of_hold(&subject, &hold(HoldReason::Brake));
    assert_eq!(events.len(), 2 + MAX_POD_EVENTS);
    assert_eq!(events[0].body["note"], "Brake: x");
    assert_eq!(events[1].body["regarding"]["uid"], "node-a", "found by its name where the uid is not known");
}

#[test]
fn a_step_that_has_not_ended_is_not_told() {
    assert!(told(&pods(1), "r", &step(StepKind::Cordon, StepState::Intended, "")).is_empty());
}
