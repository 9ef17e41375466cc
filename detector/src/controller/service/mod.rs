//! `detector controller`: every replica hears and writes down what it heard; one leads, and acts.
//!
//! ```text
//! datagrams ─▶ hearing ─┐
//! Nodes, incidents ─────┼▶ core ─▶ witness: which incident ─▶ testimonies ─▶ API server      every replica
//!                       │     │
//!                       │     └▶ agenda ─▶ turns: status, plan, step, events ─▶ API server    the leader alone
//! Leases of suspects ───┘
//! ```
//!
//! All of it is one thread. Each task has its queue; what ends the service is a signal, or a socket that broke.

mod agenda;
mod brakes;
mod core;
mod intake;
mod lead;
mod metric;
mod reload;
mod retell;
mod suspects;
mod turn;
mod witness;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::Path, http::StatusCode, routing::get};
use kube::Client;
use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, oneshot, watch},
    task::{JoinSet, LocalSet},
    time::timeout,
};
use tracing::{error, info, warn};

use self::{agenda::Agenda, brakes::Brakes, core::Core, metric::Metrics, suspects::Suspects, witness::own::Own};
use super::{
    incident::{
        Evidence, Testimony,
        hearing::{Hearing, self_test::SelfTests},
        store::{self, Store, deliver, known::Incidents, watch_incidents},
    },
    leader::{Election, Leadership, candidate::Timing},
    sink::event::deliver::Queue,
    source::{
        gate::Limits,
        netconsole::{ListenError, Receiver},
        nodes::{self, Nodes, watch_nodes},
    },
};
use crate::{
    cause::error_chain,
    clock::{Moment, Moments, WallClock, boot_ns},
    cluster::{ClientError, client},
    config::controller::ControllerConfig,
    contract::netconsole::HEARD_PATH,
    ops::{
        http::{HttpError, Pages, Pulse, Readiness, Server},
        log::LogHandle,
    },
};

/// What a replica heard and has not written down when it is told to end is written within this time, and the Lease given
/// free.
const FAREWELL: Duration = Duration::from_secs(5);
/// Testimonies that wait for the task that delivers them, which takes them at once.
const TESTIMONIES: usize = 256;

/// What the controller is started with.
pub struct Start {
    /// Its settings.
    pub config: ControllerConfig,
    /// The file that they came from, which is watched for changes; `None`: they are the defaults.
    pub file: Option<PathBuf>,
    /// How to reach the API server; `None`: by the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Name of this replica: its pod's.
    pub replica: String,
    /// Where the Lease of the leader and the brake are.
    pub namespace: String,
    /// The controller's own log.
    pub log: LogHandle,
}

/// Why the controller could not start or go on.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The API server cannot be reached in principle: it is not known where it is.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nothing can be served.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The port of netconsole cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// It broke.
    #[error("hearing netconsole")]
    Hear(#[source] io::Error),
    /// The program cannot wait for anything.
    #[error("setting up to wait for datagrams, signals and answers")]
    Runtime(#[source] io::Error),
}

/// Runs until somebody asks for an end. Blocks.
///
/// # Errors
/// As [`ServiceError`] tells. An API server that does not answer is none.
pub fn serve(start: Start) -> Result<(), ServiceError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServiceError::Runtime)?;
    LocalSet::new().block_on(&runtime, run(start))
}

async fn run(start: Start) -> Result<(), ServiceError> {
    let Start { config, file, kubeconfig, replica, namespace, log } = start;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServiceError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServiceError::Runtime)?;
    let access = client::connect(kubeconfig).await?;
    let (node, version) = (&access.identity.node, env!("CARGO_PKG_VERSION"));
    info!(replica, namespace, node, act = config.policy.act, version, "starts");
    let server = Server::bind(config.health.listen, config.metrics.listen).await?;
    let receiver = config.netconsole.listen.map(Receiver::listen).transpose()?;
    let moments: Moments = Arc::new(Moment::now);
    let setup = Setup { client: access.client, config: config.clone(), replica, namespace, moments };
    let mut service = Service::start(setup, Some(access.identity.node));
    let (pulse, mut heart) = Pulse::new();
    let core = Rc::clone(&service.core);
    let pages = Pages { pulse, readiness: core.readiness.clone(), metrics: core.metrics.encoder() };
    let further = heard_page(core.hearing.borrow().self_tests().clone());
    service.tasks.spawn_local(async move {
        if let Err(cause) = server.serve_with(pages, further).await {
            error!(error = error_chain(&cause), "health and metrics are served no more");
        }
    });
    if let Some(file) = file {
        service.tasks.spawn_local(reload::watch(file, config, Rc::clone(&core), log));
    }
    let hearing = async {
        match receiver {
            Some(receiver) => intake::hear(&core, receiver).await,
            None => std::future::pending().await,
        }
    };
    let mut hearing = std::pin::pin!(hearing);
    let ended = loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            // Answered when it is dropped.
            _asked = heart.asked() => {}
            ended = &mut hearing => break ended.map_err(ServiceError::Hear),
        }
    };
    intake::finish(&core);
    service.end().await;
    ended
}

/// Answers whether a self test was heard.
fn heard_page(tests: SelfTests) -> Router {
    let answer = move |Path(nonce): Path<String>| async move {
        let heard = tests.heard(&nonce, Duration::from_nanos(boot_ns()));
        if heard { (StatusCode::OK, "heard\n") } else { (StatusCode::NOT_FOUND, "not heard\n") }
    };
    Router::new().route(&format!("{HEARD_PATH}{{nonce}}"), get(answer))
}

/// What a service is made of.
struct Setup {
    client: Client,
    config: ControllerConfig,
    replica: String,
    namespace: String,
    moments: Moments,
}

impl Setup {
    fn core(
        self,
        own_node: Option<String>,
        leadership: Leadership,
        facts: mpsc::Sender<Evidence>,
        testimonies: mpsc::Sender<(String, Testimony)>,
    ) -> Core {
        let Self { client, config, replica, namespace, moments } = self;
        let limits = Limits::from(&config.netconsole);
        Core {
            store: Store::new(client.clone()),
            witness: store::witness(&replica),
            client,
            moments,
            replica,
            namespace,
            config: RefCell::new(Rc::new(config)),
            nodes: RefCell::new(Nodes::default()),
            incidents: RefCell::new(Incidents::default()),
            hearing: RefCell::new(Hearing::new(limits, own_node, WallClock::measure())),
            suspects: RefCell::new(Suspects::default()),
            agenda: RefCell::new(Agenda::default()),
            due: Notify::new(),
            suspicion: Notify::new(),
            leadership,
            brakes: Brakes::default(),
            reserved: RefCell::new(BTreeSet::new()),
            opt_outs: RefCell::new(BTreeMap::new()),
            events: Queue::default(),
            metrics: Metrics::default(),
            readiness: Readiness::new([core::NODES, core::INCIDENTS]),
            facts,
            testimonies,
            asks: RefCell::new(None),
            complete: Cell::new(false),
            darkened: RefCell::new(BTreeSet::new()),
            completed: Notify::new(),
            unplaced: Cell::new(0),
            fact_bytes: Cell::new(0),
            own: RefCell::new(Own::default()),
        }
    }
}

async fn tell_trouble(mut trouble: watch::Receiver<Option<String>>) {
    while trouble.changed().await.is_ok() {
        if let Some(reason) = trouble.borrow_and_update().clone() {
            warn!(reason, "the Lease of the leader cannot be read or written");
        }
    }
}

/// All tasks but the receiver. Dropped, they are cut off wherever they are.
struct Service {
    core: Rc<Core>,
    tasks: JoinSet<()>,
    /// Ends the election.
    resign: Option<oneshot::Sender<()>>,
    resigned: Option<oneshot::Receiver<()>>,
}

impl Service {
    fn start(setup: Setup, own_node: Option<String>) -> Self {
        let (client, moments) = (setup.client.clone(), Arc::clone(&setup.moments));
        let election =
            Election::new(client.clone(), &setup.namespace, &setup.replica, Timing::DEFAULT, Arc::clone(&moments));
        let trouble = election.trouble();
        let (facts, told) = mpsc::channel(core::FACTS);
        let (testimonies, said) = mpsc::channel(TESTIMONIES);
        let core = Rc::new(setup.core(own_node, election.leadership(), facts, testimonies));
        let (resign, resigning) = oneshot::channel();
        let (gone, resigned) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn_local(async move {
            election.run(async { drop(resigning.await) }).await;
            // Nobody may wait for it.
            gone.send(()).ok();
        });
        tasks.spawn_local(tell_trouble(trouble));
        let (nodes, node_updates) = mpsc::channel(nodes::UPDATES);
        let (incidents, incident_updates) = mpsc::channel(store::UPDATES);
        let (delivered, deliveries) = mpsc::channel(TESTIMONIES);
        tasks.spawn_local(watch_nodes(client.clone(), nodes));
        tasks.spawn_local(watch_incidents(client, incidents));
        tasks.spawn_local(deliver(core.store.clone(), core.witness.clone(), moments, said, delivered));
        let of = [(); 5].map(|()| Rc::clone(&core));
        let [a, b, c, d, e] = of;
        tasks.spawn_local(async move { intake::nodes(&a, node_updates).await });
        tasks.spawn_local(async move { intake::incidents(&b, incident_updates).await });
        tasks.spawn_local(async move { witness::run(&c, told).await });
        tasks.spawn_local(async move { witness::delivered(&d, deliveries).await });
        tasks.spawn_local(async move { lead::run(&e).await });
        Self { core, tasks, resign: Some(resign), resigned: Some(resigned) }
    }

    /// Gives the Lease free and writes down what was heard, within [`FAREWELL`].
    async fn end(mut self) {
        info!("ends");
        if let Some(resign) = self.resign.take() {
            resign.send(()).ok();
        }
        let resigned = self.resigned.take();
        let farewell = async {
            if let Some(resigned) = resigned {
                resigned.await.ok();
            }
            while !self.core.is_idle() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(FAREWELL, farewell).await.is_err() {
            warn!("ends with something unsaid");
        }
    }
}

#[cfg(test)]
mod tests;
