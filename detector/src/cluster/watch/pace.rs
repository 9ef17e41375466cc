//! How fast the server is asked: watches begin at least a second apart, and pauses after refusals double.

use std::{
    hash::{BuildHasher as _, RandomState},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use kube::{Client, client::Body, runtime::utils::Backoff};
use tokio::{
    sync::Mutex,
    time::{Interval, MissedTickBehavior, interval},
};
use tower_service::Service;

/// Shortest time between the beginnings of two watches. The library begins the next one as soon as one has ended well,
/// also if a server or a proxy before it ends each at once.
const WATCHES_APART: Duration = Duration::from_secs(1);

/// First pause after a refusal.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// A client whose watches keep their distance; it asks by `client`.
pub(super) fn paced(client: Client) -> Client {
    let mut ticks = interval(WATCHES_APART);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let namespace = client.default_namespace().to_owned();
    Client::new(Paced { client, ticks: Arc::new(Mutex::new(ticks)) }, namespace)
}

struct Paced {
    client: Client,
    /// One for each watch that may begin.
    ticks: Arc<Mutex<Interval>>,
}

impl Service<Request<Body>> for Paced {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, kube::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        // The client within waits until it is ready by itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, ticks) = (self.client.clone(), Arc::clone(&self.ticks));
        Box::pin(async move {
            if begins_watch(&request) {
                ticks.lock().await.tick().await;
            }
            client.send(request).await
        })
    }
}

fn begins_watch(request: &Request<Body>) -> bool {
    request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}

/// Pauses that double, each shortened at random by up to a half so that agents do not ask all at once.
pub(super) struct Doubling {
    next: Duration,
    longest: Duration,
}

impl Doubling {
    pub(super) fn up_to(longest: Duration) -> Self {
        Self { next: FIRST_PAUSE, longest }
    }
}

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next.min(self.longest);
        self.next = pause.saturating_mul(2);
        // Each has keys of its own, from the system's random numbers.
        let random = RandomState::new().hash_one(pause) % 1_024;
        Some(pause - pause / 2_048 * u32::try_from(random).unwrap_or(0))
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        self.next = FIRST_PAUSE;
    }
}
