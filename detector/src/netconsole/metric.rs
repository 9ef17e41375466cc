//! What is counted and measured, and its text.

use std::sync::Arc;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Metric as Registered, Registry},
};

use crate::{
    contract::metric::{Metric, NetconsoleChange, NetconsoleTargets, SelfTestResult, netconsole as contract},
    ops::exposition,
};

type Labels = [(&'static str, &'static str); 1];

/// The metrics; all clones are the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    targets: Family<Labels, Gauge>,
    changes: Family<Labels, Counter>,
    tests: Family<Labels, Counter>,
    receivers: Family<Labels, Gauge>,
    published: Gauge,
}

impl Default for Metrics {
    /// All at zero, so that the first increase shows as one.
    fn default() -> Self {
        let (targets, changes, tests, receivers) =
            (Family::default(), Family::default(), Family::default(), Family::default());
        let mut metrics =
            Self { registry: Arc::default(), targets, changes, tests, receivers, published: Gauge::default() };
        NetconsoleTargets::ALL.iter().for_each(|state| metrics.targets(*state, 0));
        for change in NetconsoleChange::WORDS {
            drop(metrics.changes.get_or_create(&labels(&contract::CHANGES, change)));
        }
        for result in SelfTestResult::WORDS {
            drop(metrics.tests.get_or_create(&labels(&contract::SELF_TESTS, result)));
            drop(metrics.receivers.get_or_create(&labels(&contract::SELF_TEST_RECEIVERS, result)));
        }
        let mut registry = Registry::default();
        register(&mut registry, &contract::TARGETS, &metrics.targets);
        register(&mut registry, &contract::CHANGES, &metrics.changes);
        register(&mut registry, &contract::SELF_TESTS, &metrics.tests);
        register(&mut registry, &contract::SELF_TEST_RECEIVERS, &metrics.receivers);
        register(&mut registry, &contract::SECRET_PUBLISHED, &metrics.published);
        metrics.registry = Arc::new(registry);
        metrics
    }
}

fn register<M: Registered + Clone>(registry: &mut Registry, metric: &'static Metric, family: &M) {
    // The library ends a description by itself.
    registry.register(metric.family(), metric.help.trim_end_matches('.'), family.clone());
}

fn labels(metric: &'static Metric, word: &'static str) -> Labels {
    [(metric.labels.first().map_or("", |label| label.name), word)]
}

impl Metrics {
    /// There are so many targets of this state.
    pub fn targets(&self, state: NetconsoleTargets, count: usize) {
        let gauge = self.targets.get_or_create(&labels(&contract::TARGETS, state.word()));
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Something was done to a target.
    pub fn changed(&self, change: NetconsoleChange) {
        self.changes.get_or_create(&labels(&contract::CHANGES, change.word())).inc();
    }

    /// A test ended, with these results of all receivers.
    pub fn tested(&self, results: &[SelfTestResult]) {
        for result in SelfTestResult::ALL {
            let count = results.iter().filter(|one| *one == result).count();
            let gauge = self.receivers.get_or_create(&labels(&contract::SELF_TEST_RECEIVERS, result.word()));
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            let total = self.tests.get_or_create(&labels(&contract::SELF_TESTS, result.word()));
            total.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    /// The annotation stands, or does not.
    pub fn published(&self, stands: bool) {
        self.published.set(i64::from(stands));
    }

    /// All of them as text.
    #[must_use]
    pub fn encode(&self, open: bool) -> String {
        exposition::text(&self.registry, open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_metrics_of_the_contract_are_served_from_the_start() {
        let page = Metrics::default().encode(false);
        for metric in contract::METRICS {
            assert!(page.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{} in {page}", metric.name);
        }
        assert!(page.contains("detector_netconsole_targets{state=\"wanted\"} 0\n"), "{page}");
        assert!(page.contains("detector_netconsole_changes_total{result=\"failed\"} 0\n"), "{page}");
    }

    #[test]
    fn the_last_test_is_told_beside_the_sum_of_all() {
        let metrics = Metrics::default();
        metrics.tested(&[SelfTestResult::Heard, SelfTestResult::NotHeard]);
        metrics.tested(&[SelfTestResult::Heard, SelfTestResult::Heard]);
        let page = metrics.encode(false);
        assert!(page.contains("detector_netconsole_self_tests_total{result=\"heard\"} 3\n"), "{page}");
        assert!(page.contains("detector_netconsole_self_test_receivers{result=\"not_heard\"} 0\n"), "{page}");
    }
}
