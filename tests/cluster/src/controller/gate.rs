//! A way to the API server that stands still at a step: once the leader has written down that it begins, or that it ended, what
//! the leader wants to change next does not arrive. Whoever kills it then has killed it before the step's first effect, or after
//! its last.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use kube::Client;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// Larger than what a controller asks for.
const LARGEST: usize = 16 << 20;

/// A running one, until it is dropped.
pub struct Gate {
    /// Where it is.
    pub(super) address: SocketAddr,
    way: Way,
    serving: JoinHandle<()>,
}

/// What all requests share.
#[derive(Clone)]
struct Way {
    client: Client,
    /// A step and its state, at which to stand still.
    moment: Arc<Mutex<Option<(&'static str, &'static str)>>>,
    shut: watch::Sender<bool>,
}

impl Gate {
    /// Opens one that passes everything on, as whom the client speaks.
    pub(super) async fn open(client: Client) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("find a free port")?;
        let address = listener.local_addr().context("find a free port")?;
        let way = Way { client, moment: Arc::default(), shut: watch::Sender::new(false) };
        let router = Router::new().fallback(pass).with_state(way.clone());
        let serving = tokio::spawn(async move {
            // It ends with the task.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { address, way, serving })
    }

    /// Passes all on until it is written down that this step is in this state, then nothing but reads and Leases. What was held
    /// back before is refused: it may be from one that is dead.
    pub fn open_until(&self, moment: Option<(&'static str, &'static str)>) {
        *self.way.moment.lock().unwrap_or_else(PoisonError::into_inner) = moment;
        self.way.shut.send_replace(false);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Way {
    /// Whether it is open for this; who finds it shut waits until it is open again.
    async fn admits(&self, head: &Parts, body: &[u8]) -> bool {
        let of_lease = head.uri.path().starts_with("/apis/coordination.k8s.io/");
        if head.method == Method::GET || of_lease {
            return true;
        }
        if *self.shut.borrow() {
            self.shut.subscribe().wait_for(|shut| !shut).await.ok();
            return false;
        }
        let moment = *self.moment.lock().unwrap_or_else(PoisonError::into_inner);
        if moment.is_some_and(|(step, state)| writes(body, step, state)) {
            self.shut.send_replace(true);
        }
        true
    }

    async fn ask(&self, mut head: Parts, body: Bytes) -> Result<Response> {
        // The client's own connection has others.
        for name in [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::AUTHORIZATION] {
            head.headers.remove(name);
        }
        let request = Request::from_parts(head, kube::client::Body::from(body));
        Ok(self.client.send(request).await.context("ask the API server")?.map(Body::new))
    }
}

async fn pass(State(way): State<Way>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    if !way.admits(&head, &body).await {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    way.ask(head, body).await.unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

/// Whether a status is written whose journal has this step in this state.
fn writes(body: &[u8], step: &str, state: &str) -> bool {
    let written: Value = serde_json::from_slice(body).unwrap_or_default();
    let steps = written["status"]["steps"].as_array();
    steps.into_iter().flatten().any(|one| one["kind"] == step && one["state"] == state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_seen_in_the_journal_that_is_written() {
        let body = br#"{"status": {"steps": [{"kind": "Cordon", "state": "Done"}, {"kind": "Annotate", "state": "Intended"}]}}"#;
        assert!(writes(body, "Cordon", "Done") && writes(body, "Annotate", "Intended"));
        assert!(!writes(body, "Cordon", "Intended") && !writes(body, "Uncordon", "Done"));
        assert!(!writes(b"{", "Cordon", "Done") && !writes(b"", "Cordon", "Done"));
    }
}
