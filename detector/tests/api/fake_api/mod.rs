//! An API server in memory: it keeps objects, writes down every request, and answers by named scenarios.
//!
//! [`FakeApi::client`] needs no socket, so that tests run in paused time. [`FakeApi::listen`] is the same server on a
//! loopback port, for what only a connection shows.

mod answer;
mod json_patch;
mod store;

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use http::{Method, Request, Response};
use serde_json::Value;
use tokio::time::Instant;

use store::Store;

/// Larger than any body that the agent sends.
const LARGEST_BODY: usize = 1 << 20;

/// How the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each delivery tests the scenarios that matter to it")]
pub(crate) enum Scenario {
    /// As a real server does: 201 or 200, 409 for a name that is taken, 404 for a change of what is not there.
    Ok,
    /// 409, whatever is asked.
    Conflict,
    /// 410.
    Gone,
    /// 422.
    Unprocessable,
    /// 429 with `Retry-After` in seconds, and no `Status` object.
    TooMany(u64),
    /// 500.
    ServerError,
    /// 503 with `Retry-After` in seconds.
    Unavailable(u64),
    /// It is done, and the answer ends in the middle.
    HalfABody,
    /// 500 whose body ends in the middle.
    HalfAnError,
    /// It is done, and the answer is a web page.
    NotJson,
    /// No answer, ever.
    Hangs,
    /// 403: the namespace is being terminated.
    Terminating,
    /// 403: no role allows it.
    Forbidden,
    /// 403: an admission plugin has not read yet what it needs, as shortly after the start of a server.
    NotReady,
    /// 401: the token is not valid any more.
    Unauthorized,
    /// 404: there is no such namespace.
    NoNamespace,
    /// No connection.
    Down,
    /// It is done, and the connection ends before the answer.
    AnswerLost,
}

/// One request, as it came.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "each delivery tests the parts that matter to it")]
pub(crate) struct Asked {
    /// Since the server was made.
    pub at: Duration,
    pub method: Method,
    pub path: String,
    pub query: String,
    pub content_type: String,
    pub user_agent: String,
    pub body: Value,
    /// How it was answered.
    pub scenario: Scenario,
}

/// The server; clones are the same server.
#[derive(Clone)]
pub(crate) struct FakeApi {
    started: Instant,
    state: Arc<Mutex<State>>,
}

struct State {
    store: Store,
    asked: Vec<Asked>,
    next: VecDeque<Scenario>,
    always: Scenario,
}

#[allow(dead_code, reason = "each delivery uses what it needs")]
impl FakeApi {
    /// A server without objects that answers [`Scenario::Ok`].
    pub(crate) fn new() -> Self {
        let state = State { store: Store::default(), asked: Vec::new(), next: VecDeque::new(), always: Scenario::Ok };
        Self { started: Instant::now(), state: Arc::new(Mutex::new(state)) }
    }

    /// Answers so from now on, until told otherwise.
    pub(crate) fn answer_all(&self, scenario: Scenario) {
        self.state().always = scenario;
    }

    /// Answers so to the next requests, then again as before.
    pub(crate) fn answer_next(&self, scenarios: impl IntoIterator<Item = Scenario>) {
        self.state().next.extend(scenarios);
    }

    /// Forgets how the next requests were to be answered.
    pub(crate) fn forget_next(&self) {
        self.state().next.clear();
    }

    /// Puts an object at `path`, such as `/api/v1/nodes/node-a`.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state().store.put(path, object);
    }

    /// Takes an object away, as its time to live or a person does.
    pub(crate) fn remove(&self, path: &str) {
        self.state().store.remove(path);
    }

    /// All objects whose path begins so, ordered by path.
    pub(crate) fn objects(&self, below: &str) -> Vec<Value> {
        self.state().store.below(below)
    }

    /// How often the object at `path` was changed, made and deleted since it was put there.
    pub(crate) fn changes(&self, path: &str) -> u32 {
        self.state().store.changes(path)
    }

    /// From now on a pod is deleted only if it names an incident, as the admission policy has it.
    pub(crate) fn guard_deletions(&self) {
        self.state().store.guard();
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// A client that reaches this server without a socket.
    pub(crate) fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// Serves on a free loopback port until the runtime ends.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = self.clone();
        let served = move |request: axum::extract::Request| {
            let server = server.clone();
            async move { server.answer_on_a_connection(request).await }
        };
        let router = axum::Router::new().fallback(served);
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// A connection cannot fail from inside: where it would, its body does, at once.
    async fn answer_on_a_connection(&self, request: Request<Body>) -> Response<Body> {
        self.answer(request).await.unwrap_or_else(|_| answer::broken(http::StatusCode::OK, ""))
    }

    async fn answer(&self, request: Request<Body>) -> io::Result<Response<Body>> {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, LARGEST_BODY).await.map_err(io::Error::other)?;
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let (scenario, outcome) = {
            let mut state = self.state();
            let always = state.always;
            let scenario = state.next.pop_front().unwrap_or(always);
            let asked = Asked {
                at: self.started.elapsed(),
                method: head.method.clone(),
                path: head.uri.path().to_owned(),
                query: head.uri.query().unwrap_or_default().to_owned(),
                content_type: header(http::header::CONTENT_TYPE),
                user_agent: header(http::header::USER_AGENT),
                body: serde_json::from_slice(&body).unwrap_or(Value::Null),
                scenario,
            };
            let outcome = answer::carries_out(scenario).then(|| state.store.handle(&asked));
            state.asked.push(asked);
            (scenario, outcome)
        };
        if scenario == Scenario::Hangs {
            std::future::pending::<()>().await;
        }
        answer::to(scenario, outcome)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the server")
    }
}

impl tower_service::Service<Request<kube::client::Body>> for FakeApi {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { server.answer(request.map(Body::new)).await })
    }
}
