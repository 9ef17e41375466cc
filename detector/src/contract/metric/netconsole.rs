//! What `detector netconsole` serves at `/metrics`: whether this node's kernel would be heard.

use super::{Kind, Metric, NetconsoleChange, NetconsoleTargets, SelfTestResult, reference::page, words};

/// Targets.
pub const TARGETS: Metric = Metric {
    name: "detector_netconsole_targets",
    kind: Kind::Gauge,
    unit: None,
    labels: &[words("state", NetconsoleTargets::WORDS)],
    help: "Receivers that should have a target, those of them that have one as it should be, and targets of ours that lead \
           elsewhere. Without an enabled one a panic of this node is not heard.",
};

/// Changes.
pub const CHANGES: Metric = Metric {
    name: "detector_netconsole_changes_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("result", NetconsoleChange::WORDS)],
    help: "What was done to targets, and what failed.",
};

/// Tests.
pub const SELF_TESTS: Metric = Metric {
    name: "detector_netconsole_self_tests_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("result", SelfTestResult::WORDS)],
    help: "Tests by what became of them, one for each receiver.",
};

/// The last test.
pub const SELF_TEST_RECEIVERS: Metric = Metric {
    name: "detector_netconsole_self_test_receivers",
    kind: Kind::Gauge,
    unit: None,
    labels: &[words("result", SelfTestResult::WORDS)],
    help: "Receivers of the last test by whether they heard the line. All zero before the first.",
};

/// The annotation.
pub const SECRET_PUBLISHED: Metric = Metric {
    name: "detector_netconsole_secret_published",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "1 if the Node was last seen with the annotation by which the controller knows this node's datagrams.",
};

/// All of them, in the order in which they are served.
pub const METRICS: &[&Metric] = &[&TARGETS, &CHANGES, &SELF_TESTS, &SELF_TEST_RECEIVERS, &SECRET_PUBLISHED];

/// The reference of these metrics, as a Markdown page.
#[must_use]
pub fn reference() -> String {
    page(PREFACE, METRICS)
}

const PREFACE: &str = "\
# Metrics of `detector netconsole`

Served at `/metrics` of `health.listen`, in the text format of OpenMetrics, or in that of Prometheus to who does not ask for
the former. Names and labels are renamed or removed only with a deprecation. Counters begin at zero with each start; all series
are there from the start.
";
