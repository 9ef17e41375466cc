//! Serves `/livez`, `/readyz`, `/healthz` and `/metrics` over HTTP, to whoever may reach the port.
//!
//! ```text
//! connection ─▶ guard (bounded: number, time, bytes) ─▶ axum ─▶ pages: pulse, readiness, metrics
//! ```
//!
//! One connection serves one request: nobody waits here without end, and at rest nothing wakes the process.

mod guard;
mod health;

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::try_join_all;
use thiserror::Error;
use tokio::net::TcpListener;

use self::guard::Guarded;
pub use self::health::{Asked, Heart, Lifeless, Pulse, Readiness};

/// Type of the OpenMetrics text.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Type of the older text format of Prometheus.
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Encodes all metrics: as OpenMetrics, if so told, else in the older format.
pub type Encode = Arc<dyn Fn(bool) -> String + Send + Sync>;

/// Why nothing can be served.
#[derive(Debug, Error)]
pub enum HttpError {
    /// An address cannot be listened on.
    #[error(
        "{key}: listening on {address}: must be an address of this machine with a port that nobody else listens on"
    )]
    Listen {
        /// Setting that names the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A listener broke.
    #[error("serving health and metrics")]
    Serve(#[source] io::Error),
}

/// What the pages tell.
#[derive(Clone)]
pub struct Pages {
    /// Whether the flow moves.
    pub pulse: Pulse,
    /// What is still missing.
    pub readiness: Readiness,
    /// The metrics.
    pub metrics: Encode,
}

/// Addresses that are listened on, before anything is served.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<(TcpListener, Routes)>,
}

/// Pages of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Routes {
    health: bool,
    metrics: bool,
}

impl Server {
    /// Listens on the addresses of `health.listen` and `metrics.listen`; equal ones are one listener with all pages.
    ///
    /// # Errors
    /// If an address cannot be listened on.
    pub async fn bind(health: Option<SocketAddr>, metrics: Option<SocketAddr>) -> Result<Self, HttpError> {
        let wanted = if health == metrics {
            vec![(health, "health.listen", Routes { health: true, metrics: true })]
        } else {
            vec![
                (health, "health.listen", Routes { health: true, metrics: false }),
                (metrics, "metrics.listen", Routes { health: false, metrics: true }),
            ]
        };
        let mut listeners = Vec::new();
        for (address, key, routes) in wanted {
            let Some(address) = address else { continue };
            let listener =
                TcpListener::bind(address).await.map_err(|source| HttpError::Listen { key, address, source })?;
            listeners.push((listener, routes));
        }
        Ok(Self { listeners })
    }

    /// Addresses that are listened on: health first.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(|(listener, _)| listener.local_addr()).collect()
    }

    /// Serves `pages` until the future is dropped. Connections are tasks of the runtime that it runs in.
    ///
    /// # Errors
    /// If a listener breaks.
    pub async fn serve(self, pages: Pages) -> Result<(), HttpError> {
        self.serve_with(pages, Router::new()).await
    }

    /// The same, with `further` pages where the health is served.
    ///
    /// # Errors
    /// As [`Self::serve`].
    pub async fn serve_with(self, pages: Pages, further: Router) -> Result<(), HttpError> {
        let serving = self.listeners.into_iter().map(|(listener, routes)| {
            let mut router = router(routes, pages.clone());
            if routes.health {
                router = router.merge(further.clone().layer(middleware::map_response(close)));
            }
            async move { axum::serve(Guarded::new(listener), router).await }
        });
        try_join_all(serving).await.map_err(HttpError::Serve).map(drop)
    }
}

fn router(routes: Routes, pages: Pages) -> Router {
    let mut router = Router::new();
    if routes.health {
        router = router.route("/livez", get(live)).route("/healthz", get(live)).route("/readyz", get(ready));
    }
    if routes.metrics {
        router = router.route("/metrics", get(metrics));
    }
    router.layer(middleware::map_response(close)).with_state(pages)
}

/// One request a connection: an idle one would hold a place.
async fn close(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn live(State(pages): State<Pages>) -> Response {
    match pages.pulse.feel().await {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn ready(State(pages): State<Pages>) -> Response {
    let missing = pages.readiness.missing();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    let lines: String = missing.iter().map(|(what, why)| format!("{what}: {why}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}

async fn metrics(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT);
    let open =
        accepted.iter().any(|types| types.to_str().is_ok_and(|types| types.contains("application/openmetrics-text")));
    let content = if open { OPEN_METRICS } else { PROMETHEUS };
    ([(header::CONTENT_TYPE, content)], (pages.metrics)(open)).into_response()
}

#[cfg(test)]
mod tests;
