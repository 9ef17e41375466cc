//! Compares what the watcher told of the container with what was started. Pure: lines in, complaints out.

use serde_json::{Value, json};

use super::POD;

/// What must be told of a kill.
pub(super) struct Expected<'a> {
    /// Name of the container.
    pub(super) name: &'a str,
    /// Whether its first process dies (`init`) or another (`child`).
    pub(super) role: &'a str,
    /// Its id, as containerd told it.
    pub(super) id: &'a str,
    /// Pid of its first process, as containerd's shim wrote it, if that could still be read.
    pub(super) init: Option<u64>,
    /// Path of its cgroup.
    pub(super) cgroup: &'a str,
    /// Its limit in bytes.
    pub(super) limit: u64,
}

/// Complaints about a kill.
pub(super) fn kill(line: &Value, expected: &Expected<'_>) -> Vec<String> {
    let victim = if expected.role == "init" { "oom-init" } else { "oom-eater" };
    let facts = [
        ("/owner/kind", json!("container")),
        ("/owner/runtime", json!("containerd")),
        ("/owner/container", json!(expected.name)),
        ("/owner/container_id", json!(expected.id)),
        ("/owner/namespace", json!(POD.namespace)),
        ("/owner/pod", json!(POD.name)),
        ("/owner/pod_uid", json!(POD.uid)),
        ("/owner/qos", json!("burstable")),
        ("/cgroup/path", json!(expected.cgroup)),
        ("/limit/hit", json!("container")),
        ("/limit/bytes", json!(expected.limit)),
        ("/victim/comm", json!(victim)),
        ("/victim/process", json!(expected.role)),
    ];
    let mut wrong: Vec<String> = facts
        .into_iter()
        .filter(|(field, wanted)| line.pointer(field) != Some(wanted))
        .map(|(field, wanted)| format!("{field}: {wanted}, not {:?}", line.pointer(field)))
        .collect();
    let pid = line.pointer("/victim/pid").and_then(Value::as_u64);
    if let Some(init) = expected.init
        && (pid == Some(init)) != (expected.role == "init")
    {
        wrong.push(format!("/victim/pid: {pid:?} with the init {init}"));
    }
    wrong
}

/// Complaints about all lines.
pub(super) fn rest(lines: &[Value]) -> Vec<String> {
    let mut wrong: Vec<String> = lines
        .iter()
        .filter(|line| line["type"] == "notice")
        .map(|line| format!("notice {}", line["message"]))
        .collect();
    let summary = lines.iter().find(|line| line["type"] == "summary");
    for (field, wanted) in [("kills", 2), ("unresolved", 0), ("lost", 0), ("unaccounted", 0)] {
        let told = summary.and_then(|summary| summary[field].as_i64());
        if told != Some(wanted) {
            wrong.push(format!("summary.{field}: {wanted}, not {told:?}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_without_names_is_complained_of_field_by_field() {
        let line = json!({
            "owner": { "kind": "container", "runtime": "containerd", "container": null, "container_id": "ab",
                "namespace": "shop", "pod": POD.name, "pod_uid": POD.uid, "qos": "burstable" },
            "cgroup": { "path": "/a" }, "limit": { "hit": "container", "bytes": 7 },
            "victim": { "pid": 5, "comm": "oom-eater", "process": "child" },
        });
        let expected = Expected { name: "app", role: "child", id: "ab", init: Some(5), cgroup: "/a", limit: 7 };
        let wrong = kill(&line, &expected);
        assert_eq!(wrong, ["/owner/container: \"app\", not Some(Null)", "/victim/pid: Some(5) with the init 5"]);
    }

    #[test]
    fn a_missing_summary_is_complained_of() {
        assert_eq!(rest(&[]).len(), 4);
    }
}
