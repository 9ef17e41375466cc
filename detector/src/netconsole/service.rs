//! The program: one thread that waits for changes, looks, and tests now and then.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::Client;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::{JoinHandle, LocalSet},
    time::{sleep, sleep_until},
};
use tracing::{error, info, warn};

use super::{
    NetconsoleError, annotation, chain, endpoints, identity,
    keeper::{Keeper, TARGETS},
    metric::Metrics,
    path::{Monitor, Tables, message::Change},
    plan::{Endpoint, Identity},
    root, secret,
    self_test::{self, Heard},
};
use crate::{
    clock,
    cluster::{Outcome, client},
    config::netconsole::NetconsoleConfig,
    contract::metric::SelfTestResult,
    ops::http::{Heart, Pages, Pulse, Readiness, Server},
};

/// After a notice of the kernel: others of the same change follow at once.
const SETTLE: Duration = Duration::from_millis(200);

/// Time between two looks at the least, whatever the kernel tells.
const REST: Duration = Duration::from_secs(1);

/// After a change of targets: its datagrams are on their way.
const BEFORE_TEST: Duration = Duration::from_secs(2);

/// What it is started with.
pub struct Start {
    /// Its settings.
    pub config: NetconsoleConfig,
    /// How to reach the API server; `None`: by the pod's service account.
    pub kubeconfig: Option<PathBuf>,
}

/// Runs until somebody asks for an end. Blocks. The targets stay.
///
/// # Errors
/// As [`NetconsoleError`] tells.
pub fn serve(start: Start) -> Result<(), NetconsoleError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.map_err(NetconsoleError::Runtime)?, run(start))
}

async fn run(start: Start) -> Result<(), NetconsoleError> {
    let Start { config, kubeconfig } = start;
    let mut signals = Signals::take().map_err(NetconsoleError::Runtime)?;
    let (client, node) = reach(&config, kubeconfig).await?;
    let _lock = config.state.directory.as_deref().map(secret::lock).transpose()?;
    let identity = identity(&config, node)?;
    info!(node = identity.node, boot = identity.boot, version = env!("CARGO_PKG_VERSION"), "starts");
    for key in identity.too_long() {
        warn!(key, "a value is too long for the kernel's datagrams, which go without it");
    }
    let server = Server::bind(config.health.listen, config.health.listen).await?;

    let metrics = Metrics::default();
    let readiness = Readiness::new([TARGETS]);
    let (pulse, heart) = Pulse::new();
    let of_pages = metrics.clone();
    let pages = Pages { pulse, readiness: readiness.clone(), metrics: Arc::new(move |open| of_pages.encode(open)) };
    tokio::task::spawn_local(async move {
        if let Err(cause) = server.serve(pages).await {
            error!(error = chain(&cause), "health and metrics are served no more");
        }
    });
    let (told, endpoints) = watch::channel(None);
    if config.receivers.fixed.is_empty() {
        if let Some(client) = client.clone() {
            tokio::task::spawn_local(endpoints::watch(client, config.receivers.service.clone(), told));
        }
    } else {
        told.send_replace(Some(config.receivers.fixed.iter().copied().map(Endpoint::fixed).collect()));
    }
    if let Some(client) = client {
        tokio::task::spawn_local(publish(client, identity.clone(), metrics.clone()));
    }

    let mut flow = Flow {
        keeper: Keeper::new(config.clone(), identity.clone(), Tables::open()?, metrics.clone(), readiness),
        monitor: Monitor::open()?,
        endpoints,
        heart,
        test: Test { config, node: identity.node, metrics, due: None, running: None },
        look: clock::monotonic_now(),
        last: None,
    };
    flow.run(&mut signals).await
}

/// A client and the name of this node. Who wrote receivers down can do without an API server.
pub(super) async fn reach(
    config: &NetconsoleConfig,
    kubeconfig: Option<PathBuf>,
) -> Result<(Option<Client>, String), NetconsoleError> {
    match client::connect(kubeconfig).await {
        Ok(access) => Ok((Some(access.client), access.identity.node)),
        Err(error) if !config.receivers.fixed.is_empty() => {
            warn!(
                error = chain(&error),
                "without the API server nobody can tell this node's datagrams from forged ones"
            );
            Ok((None, client::node_name()?))
        }
        Err(error) => Err(error.into()),
    }
}

/// Keeps the annotation on the Node, for ever.
async fn publish(client: Client, identity: Identity, metrics: Metrics) {
    let (first, longest) = annotation::PAUSES;
    let mut pause = first;
    loop {
        let outcome = annotation::write(&client, &identity.node, &identity.secret).await;
        let stands = outcome == Outcome::Done;
        metrics.published(stands);
        if let Outcome::Final(reason) | Outcome::Gone(reason) | Outcome::Retry { reason, .. } = &outcome {
            warn!(reason, "the Node does not tell the digest of this node's secret");
        }
        sleep(if stands { annotation::REPEAT } else { pause }).await;
        pause = if stands { first } else { longest.min(pause * 2) };
    }
}

struct Flow {
    keeper: Keeper,
    monitor: Monitor,
    endpoints: watch::Receiver<Option<Vec<Endpoint>>>,
    heart: Heart,
    test: Test,
    /// When to look next.
    look: Instant,
    /// When it was looked at last.
    last: Option<Instant>,
}

impl Flow {
    async fn run(&mut self, signals: &mut Signals) -> Result<(), NetconsoleError> {
        self.hear();
        loop {
            let due = self.keeper.turns_at().map_or(self.look, |turn| turn.min(self.look));
            let (keeper, test_due) = (&self.keeper, self.test.next());
            tokio::select! {
                biased;
                () = signals.any() => return Ok(()),
                // Answered when it is dropped.
                _asked = self.heart.asked() => {}
                Ok(()) = self.endpoints.changed() => self.hear(),
                () = sleep_until(due.into()) => self.look(),
                changed = self.monitor.changed(|index| keeper.knows_device(index)) => {
                    if changed? == Change::Device {
                        self.keeper.hear_of_devices(clock::monotonic_now());
                    }
                    self.soon(SETTLE);
                }
                () = at(test_due) => self.test.begin(self.keeper.served()),
                heard = Test::ended(&mut self.test.running) => self.test.take(heard),
            }
        }
    }

    fn hear(&mut self) {
        let endpoints = self.endpoints.borrow_and_update().clone();
        if let Some(endpoints) = endpoints {
            self.keeper.hear_of(&endpoints, clock::monotonic_now());
        }
    }

    fn look(&mut self) {
        let now = clock::monotonic_now();
        let polled = now >= self.look;
        let looked = self.keeper.look(now, polled);
        (self.last, self.look) = (Some(now), now + self.test.config.targets.poll);
        if looked.asked {
            self.soon(REST);
        }
        if looked.changed || (self.test.due.is_none() && !self.keeper.served().is_empty()) {
            self.test.at(now + BEFORE_TEST);
        }
    }

    /// Looks after `pause`, but not too often.
    fn soon(&mut self, pause: Duration) {
        let now = clock::monotonic_now();
        let rested = self.last.map_or(now, |last| last + REST);
        self.look = self.look.min(rested.max(now + pause));
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

/// The self test: when, and the one that runs.
struct Test {
    config: NetconsoleConfig,
    node: String,
    metrics: Metrics,
    due: Option<Instant>,
    running: Option<JoinHandle<Vec<(SocketAddr, Heard)>>>,
}

impl Test {
    fn at(&mut self, when: Instant) {
        if self.config.self_test.enabled {
            self.due = Some(self.due.map_or(when, |due| due.min(when)));
        }
    }

    /// When the next one begins, unless one runs.
    fn next(&self) -> Option<Instant> {
        self.due.filter(|_| self.running.is_none())
    }

    fn begin(&mut self, receivers: &[SocketAddr]) {
        self.due = Some(clock::monotonic_now() + self.config.self_test.every);
        if receivers.is_empty() {
            return;
        }
        let nonce = match self_test::speak(root(), &self.node) {
            Ok(nonce) => nonce,
            Err(error) => {
                warn!(reason = chain(&error), "the self test is not possible");
                self.metrics.tested(&vec![SelfTestResult::Unknown; receivers.len()]);
                return;
            }
        };
        let port = u16::try_from(self.config.self_test.port).unwrap_or_default();
        let receivers = receivers.to_vec();
        self.running = Some(tokio::task::spawn_local(async move {
            let ask = async |receiver: SocketAddr| {
                (receiver, self_test::listen(SocketAddr::new(receiver.ip(), port), &nonce).await)
            };
            futures::future::join_all(receivers.into_iter().map(ask)).await
        }));
    }

    async fn ended(running: &mut Option<JoinHandle<Vec<(SocketAddr, Heard)>>>) -> Vec<(SocketAddr, Heard)> {
        match running {
            // It is never aborted, and does not panic.
            Some(test) => test.await.unwrap_or_default(),
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, heard: Vec<(SocketAddr, Heard)>) {
        self.running = None;
        let results: Vec<_> = heard.iter().map(|(_, heard)| result(heard)).collect();
        self.metrics.tested(&results);
        for (receiver, heard) in heard {
            let receiver = receiver.to_string();
            match heard {
                Heard::Yes => info!(receiver, "the self test was heard"),
                Heard::No => warn!(receiver, "the self test was not heard: a panic of this node may not be either"),
                Heard::Unknown(reason) => warn!(receiver, reason, "nobody says whether the self test was heard"),
            }
        }
    }
}

fn result(heard: &Heard) -> SelfTestResult {
    match heard {
        Heard::Yes => SelfTestResult::Heard,
        Heard::No => SelfTestResult::NotHeard,
        Heard::Unknown(_) => SelfTestResult::Unknown,
    }
}

/// Signals that ask for an end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn take() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
