//! What is sent to the API server, and what it answers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::message::{MAX_MESSAGE, time};
use crate::{
    contract::problem::{CONDITIONS, Condition},
    text,
};

/// Name by which the API server knows our fields.
pub const FIELD_MANAGER: &str = "detector-agent";

/// What the conditions want of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionWrite {
    /// Tell what stands: an empty merge patch of `nodes/NAME/status` as dry run.
    Read,
    /// Apply these, and no others, to `nodes/NAME/status`.
    Apply(Vec<NodeCondition>),
}

/// One condition as it is to stand. Only made of names in the catalogue: the API server would take anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeCondition {
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
    last_heartbeat_time: String,
    last_transition_time: String,
}

impl NodeCondition {
    /// `condition` as `words` have it. A reason that the catalogue does not have gives way to the general one, a
    /// message beyond [`MAX_MESSAGE`] is cut. Times in microseconds since 1970 UTC.
    pub(super) fn new(condition: &'static Condition, words: &Words, heartbeat_us: i64, transition_us: i64) -> Self {
        let reason = match words.status {
            true => condition.known_reason(&words.reason).unwrap_or_else(|| condition.raised_reason()),
            false => condition.known_clear_reason(&words.reason).unwrap_or(condition.clear_reason),
        };
        Self {
            kind: condition.kind,
            status: status_word(words.status),
            reason,
            message: text::start(&words.message, MAX_MESSAGE).to_owned(),
            last_heartbeat_time: time(heartbeat_us),
            last_transition_time: time(transition_us),
        }
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// `True` or `False`.
    #[must_use]
    pub fn status(&self) -> &'static str {
        self.status
    }

    /// Its reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// Its message, at most [`MAX_MESSAGE`] bytes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When its status changed last, RFC 3339.
    #[must_use]
    pub fn last_transition_time(&self) -> &str {
        &self.last_transition_time
    }
}

/// What a condition says. Without a time, so that two are equal as long as nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) status: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

pub(super) fn status_word(status: bool) -> &'static str {
    if status { "True" } else { "False" }
}

/// Body of a server-side apply that leaves these conditions of ours on the Node, and no others.
#[must_use]
pub fn apply_body(node: &str, conditions: &[NodeCondition]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": node },
        "status": { "conditions": conditions },
    })
}

/// Body of a strategic merge patch that deletes the conditions of these types, whoever owns them.
#[must_use]
pub fn delete_body(kinds: &[&str]) -> Value {
    let conditions: Vec<_> = kinds.iter().map(|kind| json!({ "type": kind, "$patch": "delete" })).collect();
    json!({ "status": { "conditions": conditions } })
}

/// A condition of our types that stands on the Node, whoever wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Standing {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False`, `Unknown`; empty in a shell that an apply left where another writer had owned a part.
    pub status: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// When its writer last asserted it.
    pub last_heartbeat_time: Option<Timestamp>,
    /// When its status changed last.
    pub last_transition_time: Option<Timestamp>,
}

/// The API server's answer is not a Node.
#[derive(Debug, thiserror::Error)]
#[error("read the conditions of the Node that the API server answered")]
pub struct NoNode {
    /// Why.
    #[from]
    #[source]
    pub cause: serde_json::Error,
}

/// Conditions of our types in `answer`, a Node in JSON. All else in it is passed over.
pub fn standing(answer: &[u8]) -> Result<Vec<Standing>, NoNode> {
    #[derive(Deserialize)]
    struct Node {
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        conditions: Option<Vec<Value>>,
    }
    let node: Node = serde_json::from_slice(answer)?;
    let ours = |value: &Value| CONDITIONS.iter().any(|condition| value["type"] == condition.kind);
    let conditions = node.status.conditions.unwrap_or_default();
    // A field of ours in a form that is not ours (null, say) is as good as none: what we write takes its place.
    let read = |value| serde_json::from_value(without_nulls(value)).map_err(NoNode::from);
    conditions.into_iter().filter(ours).map(read).collect()
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::problem::{KERNEL_DEADLOCK, TASK_HUNG};

    fn words(status: bool, reason: &str, message: &str) -> Words {
        Words { status, reason: reason.into(), message: message.into() }
    }

    #[test]
    fn a_condition_is_written_with_all_its_fields() {
        let condition = NodeCondition::new(&TASK_HUNG, &words(true, "TaskHung", "m"), 2_000_000, 1_000_000);
        assert_eq!(
            apply_body("a", &[condition]),
            json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
                "status": {"conditions": [{
                    "type": "TaskHung", "status": "True", "reason": "TaskHung", "message": "m",
                    "lastHeartbeatTime": "1970-01-01T00:00:02Z", "lastTransitionTime": "1970-01-01T00:00:01Z",
                }]},
            })
        );
    }

    #[test]
    fn a_reason_that_is_not_in_the_catalogue_gives_way() {
        let made = |status, reason| NodeCondition::new(&KERNEL_DEADLOCK, &words(status, reason, ""), 0, 0).reason();
        assert_eq!(made(true, "DockerHung"), "DockerHung");
        assert_eq!(made(true, "with a blank"), "RuntimeTaskHung");
        assert_eq!(made(true, "KernelHasNoDeadlock"), "RuntimeTaskHung");
        assert_eq!(made(false, "DockerHung"), "KernelHasNoDeadlock");
    }

    #[test]
    fn a_message_is_cut_at_a_character() {
        let condition = NodeCondition::new(&TASK_HUNG, &words(true, "TaskHung", &"€".repeat(2000)), 0, 0);
        assert_eq!(condition.message().len(), MAX_MESSAGE - MAX_MESSAGE % 3);
    }

    #[test]
    fn of_a_node_only_conditions_of_ours_are_read() {
        let node = json!({"kind": "Node", "spec": {}, "status": {"images": [1], "conditions": [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": 7},
            {"type": "TaskHung", "status": "True", "reason": "TaskHung", "message": "m",
             "lastHeartbeatTime": "2026-11-22T09:00:00Z", "lastTransitionTime": null},
            {"type": "KernelDeadlock"},
            "not an object",
        ]}});
        let read = standing(node.to_string().as_bytes()).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].last_heartbeat_time.unwrap().to_string(), "2026-11-22T09:00:00Z");
        assert_eq!(read[0].last_transition_time, None);
        assert_eq!((read[0].status.as_str(), read[1].status.as_str()), ("True", ""));
    }

    #[test]
    fn strange_answers_are_errors_or_nothing() {
        for (answer, conditions) in [("{}", 0), (r#"{"status":{}}"#, 0), (r#"{"status":{"conditions":null}}"#, 0)] {
            assert_eq!(standing(answer.as_bytes()).unwrap().len(), conditions, "{answer}");
        }
        for answer in ["", "[]x", r#"{"status":{"conditions":7}}"#, r#"{"status":{"conditions":[{"type":"TaskHung","#] {
            assert!(standing(answer.as_bytes()).is_err(), "{answer}");
        }
    }

    #[test]
    fn a_deletion_names_each_type() {
        assert_eq!(delete_body(&["A"]), json!({"status": {"conditions": [{"type": "A", "$patch": "delete"}]}}));
    }
}
