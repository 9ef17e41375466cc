//! The text that a scrape gets.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, MetricEncoder,
        NoLabelSet,
    },
    metrics::{MetricType, counter::Counter},
    registry::Registry,
};

use super::{Core, Shared, instrument::Cells, process::Process, tally::Probe};
use crate::{
    contract::metric::{self as contract, Kind, Metric},
    ops::exposition,
};

/// Form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The older text format of Prometheus, 0.0.4.
    Prometheus,
}

/// Encodes all metrics, from whatever thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Exposition {
    registry: Arc<Registry>,
}

impl Exposition {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(shared)));
        Self { registry: Arc::new(registry) }
    }

    /// All metrics as text.
    #[must_use]
    pub fn encode(&self, format: Format) -> String {
        exposition::text(&self.registry, format == Format::OpenMetrics)
    }
}

impl Collector for Shared {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        let core = self.core();
        containers(&mut page, &core)?;
        node(&mut page, &core)?;
        instruments(&mut page, &self.instruments.cells, &core)?;
        drop(core);
        process(&mut page, &Process::read())
    }
}

/// Writes one metric after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn metric<'s>(&'s mut self, metric: &'static Metric) -> Result<Family<'s>, fmt::Error> {
        let kind = match metric.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        // The encoder would put the unit behind the name, which has it already.
        let encoder = self.0.encode_descriptor(metric.family(), metric.help, None, kind)?;
        Ok(Family { encoder, metric })
    }

    /// A gauge without labels.
    fn gauge(&mut self, metric: &'static Metric, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.metric(metric)?.encoder.encode_gauge(value)
    }

    /// Counters by the words of the metric's only label.
    fn counters(&mut self, metric: &'static Metric, words: &[&str], counts: impl Iterator<Item = u64>) -> fmt::Result {
        let mut family = self.metric(metric)?;
        words.iter().zip(counts).try_for_each(|(word, count)| family.counter([*word], &count))
    }
}

/// One metric being written.
struct Family<'a> {
    encoder: MetricEncoder<'a>,
    metric: &'static Metric,
}

impl Family<'_> {
    /// Labels of the metric, with these values in its order.
    fn labels<'v, const N: usize>(&self, values: [&'v str; N]) -> [(&'static str, &'v str); N] {
        let names = self.metric.labels;
        debug_assert_eq!(names.len(), N, "{} has other labels", self.metric.name);
        let mut names = names.iter();
        values.map(|value| (names.next().map_or("", |label| label.name), value))
    }

    fn counter<const N: usize>(&mut self, values: [&str; N], count: &impl EncodeCounterValue) -> fmt::Result {
        let labels = self.labels(values);
        self.encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(count, None)
    }

    fn gauge<const N: usize>(&mut self, values: [&str; N], value: &impl EncodeGaugeValue) -> fmt::Result {
        let labels = self.labels(values);
        self.encoder.encode_family(&labels)?.encode_gauge(value)
    }

    fn encode(&mut self, labels: &impl EncodeLabelSet, metric: &impl EncodeMetric) -> fmt::Result {
        metric.encode(self.encoder.encode_family(labels)?)
    }
}

fn containers(page: &mut Page, core: &Core) -> fmt::Result {
    let mut family = page.metric(&contract::CONTAINER_OOM_KILLS)?;
    for (key, count) in core.series.iter() {
        family.counter([&*key.namespace, &*key.pod, &*key.container], &count.kills)?;
    }
    let mut family = page.metric(&contract::CONTAINER_OOM_DECISIONS)?;
    for (key, count) in core.series.iter() {
        family.counter([&*key.namespace, &*key.pod, &*key.container], &count.decisions)?;
    }
    let mut family = page.metric(&contract::CONTAINER_OOM_KILLS_BY)?;
    for (key, count) in core.series.iter() {
        for ((process, limit), kills) in &count.by {
            let values = [&*key.namespace, &*key.pod, &*key.container, process.word(), limit.word()];
            family.counter(values, kills)?;
        }
    }
    Ok(())
}

fn node(page: &mut Page, core: &Core) -> fmt::Result {
    let tally = &core.tally;
    page.counters(&contract::NODE_OOM_KILLS, contract::HitLimit::WORDS, tally.node.iter().copied())?;
    let mut family = page.metric(&contract::HUNG_TASKS)?;
    for class in contract::HungClass::ALL {
        family.gauge([class.word()], &(tally.hung(*class) as u64))?;
    }
    page.counters(&contract::EVENTS, contract::Happening::WORDS, tally.events.iter().copied())?;
    let mut family = page.metric(&contract::EVENTS_UNRESOLVED)?;
    for (kind, counts) in contract::Happening::WORDS.iter().zip(&tally.unresolved) {
        for (missing, count) in contract::Unresolved::WORDS.iter().zip(counts) {
            family.counter([kind, missing], count)?;
        }
    }
    let mut family = page.metric(&contract::EVENTS_LOST)?;
    for (loss, count) in &tally.lost {
        family.counter([loss.stage().word(), loss.kind()], count)?;
    }
    let mut family = page.metric(&contract::PROBE_ATTACHED)?;
    for (detector, used) in &tally.probes {
        for method in detector.methods() {
            family.gauge([detector.name(), method.name()], &u64::from(*used == Probe::By(*method)))?;
        }
        family.gauge([detector.name(), contract::NO_METHOD], &u64::from(*used == Probe::Off))?;
    }
    match &tally.unaccounted {
        Some(kills) => page.gauge(&contract::OOM_UNACCOUNTED, kills),
        None => Ok(()),
    }
}

fn instruments(page: &mut Page, cells: &Cells, core: &Core) -> fmt::Result {
    page.counters(&contract::RECORDS_READ, contract::RECORDS, cells.records.iter().map(Counter::get))?;
    let mut unspooled = page.metric(&contract::RECORDS_UNSPOOLED)?;
    unspooled.encoder.encode_counter::<NoLabelSet, _, f64>(&cells.unspooled.get(), None)?;
    let crashes = cells.crashes.iter().map(Counter::get);
    page.counters(&contract::PREVIOUS_BOOT_CRASHES, contract::CrashEnd::WORDS, crashes)?;
    let reads = cells.name_reads.iter().map(Counter::get);
    page.counters(&contract::NAME_READS, contract::NameRead::WORDS, reads)?;
    let unlocated = cells.unlocated.iter().map(Counter::get);
    page.counters(&contract::LOCATE_REFUSALS, contract::Unlocated::WORDS, unlocated)?;
    let mut family = page.metric(&contract::EVENT_DELAY)?;
    let labels = family.labels(["written"]);
    family.encode(&labels, &cells.written_delay)?;
    page.gauge(&contract::HELD_KILLS, &cells.held.get())?;
    page.counters(&contract::HELD_ENDED, contract::HoldEnd::WORDS, cells.hold_ends.iter().map(Counter::get))?;
    let mut family = page.metric(&contract::QUEUE_DEPTH)?;
    for (queue, depth) in contract::Queue::WORDS.iter().zip(&cells.queues) {
        family.gauge([queue], &depth.get())?;
    }
    let mut family = page.metric(&contract::API_WRITES)?;
    for (kind, results) in contract::WriteKind::WORDS.iter().zip(&cells.writes) {
        for (result, counter) in contract::WriteResult::WORDS.iter().zip(results) {
            family.counter([kind, result], &counter.get())?;
        }
    }
    let budgets = cells.budgets.iter().map(Counter::get);
    page.counters(&contract::BUDGET_REFUSALS, contract::BudgetKind::WORDS, budgets)?;
    let refused = core.series.refused();
    let refused = [refused.containers, refused.by, core.tally.hung_refused];
    page.counters(&contract::SERIES_REFUSED, contract::BoundedMetric::WORDS, refused.into_iter())?;
    let mut family = page.metric(&contract::SERIES_LIMIT)?;
    for metric in contract::BoundedMetric::ALL {
        family.gauge([metric.word()], &(core.limit(*metric) as u64))?;
    }
    let lines = cells.lines_dropped.iter().map(Counter::get);
    page.counters(&contract::LINES_DROPPED, contract::DroppedLine::WORDS, lines)?;
    let reloads = cells.reloads.iter().map(Counter::get);
    page.counters(&contract::CONFIG_RELOADS, contract::Reload::WORDS, reloads)?;
    page.gauge(&contract::CONFIG_REFUSED, &cells.config_refused.get())?;
    let failures = cells.state_failures.iter().map(Counter::get);
    page.counters(&contract::STATE_WRITE_FAILURES, contract::StateFailure::WORDS, failures)
}

fn process(page: &mut Page, process: &Process) -> fmt::Result {
    let abi = detector_common::ABI.to_string();
    page.metric(&contract::BUILD_INFO)?.gauge([env!("CARGO_PKG_VERSION"), &abi], &1_u64)?;
    let mut cpu = page.metric(&contract::PROCESS_CPU)?;
    cpu.encoder.encode_counter::<NoLabelSet, _, f64>(&process.cpu_seconds, None)?;
    if let Some(bytes) = &process.resident_bytes {
        page.gauge(&contract::PROCESS_RESIDENT, bytes)?;
    }
    if let Some(start) = &process.start_seconds {
        page.gauge(&contract::PROCESS_START, start)?;
    }
    if let Some(open) = &process.open_fds {
        page.gauge(&contract::PROCESS_OPEN_FDS, open)?;
    }
    match &process.max_fds {
        Some(max) => page.gauge(&contract::PROCESS_MAX_FDS, max),
        None => Ok(()),
    }
}
