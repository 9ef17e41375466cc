//! Sends one write and says what the answer means.
//!
//! The request goes out raw: kube's typed calls keep neither `Retry-After` nor the status code of an answer whose body
//! they cannot read, and the status code alone tells whether a write stands.

use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde::Deserialize;

use super::Outcome;
use crate::cause::error_chain;

/// How long a write may take, answer included.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read. A `Status` object has a few hundred; of an object written nothing is needed.
const READ: usize = 64 * 1024;

/// Longest pause that a server may ask for: what it answers may be a mistake, or a proxy's.
pub const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// Bytes of a server's message that are told.
const MESSAGE: usize = 300;

/// How a write ended, and what the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code; `None`: no answer came.
    pub status: Option<u16>,
    /// What it means.
    pub outcome: Outcome,
}

impl Answer {
    /// Whether a failure is one of the server as a whole, so that other writes would fare no better: no answer, or one
    /// that says so. Others (500, 403, a lost race) may be about this one object or its namespace, such as a webhook of
    /// somebody that fails.
    #[must_use]
    pub const fn is_about_server(&self) -> bool {
        matches!(self.status, None | Some(401 | 408 | 429 | 502..=504))
    }

    /// Whether somebody does not allow it: no right, no quota, an admission plugin.
    #[must_use]
    pub const fn is_forbidden(&self) -> bool {
        matches!(self.status, Some(403))
    }
}

/// What is read of a `Status` object.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    reason: String,
    message: String,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    name: String,
    retry_after_seconds: Option<u64>,
    causes: Vec<Cause>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
}

impl Status {
    /// Whether the namespace of the object is being terminated (`NamespaceTerminatingCause`, `core/v1/types.go`, set by the
    /// admission plugin `NamespaceLifecycle`); servers that do not name the cause say so in words.
    fn is_of_an_ending_namespace(&self) -> bool {
        let mut causes = self.details.iter().flat_map(|details| &details.causes);
        causes.any(|cause| cause.reason == "NamespaceTerminating") || self.message.contains("being terminated")
    }

    /// Whether it is an object that is not there; of a kind that is not there it has no name.
    fn names_what_is_not_there(&self) -> bool {
        self.reason == "NotFound" && self.details.as_ref().is_some_and(|details| !details.name.is_empty())
    }
}

/// Sends a request and waits for its answer, at most [`TIMEOUT`].
pub async fn send(client: &kube::Client, request: Request<Vec<u8>>) -> Answer {
    ask(client, request, READ).await.0
}

/// The same for who wants to read what was answered: up to `most` bytes, nothing of a longer answer.
pub async fn ask(client: &kube::Client, request: Request<Vec<u8>>, most: usize) -> (Answer, Vec<u8>) {
    tokio::time::timeout(TIMEOUT, exchange(client, request, most)).await.unwrap_or_else(|_| {
        let reason = format!("the API server did not answer within {} s", TIMEOUT.as_secs());
        (unanswered(reason), Vec::new())
    })
}

fn unanswered(reason: String) -> Answer {
    Answer { status: None, outcome: Outcome::Retry { after: None, reason } }
}

async fn exchange(client: &kube::Client, request: Request<Vec<u8>>, most: usize) -> (Answer, Vec<u8>) {
    let response = match client.send(request.map(Body::from)).await {
        Ok(response) => response,
        Err(error) => {
            return (unanswered(format!("the API server could not be asked: {}", error_chain(&error))), Vec::new());
        }
    };
    let (head, body) = response.into_parts();
    // What cannot be read is told by the status code alone. Read also what is not needed: the connection is then used again.
    let body = Limited::new(body, most).collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    (Answer { status: Some(head.status.as_u16()), outcome: meaning(head.status, &head.headers, &body) }, body)
}

/// Whether the server itself says that there is no object `name`. A 404 of a proxy, or of a server that does not know the
/// kind, proves nothing of an object.
#[must_use]
pub fn is_missing(answer: &Answer, body: &[u8], name: &str) -> bool {
    let status: Option<Status> = serde_json::from_slice(body).ok();
    let named = |status: Status| status.reason == "NotFound" && status.details.is_some_and(|one| one.name == name);
    answer.status == Some(404) && status.is_some_and(named)
}

/// What an answer means.
#[must_use]
pub fn meaning(code: StatusCode, headers: &HeaderMap, body: &[u8]) -> Outcome {
    if code.is_success() {
        return Outcome::Done;
    }
    let status: Option<Status> = serde_json::from_slice(body).ok();
    let reason = sentence(code, status.as_ref(), body);
    match code {
        // Another writer was faster; asked again, the server decides anew.
        StatusCode::CONFLICT if status.as_ref().is_some_and(|status| status.reason == "Conflict") => {
            Outcome::Retry { after: None, reason }
        }
        StatusCode::CONFLICT => Outcome::AlreadyThere,
        StatusCode::NOT_FOUND if status.as_ref().is_some_and(Status::names_what_is_not_there) => Outcome::Gone(reason),
        // Of a proxy, or of a server that does not know the kind yet: nothing is said of the object.
        StatusCode::NOT_FOUND => Outcome::Retry { after: after(headers, status.as_ref()), reason },
        StatusCode::FORBIDDEN if status.as_ref().is_some_and(Status::is_of_an_ending_namespace) => {
            Outcome::Gone(reason)
        }
        // 401: the token is renewed on disk, and read again within a minute. 403: rights may be given; and a server that
        // comes back forbids for a while what it will allow once it has read roles, quotas and policies.
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS => Outcome::Retry { after: after(headers, status.as_ref()), reason },
        _ if code.is_server_error() => Outcome::Retry { after: after(headers, status.as_ref()), reason },
        _ => Outcome::Final(reason),
    }
}

/// `Retry-After` in seconds (RFC 9110, 10.2.3), else the same in the `Status` object, at most [`LONGEST_ASKED`]. The API
/// server never writes a date.
fn after(headers: &HeaderMap, status: Option<&Status>) -> Option<Duration> {
    let header = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let details = || status?.details.as_ref()?.retry_after_seconds.filter(|seconds| *seconds > 0);
    header.or_else(details).map(|seconds| Duration::from_secs(seconds).min(LONGEST_ASKED))
}

fn sentence(code: StatusCode, status: Option<&Status>, body: &[u8]) -> String {
    let text = match status {
        Some(status) if !status.message.is_empty() => status.message.clone(),
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.get(..text.floor_char_boundary(MESSAGE)).unwrap_or_default();
    let separator = if text.is_empty() { "" } else { ": " };
    format!("the API server answered {code}{separator}{text}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn status(reason: &str, message: &str) -> String {
        format!(r#"{{"kind":"Status","status":"Failure","reason":"{reason}","message":"{message}"}}"#)
    }

    /// The API server's answer about an object that is not there.
    fn not_found(name: &str) -> String {
        format!(r#"{{"reason":"NotFound","details":{{"name":"{name}","kind":"leases"}}}}"#)
    }

    fn of(code: u16, body: &str) -> Outcome {
        meaning(StatusCode::from_u16(code).expect("a code"), &HeaderMap::new(), body.as_bytes())
    }

    fn retry(outcome: &Outcome) -> Option<Option<Duration>> {
        let Outcome::Retry { after, .. } = outcome else { return None };
        Some(*after)
    }

    #[rstest]
    #[case::created(201, "{}")]
    #[case::half_a_body(201, r#"{"kind":"Ev"#)]
    #[case::a_web_page(200, "<html>")]
    fn a_write_stands_by_its_status_code_alone(#[case] code: u16, #[case] body: &str) {
        assert_eq!(of(code, body), Outcome::Done);
    }

    #[rstest]
    #[case::bad_request(400)]
    #[case::gone(410)]
    #[case::too_large(413)]
    #[case::invalid(422)]
    fn asking_again_is_no_use(#[case] code: u16) {
        assert!(matches!(of(code, ""), Outcome::Final(_)), "{code}");
        assert!(matches!(of(code, "<html>"), Outcome::Final(_)), "{code}");
    }

    #[rstest]
    #[case::token_expired(401)]
    #[case::forbidden(403)]
    #[case::too_many(429)]
    #[case::not_found_by_a_proxy(404)]
    #[case::internal(500)]
    #[case::bad_gateway(502)]
    #[case::unavailable(503)]
    #[case::timeout(504)]
    fn asking_again_may_help(#[case] code: u16) {
        assert_eq!(retry(&of(code, "half a sta")), Some(None), "{code}");
    }

    #[rstest]
    #[case::seconds("7", Duration::from_secs(7))]
    #[case::a_week("604800", LONGEST_ASKED)]
    #[case::for_ever("18446744073709551615", LONGEST_ASKED)]
    fn a_server_puts_nobody_to_sleep_for_long(#[case] seconds: &str, #[case] pause: Duration) {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, seconds.parse().expect("a header"))]);
        let by_header = meaning(StatusCode::TOO_MANY_REQUESTS, &headers, b"");
        assert_eq!(retry(&by_header), Some(Some(pause)));
        let body = format!(r#"{{"details":{{"retryAfterSeconds":{seconds}}}}}"#);
        assert_eq!(retry(&of(503, &body)), Some(Some(pause)));
    }

    #[rstest]
    #[case::terminating(r#"{"reason":"Forbidden","details":{"causes":[{"reason":"NamespaceTerminating"}]}}"#, true)]
    #[case::older_server(
        r#"{"message":"unable to create new content in namespace x because it is being terminated"}"#,
        true
    )]
    #[case::no_right(r#"{"reason":"Forbidden","message":"User \"x\" cannot create resource \"events\""}"#, false)]
    #[case::not_ready(r#"{"message":"events \"x\" is forbidden: not yet ready to handle request"}"#, false)]
    #[case::quota(r#"{"details":{"causes":[{"reason":"quota"}]}}"#, false)]
    #[case::half_a_body(r#"{"reason":"Forb"#, false)]
    fn only_the_end_of_a_namespace_makes_a_refusal_final(#[case] body: &str, #[case] gone: bool) {
        let outcome = of(403, body);
        assert_eq!(matches!(outcome, Outcome::Gone(_)), gone, "{outcome:?}");
        assert_eq!(retry(&outcome), (!gone).then_some(None));
    }

    #[test]
    fn what_is_not_there_is_gone() {
        assert!(matches!(of(404, &not_found("x")), Outcome::Gone(_)));
        let no_kind = status("NotFound", "the server could not find the requested resource");
        assert!(matches!(of(404, &no_kind), Outcome::Retry { .. }), "no object is named");
        assert!(matches!(of(404, "404 page not found"), Outcome::Retry { .. }), "it does not know the kind");
        assert!(matches!(of(404, "<html>"), Outcome::Retry { .. }), "a proxy does not know");
    }

    #[rstest]
    #[case::no_answer(None, true)]
    #[case::token_expired(Some(401), true)]
    #[case::too_many(Some(429), true)]
    #[case::unavailable(Some(503), true)]
    #[case::forbidden(Some(403), false)]
    #[case::lost_race(Some(409), false)]
    #[case::failing_webhook(Some(500), false)]
    fn a_failure_is_about_the_server_or_about_one_write(#[case] status: Option<u16>, #[case] server: bool) {
        let answer = Answer { status, outcome: Outcome::Retry { after: None, reason: String::new() } };
        assert_eq!(answer.is_about_server(), server);
    }

    #[rstest]
    #[case::it_is_missing(404, &not_found("a"), true)]
    #[case::another_one(404, &not_found("b"), false)]
    #[case::no_such_kind(404, "404 page not found", false)]
    #[case::a_web_page(404, "<html>", false)]
    #[case::not_said_so(503, &not_found("a"), false)]
    fn only_the_server_itself_can_say_that_an_object_is_missing(
        #[case] code: u16,
        #[case] body: &str,
        #[case] missing: bool,
    ) {
        let answer = Answer { status: Some(code), outcome: of(code, body) };
        assert_eq!(is_missing(&answer, body.as_bytes(), "a"), missing);
    }

    #[test]
    fn a_name_that_is_taken_is_no_failure_but_a_lost_race_is() {
        assert_eq!(of(409, &status("AlreadyExists", "taken")), Outcome::AlreadyThere);
        assert_eq!(of(409, "half a sta"), Outcome::AlreadyThere);
        assert_eq!(retry(&of(409, &status("Conflict", "changed meanwhile"))), Some(None));
    }

    #[rstest]
    #[case::header("7", "{}", Some(7))]
    #[case::body("", r#"{"details":{"retryAfterSeconds":3}}"#, Some(3))]
    #[case::header_wins("7", r#"{"details":{"retryAfterSeconds":3}}"#, Some(7))]
    #[case::a_date("Fri, 31 Dec 1999 23:59:59 GMT", "", None)]
    #[case::nonsense("-1", "", None)]
    fn the_server_says_when_to_ask_again(#[case] header: &str, #[case] body: &str, #[case] seconds: Option<u64>) {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, header.parse().expect("a header"));
        let outcome = meaning(StatusCode::TOO_MANY_REQUESTS, &headers, body.as_bytes());
        assert_eq!(retry(&outcome), Some(seconds.map(Duration::from_secs)));
    }

    #[test]
    fn the_reason_is_one_short_harmless_line() {
        let Outcome::Final(reason) = of(400, &status("BadRequest", "no\\nway")) else { panic!("final") };
        assert_eq!(reason, "the API server answered 400 Bad Request: no way");
        let Outcome::Final(reason) = of(400, &"ü".repeat(1000)) else { panic!("final") };
        assert!(reason.len() < MESSAGE + 60, "{}", reason.len());
    }
}
