//! The brake: while it is pulled, no step is begun but the reason of a told panic and what takes something back; a step that
//! was begun is brought to its end. It is kept in a ConfigMap, so that no restart releases it; only a person does, with
//! `detector brake release`.
//!
//! | key of the ConfigMap | holds |
//! |---|---|
//! | `state` | `pulled` or `released`; anything else counts as pulled |
//! | `reason`, `incident`, `pulledAt` | why it was pulled last, for which incident, and when |
//! | `releasedBy`, `releasedAt` | who released it last, and when |

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::{
    cluster::{
        Answer, Outcome, answer,
        request::{self, NameError, Patch, RequestError},
    },
    contract::{
        incident::MAX_MESSAGE_BYTES,
        remediation::{BRAKE_NAME, FIELD_MANAGER},
    },
    text,
};

/// Bytes of the ConfigMap that are read; ours has some hundred.
const MAX_BYTES: usize = 64 << 10;

/// How often a release is tried if the brake changes meanwhile.
const ATTEMPTS: u32 = 4;

/// How far the clock of whoever releases it may be ahead of ours.
const CLOCKS_APART: Duration = Duration::from_secs(60);

const PULLED: &str = "pulled";
const RELEASED: &str = "released";

/// The brake as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brake {
    /// It is pulled.
    pub pulled: bool,
    /// Why it was pulled last.
    pub reason: Option<String>,
    /// For which incident.
    pub incident: Option<String>,
    /// When.
    pub pulled_at: Option<Timestamp>,
    /// Who released it last.
    pub released_by: Option<String>,
    /// When. Nodes that were remediated before need not pull it again.
    pub released_at: Option<Timestamp>,
    /// `metadata.resourceVersion`; empty if there is no such object.
    pub version: String,
}

/// The brake could not be read or set. Whoever cannot read it holds every step.
#[derive(Debug, thiserror::Error)]
pub enum BrakeError {
    /// The namespace cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No request could be made.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The server did not do it.
    #[error("{doing} the brake {BRAKE_NAME}: {reason}")]
    Api {
        /// What was attempted.
        doing: &'static str,
        /// Why not.
        reason: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigMap {
    metadata: Metadata,
    data: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

impl Brake {
    fn of(object: &ConfigMap) -> Self {
        let value = |key: &str| object.data.get(key).filter(|value| !value.is_empty()).cloned();
        let time = |key: &str| value(key)?.parse().ok();
        Self {
            pulled: value("state").is_none_or(|state| state != RELEASED),
            reason: value("reason"),
            incident: value("incident"),
            pulled_at: time("pulledAt"),
            released_by: value("releasedBy"),
            released_at: time("releasedAt"),
            version: object.metadata.resource_version.clone(),
        }
    }

    /// When it was released last, as of `now`. A time that is yet to come is of a clock that is wrong: to believe it would be
    /// to count no node until then.
    #[must_use]
    pub fn released_by_now(&self, now: Timestamp) -> Option<Timestamp> {
        let latest = now.checked_add(CLOCKS_APART).unwrap_or(Timestamp::MAX);
        self.released_at.filter(|at| *at <= latest)
    }
}

fn collection(namespace: &str) -> Result<String, NameError> {
    Ok(format!("{}/configmaps", request::path("/api/v1/namespaces", namespace)?))
}

fn path(namespace: &str) -> Result<String, NameError> {
    request::path(&collection(namespace)?, BRAKE_NAME)
}

/// Reads the brake of the controller in `namespace`. Where there is no such object, it was never pulled.
///
/// # Errors
///
/// If it is not known whether it is pulled.
pub async fn read(client: &kube::Client, namespace: &str) -> Result<Brake, BrakeError> {
    let failed = |reason| BrakeError::Api { doing: "read", reason };
    let (answer, body) = answer::ask(client, request::get(&path(namespace)?)?, MAX_BYTES).await;
    let missing = answer::is_missing(&answer, &body, BRAKE_NAME);
    match answer.outcome {
        Outcome::Done => {
            let object: ConfigMap = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
            Ok(Brake::of(&object))
        }
        Outcome::Gone(_) if missing => Ok(Brake::default()),
        // Something else is not there.
        Outcome::Gone(reason) => Err(failed(reason)),
        Outcome::AlreadyThere => Err(failed("the API server answered 409".to_owned())),
        Outcome::Final(reason) | Outcome::Retry { reason, .. } => Err(failed(reason)),
    }
}

/// Pulls the brake because of `incident`. One that is pulled already keeps its first reason.
///
/// # Errors
///
/// If it may not be pulled now.
pub async fn pull(
    client: &kube::Client,
    namespace: &str,
    reason: &str,
    incident: &str,
    now: Timestamp,
) -> Result<Brake, BrakeError> {
    let reason = text::cut(&text::harmless(reason), MAX_MESSAGE_BYTES);
    let data = json!({"state": PULLED, "reason": reason, "incident": incident, "pulledAt": format!("{now:.0}")});
    set(client, namespace, "pull", true, &data).await
}

/// Releases the brake, by `who`.
///
/// # Errors
///
/// If it is not released now.
pub async fn release(client: &kube::Client, namespace: &str, who: &str, now: Timestamp) -> Result<Brake, BrakeError> {
    let who = text::cut(&text::harmless(who), MAX_MESSAGE_BYTES);
    let data = json!({"state": RELEASED, "releasedBy": who, "releasedAt": format!("{now:.0}")});
    set(client, namespace, "release", false, &data).await
}

/// Sets it, unless it is set so already, in the version that was read: of two who set it, the second sees what the first did.
async fn set(
    client: &kube::Client,
    namespace: &str,
    doing: &'static str,
    pulled: bool,
    data: &serde_json::Value,
) -> Result<Brake, BrakeError> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let brake = read(client, namespace).await?;
        if brake.pulled == pulled {
            return Ok(brake);
        }
        let request = if brake.version.is_empty() {
            let metadata = json!({"name": BRAKE_NAME, "namespace": namespace});
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
            request::post(&collection(namespace)?, FIELD_MANAGER, &object)?
        } else {
            let body = json!({"metadata": {"resourceVersion": brake.version}, "data": data});
            request::patch(&path(namespace)?, FIELD_MANAGER, Patch::Merge, &body)?
        };
        let Answer { status, outcome } = answer::send(client, request).await;
        match outcome {
            // As it stands now, whoever set it last.
            Outcome::Done => return read(client, namespace).await,
            Outcome::Gone(reason) | Outcome::Final(reason) => return Err(BrakeError::Api { doing, reason }),
            Outcome::Retry { reason, .. } if status != Some(409) => return Err(BrakeError::Api { doing, reason }),
            Outcome::AlreadyThere => {}
            Outcome::Retry { reason, .. } => last = reason,
        }
    }
    Err(BrakeError::Api { doing, reason: format!("it changed {ATTEMPTS} times meanwhile: {last}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brake(data: &[(&str, &str)]) -> Brake {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Brake::of(&ConfigMap { data, ..ConfigMap::default() })
    }

    #[test]
    fn only_the_word_releases_it() {
        assert!(!brake(&[("state", "released")]).pulled);
        for data in [&[("state", "pulled")][..], &[("state", "Released")], &[("state", "")], &[]] {
            assert!(brake(data).pulled, "{data:?}: somebody made this object for a reason");
        }
    }

    #[test]
    fn a_release_that_is_yet_to_come_is_none() {
        let brake = brake(&[("state", "released"), ("releasedAt", "2026-11-22T12:00:00Z")]);
        let of = |now: &str| brake.released_by_now(now.parse().expect("a time"));
        assert_eq!(of("2026-11-22T12:00:00Z"), brake.released_at);
        assert_eq!(of("2026-11-22T11:59:30Z"), brake.released_at, "no two clocks are the same");
        assert_eq!(of("2026-11-22T11:00:00Z"), None);
    }

    #[test]
    fn what_is_unreadable_beside_it_is_not_known() {
        let brake = brake(&[("state", "pulled"), ("pulledAt", "yesterday"), ("reason", "too many")]);
        assert_eq!((brake.pulled_at, brake.reason.as_deref()), (None, Some("too many")));
    }
}
