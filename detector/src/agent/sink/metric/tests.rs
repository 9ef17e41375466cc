//! What a scrape shows after containers came and went, were killed, and the agent restarted.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::*;
use crate::{
    agent::{
        locate::{Container, Owner, Place, Pod},
        sink::{Count, fixture, report::HangEdge},
    },
    cluster::Outcome,
    contract::metric::{
        self as contract, BudgetKind, Kind, LOSSES, Loss, LossStage, METRICS, Queue, Reload, StateFailure, WriteKind,
    },
};

const SECOND: u64 = 1_000_000_000;
pub(super) const KEEP: u64 = 600 * SECOND;

pub(super) fn config(series: usize) -> config::Metrics {
    config::Metrics { listen: None, keep: Duration::from_nanos(KEEP), series }
}

pub(super) fn metrics() -> Metrics {
    Metrics::new(&config(100))
}

/// A container of pod `pod` with this uid; names are known unless `container` is empty.
pub(super) fn place(pod: &str, uid: &str, container: &str) -> Place {
    let known = !container.is_empty();
    let name = |name: &str| known.then(|| name.to_owned());
    let owner = Container {
        id: format!("0123456789abcdef-{container}"),
        name: name(container),
        pod: Some(Pod {
            uid: uid.to_owned(),
            namespace: name("shop"),
            name: name(pod),
            ..fixture::container().pod.unwrap()
        }),
        ..fixture::container()
    };
    Place { path: "/kubepods/x".into(), owner: Owner::Container(owner) }
}

pub(super) fn seen(place: Place) -> ContainerChange {
    ContainerChange::Seen(Arc::new(place))
}

pub(super) fn pod_gone(uid: &str) -> ContainerChange {
    ContainerChange::PodGone { uid: uid.to_owned() }
}

pub(super) fn kill(place: &Place) -> KillReport {
    let report = KillReport::of(&fixture::container_kill(), &fixture::UNITS, "b0");
    KillReport { subject: Subject::of(Some(place)), ..report }
}

/// Samples of `metrics`: name and labels as they stand in the text, and value.
pub(super) fn samples(metrics: &Metrics) -> BTreeMap<String, f64> {
    let page = metrics.encode();
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// Samples whose name and labels contain `part`; a bound and what it refused are no samples of the metric that they name.
pub(super) fn samples_with(metrics: &Metrics, part: &str) -> Vec<(String, f64)> {
    let wanted = |name: &str| name.contains(part) && !name.starts_with("detector_series_");
    samples(metrics).into_iter().filter(|(name, _)| wanted(name)).collect()
}

fn total(namespace: &str, pod: &str, container: &str) -> String {
    format!("detector_container_oom_kills_total{{namespace=\"{namespace}\",pod=\"{pod}\",container=\"{container}\"}}")
}

pub(super) fn total_of(metrics: &Metrics, pod: &str, container: &str) -> Option<f64> {
    samples(metrics).get(&total("shop", pod, container)).copied()
}

#[test]
fn a_container_has_a_zero_from_the_moment_its_names_are_known() {
    let mut metrics = metrics();
    metrics.container(&seen(place("cart", "u1", "")), 1);
    assert_eq!(samples_with(&metrics, "container_oom_kills"), []);
    metrics.container(&seen(place("cart", "u1", "app")), 2);
    metrics.container(&seen(place("cart", "u1", "init-db")), 2);
    assert_eq!(
        samples_with(&metrics, "container_oom_kills"),
        [(total("shop", "cart", "app"), 0.0), (total("shop", "cart", "init-db"), 0.0)]
    );
}

#[test]
fn a_kill_counts_in_total_by_process_and_limit_and_on_the_node() {
    let mut metrics = metrics();
    let app = place("cart", "u1", "app");
    metrics.container(&seen(app.clone()), 1);
    metrics.kill(&kill(&app), 2);
    metrics.kill(&kill(&app), 2);
    metrics.kill(&KillReport { process: "init".into(), limit: "node".into(), ..kill(&app) }, 3);
    assert_eq!(total_of(&metrics, "cart", "app"), Some(3.0));
    let by = samples_with(&metrics, "kills_by_total");
    let labels = r#"detector_container_oom_kills_by_total{namespace="shop",pod="cart",container="app","#;
    assert_eq!(
        by,
        [
            (format!("{labels}process=\"child\",limit=\"container\"}}"), 2.0),
            (format!("{labels}process=\"init\",limit=\"node\"}}"), 1.0)
        ]
    );
    let samples = samples(&metrics);
    assert_eq!(samples["detector_node_oom_kills_total{limit=\"container\"}"], 2.0);
    assert_eq!(samples["detector_node_oom_kills_total{limit=\"node\"}"], 1.0);
    assert_eq!(samples["detector_node_oom_kills_total{limit=\"pod\"}"], 0.0);
    assert_eq!(samples["detector_events_total{kind=\"oom_kill\"}"], 3.0);
}

#[test]
fn a_kill_whose_names_never_came_is_booked_on_uid_and_id() {
    let mut metrics = metrics();
    metrics.kill(&kill(&place("cart", "u1", "")), 1);
    assert_eq!(samples(&metrics)[&total("", "u1", "0123456789ab")], 1.0);
    assert_eq!(samples(&metrics)["detector_events_unresolved_total{kind=\"oom_kill\",missing=\"names\"}"], 1.0);
}

#[test]
fn a_kill_outside_of_containers_counts_on_the_node_alone() {
    let mut metrics = metrics();
    let report = KillReport::of(&fixture::unknown_kill(), &fixture::UNITS, "b0");
    metrics.kill(&report, 1);
    assert_eq!(samples_with(&metrics, "container_oom_kills"), []);
    assert_eq!(samples(&metrics)["detector_node_oom_kills_total{limit=\"unknown\"}"], 1.0);
    assert_eq!(samples(&metrics)["detector_events_unresolved_total{kind=\"oom_kill\",missing=\"cgroup\"}"], 1.0);
}

#[test]
fn kills_that_only_the_kernel_counted_are_unknown_ones() {
    let mut metrics = metrics();
    let app = place("cart", "u1", "app");
    metrics.container(&seen(app.clone()), 1);
    metrics.missed(&Subject::of(Some(&app)), 4, 2);
    assert_eq!(total_of(&metrics, "cart", "app"), Some(4.0));
    assert_eq!(samples_with(&metrics, "process=\"unknown\",limit=\"unknown\"")[0].1, 4.0);
    assert_eq!(samples(&metrics)["detector_events_total{kind=\"oom_kill\"}"], 0.0);
}

#[test]
fn a_series_outlives_its_container_and_ends_a_time_after_its_pod() {
    let mut metrics = metrics();
    let app = place("cart", "u1", "app");
    metrics.container(&seen(app.clone()), 1);
    metrics.kill(&kill(&app), 2);
    metrics.container(&ContainerChange::Gone { id: "0123456789abcdef-app".into() }, 3);
    assert_eq!(metrics.next_due(), None);
    metrics.container(&pod_gone("u1"), 10);
    assert_eq!(metrics.next_due(), Some(10 + KEEP));
    metrics.expire(9 + KEEP);
    assert_eq!(total_of(&metrics, "cart", "app"), Some(1.0));
    metrics.expire(10 + KEEP);
    assert_eq!(samples_with(&metrics, "container_oom_kills"), []);
    assert_eq!(metrics.next_due(), None);
}

#[test]
fn a_new_pod_of_the_same_name_continues_the_series_and_decides_its_end() {
    let mut metrics = metrics();
    let (old, new) = (place("db-0", "u1", "app"), place("db-0", "u2", "app"));
    metrics.container(&seen(old.clone()), 1);
    metrics.kill(&kill(&old), 2);
    metrics.container(&seen(new.clone()), 3);
    metrics.container(&pod_gone("u1"), 4);
    metrics.kill(&kill(&old), 5);
    metrics.kill(&kill(&new), 6);
    metrics.expire(u64::MAX);
    assert_eq!(total_of(&metrics, "db-0", "app"), Some(3.0));
    metrics.container(&pod_gone("u2"), 7);
    assert_eq!(metrics.next_due(), Some(7 + KEEP));
}

#[test]
fn a_late_kill_of_a_pod_that_is_gone_is_shown_for_a_while() {
    let mut metrics = metrics();
    metrics.kill(&kill(&place("cart", "u1", "app")), 5);
    assert_eq!(total_of(&metrics, "cart", "app"), Some(1.0));
    assert_eq!(metrics.next_due(), Some(5 + KEEP));
}

#[test]
fn the_number_of_series_is_bounded_and_those_of_gone_pods_give_way() {
    let mut metrics = Metrics::new(&config(2));
    for uid in ["u1", "u2"] {
        metrics.container(&seen(place(uid, uid, "app")), 1);
    }
    let third = place("u3", "u3", "app");
    metrics.container(&seen(third.clone()), 2);
    assert_eq!(total_of(&metrics, "u3", "app"), None);
    metrics.container(&pod_gone("u1"), 3);
    metrics.kill(&kill(&third), 4);
    assert_eq!((total_of(&metrics, "u1", "app"), total_of(&metrics, "u3", "app")), (None, Some(1.0)));
    let refused = "detector_series_refused_total{metric=\"detector_container_oom_kills_total\"}";
    assert_eq!(samples(&metrics)[refused], 2.0);
    metrics.kill(&KillReport { process: "init".into(), ..kill(&third) }, 5);
    metrics.kill(&KillReport { limit: "node".into(), ..kill(&third) }, 6);
    assert_eq!(total_of(&metrics, "u3", "app"), Some(3.0));
    assert_eq!(samples_with(&metrics, "kills_by_total").len(), 2);
    let refused = "detector_series_refused_total{metric=\"detector_container_oom_kills_by_total\"}";
    assert_eq!(samples(&metrics)[refused], 1.0);
}

#[test]
fn counts_go_on_after_a_restart_and_end_unless_their_pod_is_seen() {
    let mut before = metrics();
    for (pod, uid) in [("cart", "u1"), ("gone", "u2")] {
        before.container(&seen(place(pod, uid, "app")), 1);
        before.kill(&kill(&place(pod, uid, "app")), 2);
    }
    before.lost(Loss::of(LossStage::Source, "oom_mark").unwrap(), 3);
    let saved = serde_json::to_string(&before.snapshot(3)).unwrap();

    let mut after = metrics();
    after.restore(serde_json::from_str(&saved).unwrap(), 50);
    after.container(&seen(place("cart", "u1", "app")), 51);
    after.kill(&kill(&place("cart", "u1", "app")), 52);
    assert_eq!((total_of(&after, "cart", "app"), total_of(&after, "gone", "app")), (Some(2.0), Some(1.0)));
    let samples = samples(&after);
    assert_eq!(samples["detector_node_oom_kills_total{limit=\"container\"}"], 3.0);
    assert_eq!(samples["detector_events_total{kind=\"oom_kill\"}"], 3.0);
    assert_eq!(samples["detector_events_lost_total{stage=\"source\",kind=\"oom_mark\"}"], 3.0);
    after.expire(50 + KEEP);
    assert_eq!((total_of(&after, "cart", "app"), total_of(&after, "gone", "app")), (Some(2.0), None));
}

#[test]
fn a_pod_whose_containers_wait_for_a_restart_keeps_their_series_over_one_of_the_agent() {
    let mut before = metrics();
    let app = place("cart", "u1", "app");
    before.container(&seen(app.clone()), 1);
    before.kill(&kill(&app), 2);
    let mut after = metrics();
    after.restore(before.snapshot(3), 50);
    let Owner::Container(Container { pod: Some(pod), .. }) = app.owner else { unreachable!() };
    after.container(&seen(Place { path: "/kubepods/x/sandbox".into(), owner: Owner::Pod(pod) }), 51);
    assert_eq!(after.next_due(), None);
    assert_eq!(samples_with(&after, "container_oom_kills_total{"), [(total("shop", "cart", "app"), 1.0)]);
}

#[test]
fn what_is_left_of_a_gone_pods_time_is_kept_over_a_restart() {
    let mut before = metrics();
    before.container(&seen(place("cart", "u1", "app")), 1);
    before.container(&pod_gone("u1"), 2);
    let mut after = metrics();
    after.restore(before.snapshot(2 + KEEP - 30), 7);
    assert_eq!(after.next_due(), Some(37));
}

#[test]
fn hung_tasks_rise_and_fall() {
    let mut metrics = metrics();
    let raised = HangReport::of(&fixture::hang(), &fixture::UNITS, "b0");
    let other = HangReport { tid: Some(7), ..raised.clone() };
    metrics.hang(&raised, HungClass::Workload);
    metrics.hang(&other, HungClass::Runtime);
    metrics.hang(&HangReport { edge: HangEdge::Sustained, ..raised.clone() }, HungClass::Workload);
    let hung =
        |metrics: &Metrics| samples_with(metrics, "hung_tasks{").iter().map(|(_, value)| *value).collect::<Vec<_>>();
    assert_eq!(hung(&metrics), [1.0, 1.0]);
    assert_eq!(samples(&metrics)["detector_events_total{kind=\"hung_task\"}"], 2.0);
    metrics.hang(&HangReport { edge: HangEdge::Ran, ..raised }, HungClass::Workload);
    metrics.hang(&HangReport { edge: HangEdge::Exited, ..other }, HungClass::Runtime);
    assert_eq!(hung(&metrics), [0.0, 0.0]);
}

#[test]
fn a_hang_of_an_earlier_run_hangs_still_and_is_counted_no_second_time() {
    let raised = HangReport::of(&fixture::hang(), &fixture::UNITS, "b0");
    let mut before = metrics();
    before.hang(&raised, HungClass::Workload);
    let mut after = metrics();
    after.restore(before.snapshot(1), 2);
    after.hang(&HangReport { edge: HangEdge::Sustained, ..raised.clone() }, HungClass::Workload);
    let hung = |metrics: &Metrics| samples_with(metrics, "hung_tasks{").iter().map(|(_, value)| *value).sum::<f64>();
    assert_eq!((hung(&after), samples(&after)["detector_events_total{kind=\"hung_task\"}"]), (1.0, 1.0));
    after.hang(&HangReport { edge: HangEdge::Exited, ..raised }, HungClass::Workload);
    assert_eq!(hung(&after), 0.0);
}

#[test]
fn one_method_of_a_detector_is_in_use_or_none() {
    let mut metrics = metrics();
    metrics.probe(Detector::Oom, Some(Method::Kprobe));
    let used = |metrics: &Metrics| {
        let probes = samples_with(metrics, "probe_attached");
        assert_eq!(probes.len(), Detector::Oom.methods().len() + 1);
        probes.into_iter().filter(|(_, value)| *value == 1.0).map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(used(&metrics), ["detector_probe_attached{probe=\"oom\",method=\"kprobe\"}"]);
    metrics.probe(Detector::Oom, None);
    assert!(used(&metrics).is_empty());
    metrics.probe_off(Detector::Oom);
    assert_eq!(used(&metrics), ["detector_probe_attached{probe=\"oom\",method=\"none\"}"]);
}

#[test]
fn a_refused_configuration_shows_until_one_is_applied() {
    let metrics = metrics();
    let refused = || samples(&metrics)["detector_config_refused"];
    assert_eq!(refused(), 0.0);
    metrics.instruments().config_reloaded(Reload::Refused);
    metrics.instruments().config_reloaded(Reload::Refused);
    assert_eq!(refused(), 1.0);
    metrics.instruments().config_reloaded(Reload::Applied);
    assert_eq!(refused(), 0.0);
}

#[test]
fn what_another_version_lost_and_this_one_cannot_has_no_series() {
    let saved = r#"{"lost": {"source": {"carrier_pigeon": 2, "oom_mark": 1}, "moon": {"x": 1}}}"#;
    let mut metrics = metrics();
    metrics.restore(serde_json::from_str(saved).unwrap(), 1);
    let lost = samples_with(&metrics, "events_lost_total");
    assert_eq!(lost.len(), LOSSES.len());
    let risen: Vec<_> = lost.into_iter().filter(|(_, count)| *count > 0.0).collect();
    assert_eq!(risen, [("detector_events_lost_total{stage=\"source\",kind=\"oom_mark\"}".to_owned(), 1.0)]);
}

#[test]
fn the_bounds_of_series_are_told() {
    let samples = samples(&Metrics::new(&config(123)));
    let limit = |metric| samples[&format!("detector_series_limit{{metric=\"{metric}\"}}")];
    let containers = ["detector_container_oom_kills_total", "detector_container_oom_kills_by_total"];
    assert_eq!(containers.map(limit), [123.0, 123.0]);
    assert_eq!(limit("detector_hung_tasks"), 4096.0);
}

#[test]
fn names_with_quotes_and_endless_names_stay_within_their_label() {
    let mut metrics = metrics();
    metrics.container(&seen(place("a\"\n\\b", "u1", &"ä".repeat(4000))), 1);
    let page = metrics.encode();
    let line = page.lines().find(|line| line.starts_with("detector_container_oom_kills_total{")).unwrap();
    assert!(line.contains(r#"pod="a\"\n\\b""#), "{line}");
    assert!(line.len() < 400, "{}", line.len());
}

/// A page on which every metric has a sample.
fn full() -> Metrics {
    let mut metrics = metrics();
    metrics.kill(&kill(&place("cart", "u1", "app")), 1);
    metrics.unaccounted(-1);
    for detector in Detector::ALL {
        metrics.probe(detector, Some(detector.methods()[0]));
    }
    let instruments = metrics.instruments();
    instruments.write_ended(WriteKind::PodEvent, &Outcome::Done);
    instruments.write_ended(WriteKind::PodEvent, &Outcome::Gone(String::new()));
    instruments.written_after(Duration::from_millis(3));
    instruments.queue_depth(Queue::Event, 2);
    instruments.held_kills(1);
    instruments.budget_refused(BudgetKind::Pod, 1);
    instruments.config_reloaded(Reload::Refused);
    instruments.state_write_failed(StateFailure::DiskFull);
    instruments.counted(Count::Record("oom_mark"), 5);
    metrics
}

/// Families of a page: name, kind, and names of labels of the samples.
fn families(page: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let mut families: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap();
            current = name.to_owned();
            families.insert(current.clone(), (kind.to_owned(), Vec::new()));
        } else if !line.starts_with('#') {
            let inner = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(inner, _)| inner);
            let names = inner.split("\",").filter_map(|pair| pair.split_once('=')).map(|(name, _)| name.to_owned());
            families.get_mut(&current).unwrap().1 = names.filter(|name| name != "le").collect();
        }
    }
    families
}

#[test]
fn what_is_served_is_what_the_contract_lists() {
    let wanted = METRICS.iter().map(|metric| {
        let labels: Vec<_> = metric.labels.iter().map(|label| label.name.to_owned()).collect();
        (metric.family().to_owned(), (metric.kind.name().to_owned(), labels))
    });
    assert_eq!(families(&full().encode()), wanted.collect());
    assert_eq!(samples(&full())["detector_api_writes_total{kind=\"pod_event\",result=\"done\"}"], 1.0);
    assert_eq!(samples(&full())["detector_api_writes_total{kind=\"pod_event\",result=\"gone\"}"], 1.0);
    assert_eq!(samples(&full())["detector_event_delay_seconds_bucket{le=\"0.005\",stage=\"written\"}"], 1.0);
    assert_eq!(samples(&full())["detector_oom_unaccounted_kills"], -1.0);
}

#[test]
fn the_older_format_describes_counters_under_the_names_of_their_samples() {
    let page = full().exposition().encode(Format::Prometheus);
    assert!(page.contains("# TYPE detector_node_oom_kills_total counter\n"), "{page}");
    assert!(page.contains("# HELP process_cpu_seconds_total Processor time"), "{page}");
    assert!(page.contains("# TYPE detector_hung_tasks gauge\n") && !page.contains("# EOF"), "{page}");
    let counters = METRICS.iter().filter(|metric| metric.kind == Kind::Counter).count();
    assert_eq!(page.lines().filter(|line| line.ends_with(" counter") && line.contains("_total ")).count(), counters);
}

#[test]
fn words_of_the_flow_are_words_of_the_contract() {
    use crate::agent::{
        problem::{Limit, Process},
        sink::{Stage, limit_word, process_word},
    };
    let limits =
        [Limit::Container, Limit::Pod, Limit::Ancestor, Limit::Node, Limit::Nested, Limit::Cgroup, Limit::Unknown];
    assert_eq!(limits.map(limit_word), HitLimit::WORDS);
    let processes = [Process::Init, Process::Child, Process::Unknown].map(process_word);
    let single: Vec<_> = KilledProcess::WORDS.iter().filter(|word| **word != KilledProcess::Group.word()).collect();
    assert_eq!(processes.iter().collect::<Vec<_>>(), single);
    for stage in [Stage::Source, Stage::Decode, Stage::Locate, Stage::Problem] {
        assert!(LOSSES.iter().any(|loss| loss.stage().word() == stage.name()));
    }
    let contract::Values::Words(methods) = contract::PROBE_ATTACHED.labels[1].values else { unreachable!() };
    assert!(
        Detector::ALL.iter().flat_map(|detector| detector.methods()).all(|method| methods.contains(&method.name()))
    );
}
