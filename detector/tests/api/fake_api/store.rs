//! Objects by path, and what create, merge patch, strategic merge patch and apply do to them.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::{Map, Value};

use super::{Asked, answer::status, json_patch};

/// The objects that the server holds.
#[derive(Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<String, Value>,
    /// Types of conditions that a field manager applied, by path and manager.
    applied: BTreeMap<(String, String), BTreeSet<String>>,
    /// How often an object was changed, made and deleted.
    changes: BTreeMap<String, u32>,
    /// Pods that name no incident are not deleted.
    guarded: bool,
}

impl Store {
    pub(super) fn put(&mut self, path: &str, object: Value) {
        self.objects.insert(path.to_owned(), object);
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.objects.remove(path);
    }

    pub(super) fn below(&self, prefix: &str) -> Vec<Value> {
        let matching = self.objects.iter().filter(|(path, _)| path.starts_with(prefix));
        matching.map(|(_, object)| object.clone()).collect()
    }

    pub(super) fn changes(&self, path: &str) -> u32 {
        self.changes.get(path).copied().unwrap_or(0)
    }

    pub(super) fn guard(&mut self) {
        self.guarded = true;
    }

    /// Status code and body of the answer.
    pub(super) fn handle(&mut self, asked: &Asked) -> (u16, Value) {
        match asked.method {
            Method::GET => match self.objects.get(&asked.path) {
                Some(object) => (200, object.clone()),
                None => missing(&asked.path),
            },
            Method::DELETE => self.delete(asked),
            Method::POST => self.create(asked),
            Method::PATCH => self.patch(asked),
            _ => failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource"),
        }
    }

    fn create(&mut self, asked: &Asked) -> (u16, Value) {
        let Some(name) = asked.body["metadata"]["name"].as_str() else {
            return failure(422, "Invalid", "metadata.name: Required value");
        };
        let path = format!("{}/{name}", asked.path);
        if self.objects.contains_key(&path) {
            return failure(409, "AlreadyExists", &format!("\"{name}\" already exists"));
        }
        let mut object = asked.body.clone();
        if !path.contains("/events/") {
            object["metadata"]["resourceVersion"] = "1".into();
        }
        *self.changes.entry(path.clone()).or_default() += 1;
        self.objects.insert(path, object.clone());
        (201, object)
    }

    /// A pod that has time to end stays; what is asked in the query is ignored, as a real server does beside a body.
    fn delete(&mut self, asked: &Asked) -> (u16, Value) {
        let Some(object) = self.objects.get_mut(&asked.path) else {
            return missing(&asked.path);
        };
        let uid = &asked.body["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return wrong_uid(&asked.path);
        }
        let is_pod = asked.path.contains("/pods/");
        if self.guarded && is_pod && object["metadata"]["annotations"]["detector.dev/incident"].is_null() {
            return failure(403, "Forbidden", "ValidatingAdmissionPolicy denied request: a pod that names no incident");
        }
        let before = object.clone();
        if !asked.body["dryRun"].is_null() {
            return (200, before);
        }
        if is_pod && asked.body["gracePeriodSeconds"] != 0 {
            let now = "2026-11-22T12:00:30Z";
            object["metadata"].as_object_mut().expect("an object").entry("deletionTimestamp").or_insert(now.into());
            if *object == before {
                return (200, before);
            }
        } else {
            self.objects.remove(&asked.path);
        }
        *self.changes.entry(asked.path.clone()).or_default() += 1;
        (200, before)
    }

    /// A change of the subresource `status` is a change of its object.
    fn patch(&mut self, asked: &Asked) -> (u16, Value) {
        let path = asked.path.strip_suffix("/status").unwrap_or(&asked.path);
        let Some(object) = self.objects.get_mut(path) else {
            return missing(path);
        };
        let guards = &asked.body["metadata"];
        let metadata = &object["metadata"];
        let differs = |key: &str| !guards[key].is_null() && !metadata[key].is_null() && guards[key] != metadata[key];
        if differs("uid") {
            return wrong_uid(path);
        }
        if differs("resourceVersion") {
            let why = format!("Operation cannot be fulfilled on {path}: the object has been modified");
            return failure(409, "Conflict", &why);
        }
        let before = object.clone();
        match asked.content_type.as_str() {
            "application/json-patch+json" => {
                if let Err(why) = json_patch::apply(object, &asked.body) {
                    return failure(422, "Invalid", &format!("the server rejected our request: {why}"));
                }
            }
            "application/merge-patch+json" => merge(object, &asked.body),
            "application/strategic-merge-patch+json" => strategic(object, &asked.body),
            "application/apply-patch+yaml" => {
                let manager = manager(&asked.query);
                if manager.is_empty() {
                    return failure(400, "BadRequest", "fieldManager is required for apply patch");
                }
                let now = types(&asked.body);
                let before = self.applied.insert((path.to_owned(), manager), now.clone()).unwrap_or_default();
                drop_conditions(object, &before.difference(&now).cloned().collect());
                strategic(object, &asked.body);
            }
            other => return failure(415, "UnsupportedMediaType", &format!("unsupported content type {other:?}")),
        }
        if *object != before {
            let version =
                object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse::<u64>().ok());
            if let Some(version) = version {
                object["metadata"]["resourceVersion"] = (version + 1).to_string().into();
            }
            *self.changes.entry(path.to_owned()).or_default() += 1;
        }
        (200, object.clone())
    }
}

fn wrong_uid(path: &str) -> (u16, Value) {
    let why = "Precondition failed: UID in precondition: a, UID in object meta: b";
    failure(409, "Conflict", &format!("Operation cannot be fulfilled on {path}: {why}"))
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    (code, serde_json::from_str(&status(code, reason, message)).expect("JSON of ours"))
}

/// As a real server says it: with the object's name.
fn missing(path: &str) -> (u16, Value) {
    let (code, mut answer) = failure(404, "NotFound", &format!("{path} not found"));
    answer["details"]["name"] = path.rsplit('/').next().unwrap_or_default().into();
    (code, answer)
}

fn manager(query: &str) -> String {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == "fieldManager").map(|(_, value)| value.to_owned()).next().unwrap_or_default()
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().and_then(|object| object.remove(key));
        } else {
            merge(&mut object[key], value);
        }
    }
}

/// A merge in which conditions of a status are merged by type.
fn strategic(object: &mut Value, patch: &Value) {
    let mut rest = patch.clone();
    let conditions = rest["status"].as_object_mut().and_then(|status| status.remove("conditions"));
    merge(object, &rest);
    let Some(Value::Array(changes)) = conditions else { return };
    if !object["status"]["conditions"].is_array() {
        object["status"]["conditions"] = Value::Array(Vec::new());
    }
    for change in changes {
        let of_type = change["type"].as_str().unwrap_or_default().to_owned();
        if change["$patch"] == "delete" {
            drop_conditions(object, &BTreeSet::from([of_type]));
            continue;
        }
        let list = object["status"]["conditions"].as_array_mut().expect("made above");
        match list.iter_mut().find(|condition| condition["type"] == of_type.as_str()) {
            Some(condition) => merge(condition, &change),
            None => list.push(change),
        }
    }
}

fn drop_conditions(object: &mut Value, dropped: &BTreeSet<String>) {
    if let Some(list) = object["status"]["conditions"].as_array_mut() {
        list.retain(|condition| !condition["type"].as_str().is_some_and(|of_type| dropped.contains(of_type)));
    }
}

fn types(patch: &Value) -> BTreeSet<String> {
    let conditions = patch["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter_map(|condition| condition["type"].as_str().map(str::to_owned)).collect()
}
