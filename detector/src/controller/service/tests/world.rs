//! A small cluster in memory, behind the fake server: what outlives every replica. It keeps the rules that the service
//! relies on: versions, uids, parts of several managers, names that are taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::merge::merge;
use crate::cluster::fake_server::{Asked, BEGIN, FakeServer, Said, line, now, status};

/// How often a node that lives renews its Lease, in seconds.
const RENEWAL: i64 = 10;

/// Where a process is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Before the write with this number stands.
    Before(usize),
    /// When it stands, before its answer is there.
    After(usize),
}

#[derive(Default)]
pub(super) struct State {
    version: u64,
    pub(super) objects: BTreeMap<String, Value>,
    /// Objects that are gone, by the version in which they went.
    gone: BTreeMap<u64, (String, Value)>,
    /// Parts of an incident's status, by object and manager.
    parts: BTreeMap<(String, String), Value>,
    /// Nodes that renew their Leases no more, with the last renewal.
    dead: BTreeMap<String, i64>,
    /// Writes that were asked for so far.
    pub(super) writes: usize,
    pub(super) cut: Option<Cut>,
    pub(super) was_cut: bool,
    /// Pods that a webhook fails for.
    pub(super) broken: BTreeSet<String>,
    /// Namespaces with the label.
    pub(super) opted_out: BTreeSet<String>,
    /// Changes that somebody outside would see, in their order.
    pub(super) effects: Vec<String>,
    /// The same with what was true of the node by then.
    pub(super) deeds: Vec<Deed>,
    /// Of the request that is being answered.
    second: i64,
}

/// An effect, and its circumstances.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    pub(super) what: String,
    pub(super) node: String,
    pub(super) second: i64,
    /// When the node renewed its Lease last; `None`: it lives.
    pub(super) died: Option<i64>,
    pub(super) boot: String,
    pub(super) given_up: bool,
}

#[derive(Clone)]
pub(super) struct World {
    state: Arc<Mutex<State>>,
    pub(super) server: FakeServer,
}

/// A namespace that the controller may not read.
pub(super) const SEALED: &str = "sealed";

const INCIDENTS: &str = "/apis/detector.dev/v1alpha1/kernelincidents";
const NODES: &str = "/api/v1/nodes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/";

impl World {
    /// Nodes of these names, each well, with its boot `boot-NAME`.
    pub(super) fn new(nodes: &[&str]) -> Self {
        let opted_out = BTreeSet::from(["alone".to_owned()]);
        let state = Arc::new(Mutex::new(State { opted_out, ..State::default() }));
        let begun = now();
        let of_server = Arc::clone(&state);
        let server = FakeServer::new(move |asked| {
            let seconds = BEGIN + i64::try_from(begun.elapsed().as_secs()).unwrap();
            of_server.lock().unwrap().answer(asked, seconds)
        });
        let world = Self { state, server };
        for node in nodes {
            world.put(
                &format!("{NODES}/{node}"),
                json!({
                    "apiVersion": "v1", "kind": "Node",
                    "metadata": {"name": node, "uid": format!("uid-{node}"), "annotations": {
                        "detector.dev/netconsole-secret-sha256": "x",
                    }},
                    "spec": {},
                    "status": {
                        "nodeInfo": {"bootID": format!("boot-{node}")},
                        "conditions": [
                            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                            {"type": "KernelDeadlock", "status": "False", "reason": "KernelHasNoDeadlock"},
                        ],
                    },
                }),
            );
        }
        world
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn put(&self, path: &str, object: Value) {
        self.lock().store(path, object);
    }

    pub(super) fn pod(&self, node: &str, namespace: &str, name: &str, controller: &str) {
        self.put(
            &format!("/api/v1/namespaces/{namespace}/pods/{name}"),
            json!({
                "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}"),
                    "ownerReferences": [{"kind": controller, "controller": true}]},
                "spec": {"nodeName": node}, "status": {"phase": "Running"},
            }),
        );
    }

    /// The node is silent from now on.
    pub(super) fn kill(&self, node: &str, second: i64) {
        self.lock().dead.insert(node.to_owned(), second - second % RENEWAL);
    }

    pub(super) fn is_dead(&self, node: &str) -> bool {
        self.lock().dead.contains_key(node)
    }

    /// It renews its Lease again, and has not said yet which boot it runs.
    pub(super) fn renews(&self, node: &str) {
        self.lock().dead.remove(node);
    }

    /// It renews its Lease again, with the boot `boot`.
    pub(super) fn revive(&self, node: &str, boot: &str) {
        self.renews(node);
        self.change(node, |object| object["status"]["nodeInfo"]["bootID"] = json!(boot));
        self.ready(node, "True");
    }

    pub(super) fn ready(&self, node: &str, ready: &str) {
        self.ready_since(node, ready, BEGIN + 50);
    }

    pub(super) fn ready_since(&self, node: &str, ready: &str, second: i64) {
        let since = Timestamp::from_second(second).unwrap();
        self.change(node, |object| {
            object["status"]["conditions"][0]["status"] = json!(ready);
            object["status"]["conditions"][0]["lastTransitionTime"] = json!(since.to_string());
        });
    }

    fn change(&self, node: &str, change: impl FnOnce(&mut Value)) {
        let path = format!("{NODES}/{node}");
        let mut state = self.lock();
        let mut object = state.objects.get(&path).cloned().unwrap();
        change(&mut object);
        state.store(&path, object);
    }

    pub(super) fn node(&self, name: &str) -> Value {
        self.lock().objects.get(&format!("{NODES}/{name}")).cloned().unwrap_or_default()
    }

    pub(super) fn incidents(&self) -> Vec<Value> {
        let state = self.lock();
        let all = state.objects.iter().filter(|(path, _)| path.starts_with(INCIDENTS));
        all.map(|(_, object)| object.clone()).collect()
    }

    /// Steps of the only incident with their states, in their order.
    pub(super) fn steps(&self) -> Vec<(String, String)> {
        let all = self.incidents();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let steps = all.first().and_then(|one| one["status"]["steps"].as_array().cloned()).unwrap_or_default();
        steps.iter().map(|step| (text(&step["kind"]), text(&step["state"]))).collect()
    }

    pub(super) fn phase(&self) -> String {
        self.incidents().first().map(|one| one["status"]["phase"].as_str().unwrap_or("").to_owned()).unwrap_or_default()
    }

    pub(super) fn holds(&self) -> BTreeMap<String, String> {
        let all = self.incidents();
        let holds = all.first().and_then(|one| one["status"]["holds"].as_array().cloned()).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        holds.iter().map(|hold| (text(&hold["step"]), text(&hold["reason"]))).collect()
    }

    /// Changes, each once, in the order of their first.
    pub(super) fn effects(&self) -> Vec<String> {
        self.lock().effects.clone()
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object);
    }

    fn answer(&mut self, asked: &Asked, second: i64) -> Said {
        self.second = second;
        let (path, query) = asked.uri.split_once('?').unwrap_or((&asked.uri, ""));
        if asked.method == "GET" {
            return Some(self.read(path, query, second));
        }
        // Who leads is renewed all the time, and is no step.
        if path.contains("/namespaces/detector/leases") {
            return Some(self.write(asked, path, query));
        }
        self.writes += 1;
        match self.cut {
            Some(Cut::Before(number)) if self.writes == number => self.was_cut = true,
            Some(Cut::After(number)) if self.writes == number => {
                self.write(asked, path, query);
                self.was_cut = true;
            }
            _ => {}
        }
        if self.was_cut {
            return None;
        }
        Some(self.write(asked, path, query))
    }

    fn read(&mut self, path: &str, query: &str, second: i64) -> (u16, String) {
        if let Some(node) = path.strip_prefix(LEASES) {
            let renewed = self.dead.get(node).copied().unwrap_or(second - second % RENEWAL);
            let at = Timestamp::from_second(renewed).unwrap();
            let spec = json!({"renewTime": format!("{at:.6}"), "leaseDurationSeconds": 40});
            return (200, json!({"metadata": {"name": node}, "spec": spec}).to_string());
        }
        if let Some(namespace) = path.strip_prefix("/api/v1/namespaces/").filter(|rest| !rest.contains('/')) {
            if namespace == SEALED {
                return status(403, "Forbidden", namespace);
            }
            let labels = if self.opted_out.contains(namespace) {
                json!({"detector.dev/remediation": "disabled"})
            } else {
                json!({})
            };
            return (200, json!({"metadata": {"name": namespace, "labels": labels}}).to_string());
        }
        if query.contains("watch=true") {
            return (200, self.watch(path, query));
        }
        if path == "/api/v1/pods" {
            let node = query.rsplit_once("spec.nodeName%3D").map(|(_, rest)| rest.split('&').next().unwrap_or(""));
            let pods = self.objects.iter().filter(|(path, _)| path.contains("/pods/"));
            let items: Vec<_> =
                pods.map(|(_, pod)| pod).filter(|pod| pod["spec"]["nodeName"].as_str() == node).collect();
            return (200, json!({"metadata": {}, "items": items}).to_string());
        }
        match self.objects.get(path) {
            Some(object) => (200, object.to_string()),
            None => status(404, "NotFound", path.rsplit('/').next().unwrap_or_default()),
        }
    }

    fn watch(&self, path: &str, query: &str) -> String {
        let since: u64 = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse().ok())
            .filter(|_| !query.contains("sendInitialEvents=true"))
            .unwrap_or(0);
        let version = |object: &Value| object["metadata"]["resourceVersion"].as_str()?.parse::<u64>().ok();
        let mut told: Vec<_> = self.objects.iter().filter(|(one, _)| one.starts_with(&format!("{path}/"))).collect();
        told.sort_by_key(|(_, object)| version(object));
        let mut body: String = told
            .into_iter()
            .filter(|(_, object)| version(object) > Some(since))
            .map(|(_, object)| line("ADDED", object))
            .collect();
        for (version, (_, object)) in self
            .gone
            .iter()
            .filter(|(version, (one, _))| since > 0 && **version > since && one.starts_with(&format!("{path}/")))
        {
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            body.push_str(&line("DELETED", &object));
        }
        let annotations = if since == 0 { json!({"k8s.io/initial-events-end": "true"}) } else { json!({}) };
        let metadata = json!({"resourceVersion": self.version.to_string(), "annotations": annotations});
        body.push_str(&line("BOOKMARK", &json!({"kind": "x", "apiVersion": "v1", "metadata": metadata})));
        body
    }

    fn write(&mut self, asked: &Asked, path: &str, query: &str) -> (u16, String) {
        match asked.method.as_str() {
            "POST" => {
                let name = asked.body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) {
                    return status(409, "AlreadyExists", name);
                }
                let mut object = asked.body.clone();
                object["metadata"]["uid"] = json!(format!("uid-{name}"));
                self.store(&path, object);
                (201, self.objects[&path].to_string())
            }
            "DELETE" => self.delete(asked, path),
            _ => self.patch(asked, path, query),
        }
    }

    fn delete(&mut self, asked: &Asked, path: &str) -> (u16, String) {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let Some(object) = self.objects.get(path).cloned() else { return status(404, "NotFound", &name) };
        if asked.body["preconditions"]["uid"] != object["metadata"]["uid"] {
            return status(409, "Conflict", &name);
        }
        let grace = asked.body["gracePeriodSeconds"].as_i64();
        if path.contains("/pods/") && grace != Some(0) {
            // Nobody confirms the end of a pod on a dead node.
            if object["metadata"]["deletionTimestamp"].is_null() {
                self.effect(format!("delete {name}"), &object);
                let mut object = object;
                object["metadata"]["deletionTimestamp"] = json!("2027-01-15T09:00:00Z");
                self.store(path, object);
            }
        } else {
            self.effect(format!("remove {name}"), &object);
            self.objects.remove(path);
            self.version += 1;
            self.gone.insert(self.version, (path.to_owned(), object));
        }
        (200, "{}".to_owned())
    }

    fn patch(&mut self, asked: &Asked, path: &str, query: &str) -> (u16, String) {
        let path = path.trim_end_matches("/status");
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if self.broken.contains(&name) {
            return status(500, "InternalError", &name);
        }
        let Some(before) = self.objects.get(path).cloned() else { return status(404, "NotFound", &name) };
        let guard = &asked.body["metadata"]["resourceVersion"];
        if guard.is_string() && *guard != before["metadata"]["resourceVersion"] {
            return status(409, "Conflict", &name);
        }
        let mut after = before.clone();
        if asked.content_type.contains("apply-patch") {
            let manager = query.split('&').find_map(|pair| pair.strip_prefix("fieldManager=")).unwrap_or_default();
            self.parts.insert((path.to_owned(), manager.to_owned()), asked.body["status"].clone());
            after["status"] = self.joined(path);
        } else if asked.content_type.contains("json-patch") {
            let entries = asked.body.as_array().into_iter().flatten();
            for entry in entries.filter(|entry| entry["op"] == "add") {
                let entry = if entry["value"].is_array() { entry["value"][0].clone() } else { entry["value"].clone() };
                let mut taints = after["spec"]["taints"].as_array().cloned().unwrap_or_default();
                taints.push(entry);
                after["spec"]["taints"] = json!(taints);
            }
        } else {
            merge(&mut after, &asked.body);
        }
        if after != before {
            self.store(path, after.clone());
            self.see(&name, path, (&before, &after));
        }
        (200, self.objects[path].to_string())
    }

    fn see(&mut self, name: &str, path: &str, (before, after): (&Value, &Value)) {
        let mut see = |what: &str, of: &dyn Fn(&Value) -> Value| {
            if of(before) != of(after) {
                self.effect(format!("{what} {name} {}", of(after)), after);
            }
        };
        if path.starts_with(NODES) {
            see("cordon", &|node| node["spec"]["unschedulable"].clone());
            see("taint", &|node| json!(node["spec"]["taints"].as_array().map_or(0, Vec::len)));
        }
        if path.contains("/pods/") || path.starts_with(NODES) {
            see("annotate", &|object| object["metadata"]["annotations"]["detector.dev/incident"].clone());
            see("phase", &|object| object["status"]["phase"].clone());
        }
    }

    /// Writes down what was done to a pod or a Node.
    fn effect(&mut self, what: String, object: &Value) {
        let named = object["spec"]["nodeName"].as_str().or_else(|| object["metadata"]["name"].as_str());
        let node = named.unwrap_or_default().to_owned();
        let facts = self.objects.get(&format!("{NODES}/{node}")).cloned().unwrap_or_default();
        self.deeds.push(Deed {
            what: what.clone(),
            second: self.second,
            died: self.dead.get(&node).copied(),
            boot: facts["status"]["nodeInfo"]["bootID"].as_str().unwrap_or_default().to_owned(),
            given_up: facts["status"]["conditions"][0]["status"] == "Unknown",
            node,
        });
        self.effects.push(what);
    }

    /// The status of an incident: the leader's part, and what replicas told.
    fn joined(&self, path: &str) -> Value {
        let parts = self.parts.iter().filter(|((of, _), _)| of == path);
        let mut status = json!({});
        for (_, part) in parts {
            for (key, value) in part.as_object().into_iter().flatten() {
                match (status[key].as_array().cloned(), value.as_array()) {
                    (Some(mut all), Some(more)) => {
                        all.extend(more.iter().cloned());
                        status[key] = json!(all);
                    }
                    _ => status[key] = value.clone(),
                }
            }
        }
        status
    }
}

/// Each of `all`, without repetition.
pub(super) fn set(all: &[String]) -> BTreeSet<&str> {
    all.iter().map(String::as_str).collect()
}
