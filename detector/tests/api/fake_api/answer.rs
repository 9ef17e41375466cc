//! Answers as a real API server words them.

use std::io;

use axum::body::{Body, Bytes};
use futures::StreamExt as _;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::Scenario;

/// Whether the server does what it was asked, whatever it then says.
pub(super) fn carries_out(scenario: Scenario) -> bool {
    matches!(scenario, Scenario::Ok | Scenario::HalfABody | Scenario::NotJson | Scenario::AnswerLost)
}

/// The answer, or the end of the connection.
pub(super) fn to(scenario: Scenario, outcome: Option<(u16, Value)>) -> io::Result<Response<Body>> {
    let (code, object) = outcome.unwrap_or((500, Value::Null));
    let web_page = "<html><body>Welcome</body></html>";
    Ok(match scenario {
        Scenario::Ok => full(code, &object.to_string()),
        Scenario::HalfABody => broken(status_code(code), &first_half(&object.to_string())),
        Scenario::NotJson => full(code, web_page),
        Scenario::HalfAnError => {
            broken(status_code(500), &first_half(&status(500, "InternalError", "etcdserver: request timed out")))
        }
        Scenario::Conflict => full(409, &status(409, "AlreadyExists", "events \"x\" already exists")),
        Scenario::Gone => full(410, &status(410, "Gone", "the resource is gone")),
        Scenario::Unprocessable => full(422, &status(422, "Invalid", "Event \"x\" is invalid: note: can have at most")),
        Scenario::TooMany(seconds) => later(full(429, "Too many requests, please try again later.\n"), seconds),
        Scenario::ServerError => full(500, &status(500, "InternalError", "etcdserver: no leader")),
        Scenario::Unavailable(seconds) => later(full(503, "apiserver not ready"), seconds),
        Scenario::Terminating => full(403, &terminating()),
        Scenario::Forbidden => {
            full(403, &status(403, "Forbidden", "events.events.k8s.io is forbidden: User \"x\" cannot"))
        }
        Scenario::NotReady => full(
            403,
            &status(403, "Forbidden", "events.events.k8s.io \"x\" is forbidden: not yet ready to handle request"),
        ),
        Scenario::Unauthorized => full(401, &status(401, "Unauthorized", "Unauthorized")),
        Scenario::NoNamespace => full(404, &no_namespace()),
        Scenario::Down | Scenario::AnswerLost | Scenario::Hangs => {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset"));
        }
    })
}

/// An answer whose body ends with the connection after `text`.
pub(super) fn broken(code: StatusCode, text: &str) -> Response<Body> {
    let start = futures::stream::iter([Ok(Bytes::from(text.to_owned()))]);
    // What was said so far is sent before the end comes.
    let end = futures::stream::once(async {
        tokio::task::yield_now().await;
        Err(io::Error::from(io::ErrorKind::UnexpectedEof))
    });
    response(code, Body::from_stream(start.chain(end)))
}

fn first_half(text: &str) -> String {
    text.chars().take(text.chars().count() / 2).collect()
}

fn full(code: u16, text: &str) -> Response<Body> {
    response(status_code(code), Body::from(text.to_owned()))
}

fn response(code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
}

fn later(mut response: Response<Body>, seconds: u64) -> Response<Body> {
    response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    response
}

fn status_code(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("a code of ours")
}

/// A `Status` object.
pub(super) fn status(code: u16, reason: &str, message: &str) -> String {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    status.to_string()
}

fn no_namespace() -> String {
    with_details("NotFound", 404, "namespaces \"shop\" not found", json!({"name": "shop", "kind": "namespaces"}))
}

fn terminating() -> String {
    let message = "events.events.k8s.io \"x\" is forbidden: unable to create new content in namespace shop because it is \
                   being terminated";
    let causes = json!({"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]});
    with_details("Forbidden", 403, message, causes)
}

fn with_details(reason: &str, code: u16, message: &str, details: Value) -> String {
    let mut status: Value = serde_json::from_str(&status(code, reason, message)).expect("JSON of ours");
    status["details"] = details;
    status.to_string()
}
