//! The JSON shape of one state of a hang.

use super::owner;
use crate::{
    agent::{
        decode::event::{CgroupKey, Holder, Lock},
        locate::Place,
        problem::{Frame, Hang, HangState},
        sink::{Units, lock_word},
    },
    contract::watch,
};

pub(super) fn line(hang: &Hang, units: &Units) -> watch::HungTask {
    let task = &hang.event.task;
    let holder_place = hang.holder_place.as_deref();
    watch::HungTask {
        time: units.wall.rfc3339(hang.boot_ns),
        boot_ns: hang.boot_ns,
        method: hang.method.name(),
        hang: hang.number,
        state: state(hang.state),
        hung_ms: u64::try_from(hang.hung.as_millis()).unwrap_or(u64::MAX),
        task: watch::Task {
            pid: task.tgid,
            tid: task.pid,
            comm: task.comm.map(|comm| comm.to_text()),
            leader_comm: task.leader_comm.map(|comm| comm.to_text()),
            started_boot_ns: task.leader_start_ns,
            thread_started_boot_ns: task.start_ns,
        },
        cgroup: cgroup(task.cgroup, hang.place.as_deref()),
        owner: owner(hang.place.as_deref()),
        lock: hang.event.lock.map(|known| match known {
            Some(of) => lock(&of, holder_place),
            None => watch::Lock { kind: "none", holder: None },
        }),
        stack: hang.stack.iter().map(Frame::to_string).collect(),
    }
}

fn state(state: HangState) -> &'static str {
    match state {
        HangState::Raised => "raised",
        HangState::Sustained => "sustained",
        HangState::Ran => "ran",
        HangState::Exited => "exited",
    }
}

fn lock(lock: &Lock, holder_place: Option<&Place>) -> watch::Lock {
    watch::Lock { kind: lock_word(lock.kind), holder: lock.holder.as_ref().map(|of| holder(of, holder_place)) }
}

fn holder(holder: &Holder, place: Option<&Place>) -> watch::Holder {
    let Holder { task, likely } = holder;
    watch::Holder {
        pid: task.tgid,
        tid: task.pid,
        comm: task.comm.map(|comm| comm.to_text()),
        leader_comm: task.leader_comm.map(|comm| comm.to_text()),
        likely: *likely,
        cgroup: cgroup(task.cgroup, place),
        owner: owner(place),
    }
}

/// A task's cgroup; where only its path was found, that.
fn cgroup(key: Option<CgroupKey>, place: Option<&Place>) -> Option<watch::Cgroup> {
    let path = place.map(|place| place.path.to_string());
    match key {
        Some(key) => Some(watch::Cgroup { hierarchy: Some(key.hierarchy), id: Some(key.id), path }),
        None => path.map(|path| watch::Cgroup { hierarchy: None, id: None, path: Some(path) }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::agent::sink::fixture;

    fn told(hang: &Hang) -> Value {
        serde_json::to_value(line(hang, &fixture::UNITS)).expect("a line is JSON")
    }

    #[test]
    fn a_hang_behind_a_lock_of_another_container_is_told_whole() {
        let container = |name: &str| {
            json!({
                "kind": "container", "runtime": "containerd", "container_id": fixture::CONTAINER_ID,
                "container": name, "pod_uid": fixture::POD_UID, "pod": "cart-7d9c6b5f4-x2v8k", "namespace": "shop",
                "qos": "burstable", "unit": null,
            })
        };
        let expected = json!({
            "time": "2023-11-14T22:15:00.000000Z", "boot_ns": 100_000_000_000_u64, "method": "btf_tracepoint",
            "hang": 1, "state": "raised", "hung_ms": 12_500,
            "task": {
                "pid": 4242, "tid": 4243, "comm": "worker", "leader_comm": "app",
                "started_boot_ns": 80_000_000_000_u64, "thread_started_boot_ns": 81_000_000_000_u64,
            },
            "cgroup": { "hierarchy": 0, "id": 900, "path": fixture::CONTAINER_PATH },
            "owner": container("app"),
            "lock": {
                "kind": "mutex",
                "holder": {
                    "pid": 4300, "tid": 4301, "comm": "flush", "leader_comm": "sidecar", "likely": false,
                    "cgroup": { "hierarchy": 0, "id": 901, "path": "/sidecar" }, "owner": container("sidecar"),
                },
            },
            "stack": ["__mutex_lock.constprop.0+0x2f4", "ext4_map_blocks+0x12 [ext4]", "?"],
        });
        assert_eq!(told(&fixture::hang()), expected);
    }

    #[test]
    fn what_is_not_known_of_a_hang_is_null() {
        let hang = told(&fixture::unknown_hang());
        for pointer in ["/task/pid", "/task/leader_comm", "/task/thread_started_boot_ns", "/cgroup", "/lock"] {
            assert_eq!(hang.pointer(pointer), Some(&Value::Null), "{pointer} in {hang}");
        }
        assert_eq!((&hang["owner"]["kind"], &hang["stack"]), (&json!("unknown"), &json!([])));
    }

    #[test]
    fn no_lock_is_an_answer_and_not_unknown() {
        let mut hang = fixture::unknown_hang();
        hang.event.lock = Some(None);
        assert_eq!(told(&hang)["lock"], json!({ "kind": "none", "holder": null }));
    }

    #[test]
    fn each_state_has_its_word() {
        let states = [HangState::Raised, HangState::Sustained, HangState::Ran, HangState::Exited];
        let words = states.map(|state| told(&Hang { state, ..fixture::hang() })["state"].clone());
        assert_eq!(words, ["raised", "sustained", "ran", "exited"]);
    }
}
