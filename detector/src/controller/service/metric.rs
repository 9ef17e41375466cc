//! What is counted and measured, and its text.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Metric as Registered, Registry},
};

use crate::{
    contract::{
        incident::{HoldReason, KernelIncident, Phase, StepKind, StepState},
        metric::{
            Kind, Metric,
            controller::{
                BUFFER,
                incidents::{
                    self as contract, EventFate, HoldWord, LeftOut, PhaseWord, StepResult, StepWord, TestimonyFate,
                },
            },
        },
    },
    controller::{incident::hearing::counts::Sample, sink::event::deliver::Counts},
    ops::exposition,
};

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Arc<Registry>,
    heard: Heard,
    leader: Gauge,
    incidents: Family<Labels<1>, Gauge>,
    suspects: Gauge,
    braked: Gauge,
    steps: Family<Labels<2>, Counter>,
    holds: Family<Labels<1>, Counter>,
    events: Family<Labels<1>, Counter>,
    told: Cell<Counts>,
    testimonies: Family<Labels<1>, Counter>,
    facts_lost: Counter,
    left_out: Family<Labels<1>, Counter>,
}

impl Default for Metrics {
    /// All at zero, so that the first increase shows as one.
    fn default() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            heard: Heard::default(),
            leader: Gauge::default(),
            incidents: Family::default(),
            suspects: Gauge::default(),
            braked: Gauge::default(),
            steps: Family::default(),
            holds: Family::default(),
            events: Family::default(),
            told: Cell::default(),
            testimonies: Family::default(),
            facts_lost: Counter::default(),
            left_out: Family::default(),
        };
        metrics.begin();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(metrics.heard.clone()));
        register(&mut registry, &contract::LEADER, &metrics.leader);
        register(&mut registry, &contract::INCIDENTS, &metrics.incidents);
        register(&mut registry, &contract::SUSPECTS, &metrics.suspects);
        register(&mut registry, &contract::BRAKED, &metrics.braked);
        register(&mut registry, &contract::STEPS, &metrics.steps);
        register(&mut registry, &contract::HOLDS, &metrics.holds);
        register(&mut registry, &contract::EVENTS, &metrics.events);
        register(&mut registry, &contract::TESTIMONIES, &metrics.testimonies);
        register(&mut registry, &contract::FACTS_LOST, &metrics.facts_lost);
        register(&mut registry, &contract::LEFT_OUT, &metrics.left_out);
        metrics.registry = Arc::new(registry);
        metrics
    }
}

fn register<M: Registered + Clone>(registry: &mut Registry, metric: &'static Metric, family: &M) {
    // The library ends a description by itself.
    registry.register(metric.family(), metric.help.trim_end_matches('.'), family.clone());
}

fn label(metric: &'static Metric, place: usize, word: &'static str) -> (&'static str, &'static str) {
    (metric.labels.get(place).map_or("", |label| label.name), word)
}

fn labels(metric: &'static Metric, word: &'static str) -> Labels<1> {
    [label(metric, 0, word)]
}

impl Metrics {
    fn begin(&self) {
        for word in PhaseWord::WORDS {
            drop(self.incidents.get_or_create(&labels(&contract::INCIDENTS, word)));
        }
        for (step, result) in
            StepWord::WORDS.iter().flat_map(|step| StepResult::WORDS.iter().map(move |one| (step, one)))
        {
            drop(self.steps.get_or_create(&[label(&contract::STEPS, 0, step), label(&contract::STEPS, 1, result)]));
        }
        for word in HoldWord::WORDS {
            drop(self.holds.get_or_create(&labels(&contract::HOLDS, word)));
        }
        for word in EventFate::WORDS {
            drop(self.events.get_or_create(&labels(&contract::EVENTS, word)));
        }
        for word in TestimonyFate::WORDS {
            drop(self.testimonies.get_or_create(&labels(&contract::TESTIMONIES, word)));
        }
        for word in LeftOut::WORDS {
            drop(self.left_out.get_or_create(&labels(&contract::LEFT_OUT, word)));
        }
    }

    /// What was heard by now.
    pub(super) fn heard(&self, samples: Vec<Sample>) {
        *self.heard.samples.lock().unwrap_or_else(PoisonError::into_inner) = samples;
    }

    /// Size of the socket's buffer.
    pub(super) fn buffer(&self, bytes: usize) {
        *self.heard.buffer.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
    }

    pub(super) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if !leads {
            self.suspects.set(0);
            self.incidents([]);
            self.braked(false);
        }
    }

    pub(super) fn suspects(&self, count: usize) {
        self.suspects.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn incidents<'a>(&self, incidents: impl IntoIterator<Item = &'a KernelIncident>) {
        let mut counts: BTreeMap<&str, i64> = PhaseWord::WORDS.iter().map(|word| (*word, 0)).collect();
        for incident in incidents {
            let phase = incident.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Suspected);
            *counts.entry(phase_word(phase).word()).or_default() += 1;
        }
        for word in PhaseWord::WORDS {
            let gauge = self.incidents.get_or_create(&labels(&contract::INCIDENTS, word));
            gauge.set(counts.get(word).copied().unwrap_or_default());
        }
    }

    pub(super) fn braked(&self, pulled: bool) {
        self.braked.set(i64::from(pulled));
    }

    pub(super) fn step(&self, kind: StepKind, state: StepState) {
        let result = match state {
            StepState::Intended => return,
            StepState::Done => StepResult::Done,
            StepState::Failed => StepResult::Failed,
            StepState::Told => StepResult::Told,
        };
        let step = label(&contract::STEPS, 0, step_word(kind).word());
        self.steps.get_or_create(&[step, label(&contract::STEPS, 1, result.word())]).inc();
    }

    pub(super) fn held(&self, reason: HoldReason) {
        self.holds.get_or_create(&labels(&contract::HOLDS, hold_word(reason).word())).inc();
    }

    /// What became of events by now.
    pub(super) fn events(&self, now: Counts) {
        let before = self.told.replace(now);
        let add = |fate: EventFate, now: u64, before: u64| {
            self.events.get_or_create(&labels(&contract::EVENTS, fate.word())).inc_by(now.saturating_sub(before));
        };
        add(EventFate::Created, now.created, before.created);
        add(EventFate::AlreadyThere, now.already_there, before.already_there);
        add(EventFate::Refused, now.refused, before.refused);
        add(EventFate::Failed, now.failed, before.failed);
        add(EventFate::Dropped, now.dropped, before.dropped);
    }

    pub(super) fn testified(&self, stands: bool) {
        let fate = if stands { TestimonyFate::Written } else { TestimonyFate::Failed };
        self.testimonies.get_or_create(&labels(&contract::TESTIMONIES, fate.word())).inc();
    }

    pub(super) fn fact_lost(&self) {
        self.facts_lost.inc();
    }

    /// How many were left out by now.
    pub(super) fn left_out(&self, object: LeftOut, now: u64) {
        let all = self.left_out.get_or_create(&labels(&contract::LEFT_OUT, object.word()));
        all.inc_by(now.saturating_sub(all.get()));
    }

    /// What writes all of them as text.
    pub(super) fn encoder(&self) -> Arc<dyn Fn(bool) -> String + Send + Sync> {
        let registry = Arc::clone(&self.registry);
        Arc::new(move |open| exposition::text(&registry, open))
    }
}

/// What the receiver tells, taken over whole.
#[derive(Clone, Debug, Default)]
struct Heard {
    samples: Arc<Mutex<Vec<Sample>>>,
    buffer: Arc<Mutex<usize>>,
}

impl Collector for Heard {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let buffer = *self.buffer.lock().unwrap_or_else(PoisonError::into_inner) as u64;
        let buffer = Sample { metric: &BUFFER, word: None, value: buffer };
        let all: Vec<_> = samples.into_iter().chain([buffer]).collect();
        for family in all.chunk_by(|one, other| one.metric.name == other.metric.name) {
            let Some(Sample { metric, .. }) = family.first() else { continue };
            let kind = if metric.kind == Kind::Counter { MetricType::Counter } else { MetricType::Gauge };
            let help = format!("{}.", metric.help.trim_end_matches('.'));
            let mut described = encoder.encode_descriptor(metric.family(), &help, None, kind)?;
            for sample in family {
                let labels: Vec<_> = sample.word.map(|word| label(metric, 0, word)).into_iter().collect();
                if metric.kind == Kind::Counter {
                    ConstCounter::new(sample.value).encode(described.encode_family(&labels)?)?;
                } else {
                    let value = i64::try_from(sample.value).unwrap_or(i64::MAX);
                    ConstGauge::new(value).encode(described.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

const fn phase_word(phase: Phase) -> PhaseWord {
    match phase {
        Phase::Suspected => PhaseWord::Suspected,
        Phase::Dead => PhaseWord::Dead,
        Phase::Returned => PhaseWord::Returned,
        Phase::Closed => PhaseWord::Closed,
    }
}

const fn step_word(step: StepKind) -> StepWord {
    match step {
        StepKind::Cordon => StepWord::Cordon,
        StepKind::Annotate => StepWord::Annotate,
        StepKind::DeletePods => StepWord::DeletePods,
        StepKind::FailPods => StepWord::FailPods,
        StepKind::TaintOutOfService => StepWord::TaintOutOfService,
        StepKind::ForceDeletePods => StepWord::ForceDeletePods,
        StepKind::DeleteNode => StepWord::DeleteNode,
        StepKind::Untaint => StepWord::Untaint,
        StepKind::Uncordon => StepWord::Uncordon,
        StepKind::Retract => StepWord::Retract,
    }
}

const fn hold_word(reason: HoldReason) -> HoldWord {
    match reason {
        HoldReason::NoCorroboration => HoldWord::NoCorroboration,
        HoldReason::NodeReturned => HoldWord::NodeReturned,
        HoldReason::Budget => HoldWord::Budget,
        HoldReason::ClusterUnwell => HoldWord::ClusterUnwell,
        HoldReason::Brake => HoldWord::Brake,
        HoldReason::Excluded => HoldWord::Excluded,
        HoldReason::Unverified => HoldWord::Unverified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::WallClock,
        config::controller::Netconsole,
        contract::metric::controller,
        controller::{incident::hearing::Hearing, source::gate::Limits},
    };

    #[test]
    fn each_metric_of_the_contract_has_a_producer() {
        let metrics = Metrics::default();
        metrics.heard(Hearing::new(Limits::from(&Netconsole::default()), None, WallClock::with_offset(0)).samples());
        let page = metrics.encoder()(false);
        for metric in controller::METRICS.iter().chain(contract::METRICS) {
            let series = page
                .lines()
                .filter(|line| !line.starts_with('#'))
                .filter(|line| line.strip_prefix(metric.name).is_some_and(|rest| rest.starts_with(['{', ' '])));
            let words = metric.labels.iter().map(|label| match label.values {
                crate::contract::metric::Values::Words(words) => words.len(),
                _ => 1,
            });
            assert_eq!(series.count(), words.product::<usize>(), "{}\n{page}", metric.name);
        }
    }
}
