//! `detector agent`: the flow with sinks for a cluster, and what works beside it on the same thread.
//!
//! ```text
//!  watch of pods ─┐                       ┌▶ metrics, health: server
//!  health probe ──┼▶ flow ─▶ reporter ─▶ ─┼▶ events ─────▶ task ─▶ API server
//!  kernel, log ───┘            │          └▶ conditions ─▶ task ─▶ API server
//!  settings' file ─▶ reload    └▶ state on disk, then the spool is emptied
//!  the boot before ─▶ condition, event, metric
//! ```
//!
//! Nothing here waits for anything else: each task has its queue, and each fails alone. What ends the agent is a signal, or
//! a flow that cannot go on.

mod counted;
mod missed;
mod needs;
mod parts;
mod previous_boot;
mod reload;
mod reporter;
mod restored;
mod saved;

use std::{
    cell::Cell,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, atomic::AtomicU64},
};

use thiserror::Error;
use tokio::{sync::mpsc, task::LocalSet};
use tracing::{debug, error, info, warn};

use self::{
    counted::Outputs,
    needs::Needs,
    previous_boot::{Chronicler, Listeners, Orders},
    reload::Changeable,
    reporter::{Parts, Reporter},
    saved::{Keeping, Saved},
};
use super::{
    AgentError, Failure, Sink, WatchOptions,
    sink::{
        Handover, Units,
        condition::{
            self, Conditions,
            deliver::{self, Desk},
            kube_node::KubeNode,
            write::ConditionWrite,
        },
        event::{
            Action, Counts, EventWrite, Events,
            deliver::{Ended, Handle},
        },
        hold::Hold,
        metric::{Format, Instruments, Metrics},
    },
    source::{
        last_words::setting,
        machine::{Machine, MachineError},
        pin::Pins,
        pods,
        previous_boot::Present,
        spool::{self, Spool},
        task,
    },
    state::{self, StateError},
    watch::{Beside, Flow, Inherited, StopSignals},
};
use crate::{
    cause::error_chain,
    clock,
    cluster::{Access, ClientError, Identity, Outcome, client},
    config::Config,
    contract::metric::{BudgetKind, Queue, WriteKind},
    ops::{
        http::{HttpError, Pages, Pulse, Readiness, Server},
        log::LogHandle,
    },
};

/// Names of all files that the agent makes in the directory of its state.
pub const STATE_FILES: [&str; 5] = [state::STATE, state::NEW, state::DAMAGED, spool::FILE, state::LOCK];

/// What the agent is started with.
pub struct Start {
    /// Its settings.
    pub config: Config,
    /// The file that they came from, which is watched for changes; `None`: they are the defaults.
    pub file: Option<PathBuf>,
    /// How to reach the API server; `None`: by the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The agent's own log.
    pub log: LogHandle,
    /// Where happenings are told as lines.
    pub lines: Box<dyn Sink>,
    /// Counts lines that found no room there.
    pub lines_dropped: Arc<AtomicU64>,
}

/// Why the agent could not start or go on.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The flow.
    #[error(transparent)]
    Flow(#[from] AgentError),
    /// The API server cannot be reached in principle: it is not known where it is.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nothing can be served.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Another agent has the state.
    #[error(transparent)]
    State(#[from] StateError),
    /// `/proc` does not tell which kernel runs.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The program cannot wait for anything.
    #[error("setting up to wait for records, signals and answers")]
    Runtime(#[source] io::Error),
}

impl ServiceError {
    /// What the one who started the agent can do about it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Flow(error) => error.failure(),
            _ => Failure::Other,
        }
    }
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
    let Start { config, file, kubeconfig, log, lines, lines_dropped } = start;
    let root = Path::new("/");
    let began = clock::monotonic_now();
    let mut signals = StopSignals::without_hang_up().map_err(ServiceError::Runtime)?;
    let machine = Machine::read(root)?;
    let Access { client, identity } = client::connect(kubeconfig).await?;
    info!(node = identity.node, node_uid = identity.node_uid, version = env!("CARGO_PKG_VERSION"), "starts");
    let server = Server::bind(config.health.listen, config.metrics.listen).await?;

    let now = clock::boot_ns();
    let units = Units::of_this_machine();
    let (keeping, saved) = open_state(&config, &machine.boot_id)?;
    let Saved { handover, metrics: counts, held, events: queue, conditions: raised, missed, .. } = saved;
    let mut metrics = Metrics::new(&config.metrics);
    metrics.restore(counts, now);
    let instruments = metrics.instruments();
    let events = Handle::new(Events::restore(config.events.clone(), identity.clone(), &machine.boot_id, queue, now));
    let setup = condition::Setup {
        config: config.conditions.clone(),
        node: identity.node.clone(),
        boot_id: machine.boot_id.clone(),
        scan: task::hung_task_scan(root),
        wall: units.wall,
    };
    let mut conditions = Conditions::new(setup, now);
    conditions.restore(raised, now);
    let conditions = Rc::new(Desk::new(conditions));
    let mut hold = Hold::new(config.locate.hold);
    let waited: Vec<_> = held.waiting.iter().filter_map(|report| report.subject().cgroup.clone()).collect();
    let nameless = hold.restore(held, &machine.boot_id, now);

    print_last_words(&config, root);
    let needs = Needs::of(config.detectors);
    let (pulse, heart) = Pulse::new();
    let pages = pages(pulse, needs.readiness(), &metrics);
    let mut reporter = Reporter::new(Parts {
        lines,
        hold,
        metrics,
        events: events.clone(),
        conditions: Rc::clone(&conditions),
        needs,
        keeping,
        missed,
        units,
        boot_id: machine.boot_id.clone(),
        outputs: Outputs { log: log.counts(), lines: lines_dropped },
    });
    reporter.tell_all(nameless);

    let inherited = inherited(&config, &machine.boot_id, handover);
    let options = WatchOptions { count: None, duration: None, detectors: config.detectors };
    let mut flow = Flow::inherit(&options, inherited, began, &mut reporter, root)?;
    flow.seek_names(&waited, now.saturating_add(clock::nanoseconds(config.locate.hold)));

    let mut beside = Beside { heart: Some(heart), pods: None };
    tokio::task::spawn_local(async move {
        if let Err(cause) = server.serve(pages).await {
            error!(error = error_chain(&cause), "health and metrics are served no more");
        }
    });
    beside.pods = config.locate.pod_watch.then(|| watch_pods(&client, &identity.node));
    let present = present(&identity, machine, &units);
    let writers =
        Writers { events: events.clone(), conditions: Rc::clone(&conditions), instruments: instruments.clone() };
    // Until the end: then it writes down that the agent was told to stop.
    let chronicler = writers.start(&config, Access { client, identity }, present, root);
    if let Some(file) = file {
        let parts = Changeable { events, conditions, log, instruments };
        tokio::task::spawn_local(reload::watch(file, config, parts));
    }
    let ended = flow.run(&mut signals, None, &mut beside).await.and_then(|()| flow.finish());
    if ended.is_err() {
        chronicler.failed();
    }
    Ok(ended.map(drop)?)
}

/// What the flow goes on from.
fn inherited(config: &Config, boot_id: &str, handover: Handover) -> Inherited {
    let pins = config.state.pins.as_ref().map(Pins::below);
    Inherited { pins, spool: open_spool(config, boot_id), handover, late: true }
}

/// Has the kernel print its last words, if the settings want it. A refusal keeps nobody from watching.
fn print_last_words(config: &Config, root: &Path) {
    let Some(directory) = config.state.directory.as_ref().filter(|_| config.last_words.print_by_kernel) else { return };
    if let Err(cause) = setting::set(root, directory) {
        warn!(error = error_chain(&cause), "a dying kernel will not print what is known of its suspect");
    }
}

fn pages(pulse: Pulse, readiness: &Readiness, metrics: &Metrics) -> Pages {
    let exposition = metrics.exposition();
    let encode = move |open| exposition.encode(if open { Format::OpenMetrics } else { Format::Prometheus });
    Pages { pulse, readiness: readiness.clone(), metrics: Arc::new(encode) }
}

/// Which boot this is.
fn present(identity: &Identity, machine: Machine, units: &Units) -> Present {
    let (booted, now) = (units.wall.time(0), units.wall.time(clock::boot_ns()));
    Present { node: identity.node.clone(), boot_id: machine.boot_id, booted, now }
}

/// Begins to watch the pods of the node `node`.
fn watch_pods(client: &kube::Client, node: &str) -> mpsc::Receiver<pods::PodUpdate> {
    let (updates, told) = mpsc::channel(pods::UPDATES);
    tokio::task::spawn_local(pods::watch_pods(client.clone(), node.to_owned(), updates));
    told
}

/// What is written to the API server, and who counts it.
struct Writers {
    events: Handle,
    conditions: Rc<Desk>,
    instruments: Instruments,
}

impl Writers {
    /// Starts what looks how the boot before ended, and what writes: conditions as soon as that is told, or a while later.
    fn start(self, config: &Config, access: Access, present: Present, root: &'static Path) -> Chronicler {
        let (Access { client, identity }, Self { events, conditions, instruments }) = (access, self);
        let (file, booted) = (config.state.boots.as_deref(), present.booted);
        let (chronicler, looked) = Chronicler::start(root, file, present, instruments.clone());
        let listeners = Listeners {
            conditions: Rc::clone(&conditions),
            events: config.events.enabled.then(|| events.clone()),
            orders: chronicler.orders(),
            instruments: instruments.clone(),
            keep: config.previous_boot.keep,
            booted,
        };
        let told = tokio::task::spawn_local(previous_boot::tell(looked, listeners));
        if config.events.enabled {
            let writer = write_events(events, client.clone(), instruments.clone(), chronicler.orders());
            tokio::task::spawn_local(writer);
        }
        if config.conditions.enabled {
            tokio::task::spawn_local(restored::look_after(Rc::clone(&conditions)));
            let writer = write_conditions(conditions, client, identity.node, instruments, chronicler.orders());
            tokio::task::spawn_local(async move {
                tokio::time::timeout(previous_boot::BEFORE_CONDITIONS, told).await.ok();
                writer.await;
            });
        }
        chronicler
    }
}

/// Without a place for the state the agent works and forgets; two agents at once are none.
fn open_state(config: &Config, boot_id: &str) -> Result<(Keeping, Saved), StateError> {
    let Some(directory) = &config.state.directory else { return Ok((Keeping::nowhere(), Saved::default())) };
    match Keeping::open(directory, boot_id) {
        Err(cause @ StateError::Locked { .. }) => Err(cause),
        Err(cause) => {
            error!(error = error_chain(&cause), "nothing survives the end of this agent");
            Ok((Keeping::nowhere(), Saved::default()))
        }
        opened => opened,
    }
}

fn open_spool(config: &Config, boot_id: &str) -> Option<Spool> {
    let path = config.state.directory.as_ref()?.join(spool::FILE);
    Spool::open(&path, boot_id)
        .inspect_err(|cause| warn!(error = error_chain(cause), "records are read without a spool"))
        .ok()
}

async fn write_events(events: Handle, client: kube::Client, instruments: Instruments, orders: Orders) {
    let before = Cell::new(Counts::default());
    let told = |ended: &Ended<'_>| {
        let kind = match (ended.write.action, ended.write.is_about_node()) {
            (Action::Update, _) => WriteKind::EventSeries,
            (Action::Create, true) => WriteKind::NodeEvent,
            (Action::Create, false) => WriteKind::PodEvent,
        };
        instruments.write_ended(kind, ended.outcome);
        let counts = events.counts();
        tell_counts(&instruments, counts, before.replace(counts));
        if let Some(delay) = ended.delay {
            instruments.written_after(delay);
        }
        if !matches!(ended.outcome, Outcome::Retry { .. }) {
            orders.written(ended.write.reason);
        }
        let EventWrite { name, namespace, .. } = ended.write;
        match ended.outcome {
            Outcome::Done | Outcome::AlreadyThere => debug!(event = name, namespace, "written"),
            Outcome::Gone(reason) if ended.expired => debug!(event = name, namespace, reason, "is made anew"),
            Outcome::Gone(reason) => info!(event = name, namespace, reason, "nobody is left to tell"),
            Outcome::Final(reason) | Outcome::Retry { reason, .. } => {
                warn!(event = name, namespace, reason, "an event was not written");
            }
        }
    };
    match events.deliver(&client, &clock::boot_ns, &told).await {}
}

/// What waits, and what had to wait since `before`.
fn tell_counts(instruments: &Instruments, counts: Counts, before: Counts) {
    instruments.queue_depth(Queue::Event, usize::try_from(counts.waiting).unwrap_or(usize::MAX));
    let of_node = counts.refused_by_node_budget - before.refused_by_node_budget;
    let of_pods = counts.refused_by_pod_budget - before.refused_by_pod_budget;
    instruments.budget_refused(BudgetKind::Node, of_node);
    instruments.budget_refused(BudgetKind::Pod, of_pods);
}

async fn write_conditions(
    desk: Rc<Desk>,
    client: kube::Client,
    node: String,
    instruments: Instruments,
    orders: Orders,
) {
    let api = KubeNode::new(client, node);
    let answered = |write: &ConditionWrite, outcome: &Outcome| {
        instruments.write_ended(WriteKind::Condition, outcome);
        orders.alive();
        instruments.queue_depth(Queue::Condition, desk.ask(Conditions::counts).waiting);
        match outcome {
            Outcome::Gone(reason) | Outcome::Final(reason) | Outcome::Retry { reason, .. } => {
                warn!(reason, "conditions were not written");
            }
            Outcome::Done | Outcome::AlreadyThere => debug!(?write, "conditions"),
        }
    };
    deliver::run(&desk, &api, clock::boot_ns, answered).await;
}
