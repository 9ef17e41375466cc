//! Requests to the API server as they go out: reads, the kinds of patch, deletions.
//!
//! What each kind of patch may be used for was measured: a merge patch replaces lists, a strategic one merges pod conditions
//! by type but replaces taints, a JSON patch changes one entry of a list and can test it first.

use http::{Method, Request, header::CONTENT_TYPE};
use serde_json::{Map, Value, json};

/// A request with its body.
pub type Raw = Request<Vec<u8>>;

/// A path or a name could not be made into a request.
#[derive(Debug, thiserror::Error)]
#[error("make a request to {path}")]
pub struct RequestError {
    /// Where it was to go.
    pub path: String,
    source: http::Error,
}

/// A name that cannot be part of a path: it would lead to another object.
#[derive(Debug, thiserror::Error)]
#[error("make a path of {0:?}, which is no name of an object")]
pub struct NameError(pub String);

/// The object `name` in the collection at `collection`.
///
/// # Errors
///
/// If `name` is none that the server gives to objects: letters, digits, `-`, `.`, `_` and `:`.
pub fn path(collection: &str, name: &str) -> Result<String, NameError> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    let fits = !name.is_empty() && name.bytes().all(is_name) && name.bytes().any(|byte| byte != b'.');
    if fits { Ok(format!("{collection}/{name}")) } else { Err(NameError(name.to_owned())) }
}

/// How a patch is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patch {
    /// RFC 7386: what is null is removed, lists are replaced.
    Merge,
    /// Lists with a merge key, such as a pod's conditions, are merged by it.
    Strategic,
    /// RFC 6902: operations, all or none of them.
    Json,
}

impl Patch {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Json => "application/json-patch+json",
        }
    }
}

/// Reads the object at `path`.
///
/// # Errors
///
/// If `path` cannot stand in a request.
pub fn get(path: &str) -> Result<Raw, RequestError> {
    build(Method::GET, path, path.to_owned(), "application/json", Vec::new())
}

/// Makes an object in the collection at `path`.
///
/// # Errors
///
/// As [`get`].
pub fn post(path: &str, manager: &str, object: &Value) -> Result<Raw, RequestError> {
    build(Method::POST, path, managed(path, manager), "application/json", object.to_string().into_bytes())
}

/// Changes the object at `path`.
///
/// # Errors
///
/// As [`get`].
pub fn patch(path: &str, manager: &str, kind: Patch, body: &Value) -> Result<Raw, RequestError> {
    build(Method::PATCH, path, managed(path, manager), kind.content_type(), body.to_string().into_bytes())
}

/// A deletion of one object and of no other that has its name by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion<'a> {
    /// `metadata.uid` of the object that is meant.
    pub uid: &'a str,
    /// Seconds that it is given to end; `None`: its own.
    pub grace_seconds: Option<u32>,
    /// `metadata.resourceVersion` that it must still have; `None`: whichever.
    pub version: Option<&'a str>,
    /// Only ask whether it would be allowed.
    pub dry_run: bool,
}

impl<'a> Deletion<'a> {
    /// Of the object with this uid, with its own grace.
    #[must_use]
    pub const fn of(uid: &'a str) -> Self {
        Self { uid, grace_seconds: None, version: None, dry_run: false }
    }
}

/// Deletes the object at `path`.
///
/// All options stand in the body: the server ignores those of the query once there is a body, `dryRun` too.
///
/// # Errors
///
/// As [`get`].
pub fn delete(path: &str, deletion: &Deletion<'_>) -> Result<Raw, RequestError> {
    let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": deletion.uid}});
    if let Some(version) = deletion.version {
        body["preconditions"]["resourceVersion"] = version.into();
    }
    if let Some(seconds) = deletion.grace_seconds {
        body["gracePeriodSeconds"] = seconds.into();
    }
    if deletion.dry_run {
        body["dryRun"] = json!(["All"]);
    }
    build(Method::DELETE, path, path.to_owned(), "application/json", body.to_string().into_bytes())
}

/// `pairs` as a JSON object; a value of `None` is null, which removes its key in a merge.
#[must_use]
pub fn annotations<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Value {
    let pairs = pairs.into_iter().map(|(key, value)| (key.to_owned(), value.map_or(Value::Null, Value::from)));
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn managed(path: &str, manager: &str) -> String {
    format!("{path}?fieldManager={manager}")
}

fn build(method: Method, path: &str, uri: String, kind: &str, body: Vec<u8>) -> Result<Raw, RequestError> {
    let request = Request::builder().method(method).uri(uri).header(CONTENT_TYPE, kind).body(body);
    request.map_err(|source| RequestError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(request: &Raw) -> Value {
        serde_json::from_slice(request.body()).expect("JSON")
    }

    #[test]
    fn a_deletion_says_everything_in_its_body() {
        let asked = Deletion { uid: "u-1", grace_seconds: Some(0), version: Some("7"), dry_run: true };
        let request = delete("/api/v1/namespaces/shop/pods/cart-0", &asked).expect("a request");
        assert_eq!(request.uri().query(), None, "the query is ignored beside a body, and the pod really deleted");
        assert_eq!(
            body(&request),
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "dryRun": ["All"],
                "preconditions": {"uid": "u-1", "resourceVersion": "7"}})
        );
    }

    #[test]
    fn a_plain_deletion_leaves_the_grace_to_the_object() {
        let request = delete("/api/v1/nodes/a", &Deletion::of("u-1")).expect("a request");
        assert_eq!(
            body(&request),
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "u-1"}})
        );
    }

    #[test]
    fn a_patch_names_its_author_and_its_kind() {
        let request = patch("/api/v1/nodes/a", "m", Patch::Json, &json!([])).expect("a request");
        assert_eq!((request.uri().query(), request.method().as_str()), (Some("fieldManager=m"), "PATCH"));
        assert_eq!(request.headers()[CONTENT_TYPE], "application/json-patch+json");
    }

    #[test]
    fn a_name_leads_to_its_own_object_only() {
        assert_eq!(path("/api/v1/nodes", "node-a.example").expect("a name"), "/api/v1/nodes/node-a.example");
        for name in ["", ".", "..", "a/status", "a?x", "a#", "a b", "a%2f", "ä"] {
            assert!(path("/api/v1/nodes", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_name_that_breaks_a_path_is_refused_and_not_sent_elsewhere() {
        let error = get("/api/v1/nodes/a b").expect_err("no path");
        assert_eq!(error.to_string(), "make a request to /api/v1/nodes/a b");
    }
}
