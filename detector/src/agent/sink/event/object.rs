//! Events as the API server takes them: names, bodies, paths.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::series::{Regarding, Series};
use crate::{
    agent::sink::report::RecordId,
    cluster::Identity,
    contract::event::{INSTANCE_BYTES, REPORTING_CONTROLLER, Reason},
    digest::Digest,
};

/// Longest name of an object in bytes (a DNS subdomain, RFC 1123).
const NAME_BYTES: usize = 253;
/// Digits of a digest.
const DIGITS: usize = 16;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Makes the event.
    Create,
    /// Changes the count of its series.
    Update,
}

/// One write to the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct EventWrite {
    /// What it does.
    pub action: Action,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Why the event exists.
    pub reason: Reason,
    /// The event, or the change as a merge patch.
    pub body: Value,
    /// When the oldest happening was that this write tells, nanoseconds since boot; `None`: in an earlier boot.
    pub oldest_ns: Option<u64>,
}

impl EventWrite {
    /// Whether the event is about the Node, and not about a pod; never of an update, which does not say.
    #[must_use]
    pub fn is_about_node(&self) -> bool {
        self.body["regarding"]["kind"] == "Node"
    }

    /// Path of the request.
    #[must_use]
    pub fn path(&self) -> String {
        let Self { namespace, name, .. } = self;
        let collection = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        match self.action {
            Action::Create => collection,
            Action::Update => format!("{collection}/{name}"),
        }
    }
}

/// The write that brings the API server's knowledge of `series` up to date.
pub(super) fn write(series: &Series, identity: &Identity, boot_id: &str) -> EventWrite {
    let namespace = &series.first.namespace;
    let action = if series.exists { Action::Update } else { Action::Create };
    let body = match action {
        Action::Create => event(series, identity, namespace),
        Action::Update => json!({"series": series_of(series)}),
    };
    EventWrite {
        action,
        namespace: namespace.clone(),
        name: series.first.name.clone(),
        reason: series.key.reason,
        body,
        oldest_ns: series.oldest_in(boot_id),
    }
}

fn event(series: &Series, identity: &Identity, namespace: &str) -> Value {
    let reason = series.key.reason;
    let mut event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": series.first.name, "namespace": namespace},
        "eventTime": micro_time(series.first.time_us),
        "type": "Warning",
        "reason": reason.name(),
        "action": reason.action(),
        "note": series.first.note,
        "reportingController": REPORTING_CONTROLLER,
        "reportingInstance": start(&identity.node, INSTANCE_BYTES),
        "regarding": regarding(&series.first.regarding, identity),
    });
    // The API server takes no series of one.
    if series.count > 1 {
        event["series"] = series_of(series);
    }
    event
}

fn series_of(series: &Series) -> Value {
    // A clock that was set back must not make the last happening older than the first.
    let last = series.last_us.max(series.first.time_us);
    let count = i32::try_from(series.count).unwrap_or(i32::MAX);
    json!({"count": count, "lastObservedTime": micro_time(last)})
}

fn regarding(regarding: &Regarding, identity: &Identity) -> Value {
    match regarding {
        Regarding::Pod { namespace, name, uid, container } => {
            let mut object =
                json!({"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid});
            if let Some(container) = container {
                object["fieldPath"] = format!("spec.containers{{{container}}}").into();
            }
            object
        }
        Regarding::Node => {
            // `kubectl describe node` asks for the uid and for the name in place of it.
            let uid = identity.node_uid.as_deref().unwrap_or(&identity.node);
            json!({"apiVersion": "v1", "kind": "Node", "name": identity.node, "uid": uid})
        }
    }
}

/// RFC 3339 with six digits, as `metav1.MicroTime` wants it.
fn micro_time(time_us: i64) -> String {
    format!("{:.6}", Timestamp::from_microsecond(time_us).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Name of the event that `record` begins, about `what`.
pub(super) fn name_of(series: &Regarding, node: &str, record: &RecordId, reason: Reason) -> String {
    let digest = digest([
        record.boot_id.as_bytes(),
        &record.cpu.to_le_bytes(),
        &record.sequence.to_le_bytes(),
        reason.name().as_bytes(),
    ]);
    match series {
        Regarding::Pod { name: pod, .. } => name(pod, digest),
        Regarding::Node => name(node, digest),
    }
}

/// `subject.digest`, with a subject that makes a valid name.
pub(super) fn name(subject: &str, digest: u64) -> String {
    let valid = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' { c } else { '-' };
    let labels = subject.split('.').map(|label| label.chars().map(valid).collect::<String>());
    let labels: Vec<String> =
        labels.map(|label| label.trim_matches('-').to_owned()).filter(|label| !label.is_empty()).collect();
    let subject = labels.join(".");
    let subject = start(&subject, NAME_BYTES - DIGITS - 1).trim_end_matches(['-', '.']);
    let separator = if subject.is_empty() { "" } else { "." };
    format!("{subject}{separator}{digest:016x}")
}

fn start(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

/// One number for all parts: the same in every version of the program, as names have to be.
pub(super) fn digest<const N: usize>(parts: [&[u8]; N]) -> u64 {
    // A separator that no part ends with keeps "ab" + "c" from being "a" + "bc".
    parts.into_iter().fold(Digest::EMPTY, |digest, part| digest.with(part).with(&[0xff])).value()
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{SECOND, kill, queue, written},
        *,
    };
    use crate::{agent::sink::report::Subject, config};

    #[test]
    fn a_new_namespace_for_events_of_the_node_holds_for_new_series_only() {
        let mut events = queue();
        let unit = |at| {
            let subject = Subject { unit: Some("ssh.service".to_owned()), ..Subject::default() };
            kill(at, subject, at)
        };
        events.kill(&unit(SECOND), SECOND);
        assert_eq!(written(&mut events, SECOND).namespace, "default");
        events.configure(config::Events { node_namespace: "kube-system".to_owned(), ..config::Events::default() });
        events.kill(&unit(2 * SECOND), 2 * SECOND);
        let update = written(&mut events, 3 * SECOND);
        assert_eq!((update.action, update.namespace.as_str()), (Action::Update, "default"));
        events.kill(&unit(2000 * SECOND), 2000 * SECOND);
        let anew = written(&mut events, 2000 * SECOND);
        assert_eq!((anew.action, anew.namespace.as_str()), (Action::Create, "kube-system"));
    }
}
