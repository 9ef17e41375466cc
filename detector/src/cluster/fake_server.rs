//! An API server for tests: it answers in memory as a test wants it to, and writes down what it was asked.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::clock::{Moment, Moments};

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

/// Status code and body; `None`: no answer ever comes.
pub(crate) type Said = Option<(u16, String)>;

/// The server; clones are the same.
#[derive(Clone)]
pub(crate) struct FakeServer {
    says: Arc<dyn Fn(&Asked) -> Said + Send + Sync>,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// How long requests of a method take.
    slow: Arc<Mutex<Option<(String, Duration)>>>,
}

impl FakeServer {
    pub(crate) fn new(says: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Self {
        Self { says: Arc::new(says), asked: Arc::default(), slow: Arc::default() }
    }

    /// Answers request after request as told, and after the last not at all.
    pub(crate) fn scripted(answers: Vec<(u16, String)>) -> Self {
        let next = Mutex::new(answers.into_iter());
        Self::new(move |_| next.lock().unwrap().next())
    }

    /// From now on it takes `time` to answer a request of this method.
    pub(crate) fn slow_down(&self, method: &str, time: Duration) {
        *self.slow.lock().unwrap() = Some((method.to_owned(), time));
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.asked().iter().map(|asked| format!("{} {}", asked.method, asked.uri)).collect()
    }
}

impl tower_service::Service<Request<Body>> for FakeServer {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            let content_type = head.headers.get("content-type").and_then(|value| value.to_str().ok());
            let asked = Asked {
                method: head.method.to_string(),
                uri: head.uri.to_string(),
                content_type: content_type.unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            let said = (server.says)(&asked);
            let slow = server.slow.lock().unwrap().clone().filter(|(method, _)| *method == asked.method);
            server.asked.lock().unwrap().push(asked);
            if let Some((_, time)) = slow {
                sleep(time).await;
            }
            match said {
                Some((status, body)) => {
                    Ok(Response::builder().status(status).body(Body::from(body.into_bytes())).unwrap())
                }
                None => std::future::pending().await,
            }
        })
    }
}

/// A `Status` object as the server words it.
pub(crate) fn status(code: u16, reason: &str, name: &str) -> (u16, String) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
        "reason": reason, "details": { "name": name }, "code": code,
    });
    (code, status.to_string())
}

/// A line of a watch.
pub(crate) fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": kind, "object": object }))
}

/// The line that ends a streamed list.
pub(crate) fn end_of_list() -> String {
    let annotations = json!({ "k8s.io/initial-events-end": "true" });
    let mark =
        json!({ "kind": "x", "apiVersion": "v1", "metadata": { "resourceVersion": "9", "annotations": annotations } });
    line("BOOKMARK", &mark)
}

/// The runtime's time, which stands still while anything is to do.
pub(crate) fn now() -> Instant {
    sleep(Duration::ZERO).deadline()
}

/// The second after 1970 in which the clocks of tests begin.
pub(crate) const BEGIN: i64 = 1_800_000_000;

/// Clocks that go with the runtime's, which stands still while anything is to do.
pub(crate) fn moments() -> Moments {
    clocks(1.0, 0)
}

/// Clocks that go `rate` times as fast as the runtime's, with a time of day that is `skew` seconds off.
pub(crate) fn clocks(rate: f64, skew: i64) -> Moments {
    let started = now();
    Arc::new(move || {
        let since = started.elapsed().mul_f64(rate);
        let wall = Timestamp::from_second(BEGIN + skew).unwrap().checked_add(since).unwrap();
        Moment { monotonic: since, boot: since, wall }
    })
}
