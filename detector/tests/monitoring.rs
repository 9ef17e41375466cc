//! Alerts and dashboards in `deploy/monitoring` use metrics, labels and values that the programs have.

#![cfg(all(feature = "agent", feature = "controller"))]

use std::{collections::BTreeSet, fs, path::PathBuf};

use detector::contract::metric::{self, Kind, Metric, Values};

/// Labels that a scrape adds, as the chart's ServiceMonitor makes them.
const OF_THE_TARGET: [&str; 3] = ["job", "instance", "node"];

/// Metrics of Prometheus itself and of kube-state-metrics (its `docs/metrics/workload/daemonset-metrics.md`), each with
/// labels of its own.
const FOREIGN: [(&str, &[&str]); 4] = [
    ("up", &[]),
    ("kube_daemonset_status_desired_number_scheduled", &["namespace", "daemonset"]),
    ("kube_daemonset_status_number_available", &["namespace", "daemonset"]),
    ("kube_daemonset_status_updated_number_scheduled", &["namespace", "daemonset"]),
];

/// Begins of the names of metrics, but for those of Prometheus.
const FAMILIES: [&str; 3] = ["detector_", "process_", "kube_"];

/// Words of the query language that could be taken for metrics.
const GROUPING: [&str; 5] = ["by", "without", "on", "ignoring", "group_left"];

/// All metrics of ours.
fn metrics() -> impl Iterator<Item = &'static Metric> {
    let all = [
        metric::METRICS,
        metric::controller::METRICS,
        metric::controller::incidents::METRICS,
        metric::netconsole::METRICS,
    ];
    all.into_iter().flatten().copied()
}

fn monitoring() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring")
}

/// Each expression with where it stands.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let rules = fs::read_to_string(monitoring().join("alerts.yaml")).expect("alerts");
    let mut lines = rules.lines().peekable();
    let mut alert = "";
    while let Some(line) = lines.next() {
        if let Some(name) = line.trim_start().strip_prefix("- alert: ") {
            alert = name;
        }
        let Some(text) = line.strip_prefix("        expr: ") else { continue };
        let mut text = text.trim_start_matches('|').to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with("          ")) {
            text.push_str(more);
        }
        found.push((alert.to_owned(), text));
    }
    for entry in fs::read_dir(monitoring().join("dashboards")).expect("dashboards") {
        let path = entry.expect("a dashboard").path();
        let page = serde_json::from_slice(&fs::read(&path).expect("a dashboard")).expect("JSON");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        collect(&page, &name, &mut found);
    }
    found
}

fn collect(value: &serde_json::Value, place: &str, found: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, inner) in object {
                match inner.as_str().filter(|_| key == "expr" || key == "definition") {
                    Some(text) => found.push((place.to_owned(), text.to_owned())),
                    None => collect(inner, place, found),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|inner| collect(inner, place, found)),
        _ => {}
    }
}

/// A piece of an expression.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Word(&'a str),
    Text(&'a str),
    Sign(char),
}

fn pieces(expression: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || "_:$".contains(letter);
        let length = match first {
            '"' => {
                let length = rest[1..].find('"').expect("a quoted text ends") + 2;
                found.push(Piece::Text(&rest[1..length - 1]));
                length
            }
            letter if is_word(letter) => {
                let length = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
                found.push(Piece::Word(&rest[..length]));
                length
            }
            sign => {
                if !sign.is_whitespace() {
                    found.push(Piece::Sign(sign));
                }
                sign.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    found
}

/// The metric of a name in an expression, and whether it is a histogram's bucket.
fn metric(name: &str) -> Option<(&'static Metric, bool)> {
    let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    metrics().find_map(|metric| {
        let plain = metric.name == name && metric.kind != Kind::Histogram;
        let part = metric.kind == Kind::Histogram && histogram == Some(metric.name);
        (plain || part).then_some((metric, name.ends_with("_bucket")))
    })
}

/// What is wrong with an expression.
fn faults(expression: &str) -> Vec<String> {
    let pieces = pieces(expression);
    let mut wrong = Vec::new();
    let mut labels: BTreeSet<&str> = OF_THE_TARGET.into();
    for (place, piece) in pieces.iter().enumerate() {
        let Piece::Word(name) = piece else { continue };
        let foreign = FOREIGN.iter().find(|(foreign, _)| foreign == name).map(|(_, labels)| *labels);
        if foreign.is_none() && !FAMILIES.iter().any(|begin| name.starts_with(begin)) {
            continue;
        }
        let known = metric(name);
        if known.is_none() && foreign.is_none() {
            wrong.push(format!("there is no metric {name}"));
            continue;
        }
        let foreign = foreign.unwrap_or_default();
        labels.extend(foreign);
        let own = known.map_or(&[][..], |(metric, _)| metric.labels);
        labels.extend(own.iter().map(|label| label.name));
        if known.is_some_and(|(_, bucket)| bucket) {
            labels.insert("le");
        }
        let matchers = pieces[place + 1..].iter().take_while(|piece| **piece != Piece::Sign('}')).collect::<Vec<_>>();
        if matchers.first() != Some(&&Piece::Sign('{')) {
            continue;
        }
        for (at, piece) in matchers.iter().enumerate() {
            let Piece::Word(label) = piece else { continue };
            let Some(described) = own.iter().find(|own| own.name == *label) else {
                if !OF_THE_TARGET.contains(label) && !foreign.contains(label) {
                    wrong.push(format!("{name} has no label {label}"));
                }
                continue;
            };
            // `=`, `!=` and `=~` with words that are joined by `|`.
            let value =
                matchers[at..].iter().find_map(|piece| if let Piece::Text(text) = piece { Some(*text) } else { None });
            let (Values::Words(words), Some(value)) = (described.values, value) else { continue };
            let unknown = value.split('|').filter(|value| !value.starts_with('$') && !words.contains(value));
            wrong.extend(unknown.map(|value| format!("{name}: {label} is never {value}")));
        }
    }
    for (place, piece) in pieces.iter().enumerate() {
        if !matches!(piece, Piece::Word(word) if GROUPING.contains(word)) {
            continue;
        }
        for piece in pieces[place + 1..].iter().take_while(|piece| **piece != Piece::Sign(')')) {
            if let Piece::Word(label) = piece
                && !labels.contains(label)
            {
                wrong.push(format!("no metric of it has the label {label}"));
            }
        }
    }
    wrong
}

#[test]
fn alerts_and_dashboards_use_what_the_programs_have() {
    let expressions = expressions();
    assert!(expressions.len() > 40, "{}", expressions.len());
    let wrong: Vec<_> = expressions
        .iter()
        .flat_map(|(place, text)| faults(text).into_iter().map(move |fault| format!("{place}: {fault} in `{text}`")))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_name_a_label_and_a_word_that_do_not_exist_are_found() {
    assert_eq!(faults("sum by (node) (detector_node_oom_kills_total{limit=~\"node|pod\"}) > 0"), Vec::<String>::new());
    assert_eq!(faults("rate(detector_event_delay_seconds_bucket[5m])"), Vec::<String>::new());
    assert_eq!(faults("detector_moon_total")[0], "there is no metric detector_moon_total");
    assert_eq!(faults("detector_event_delay_seconds")[0], "there is no metric detector_event_delay_seconds");
    assert_eq!(faults("up{moon=\"1\"}")[0], "up has no label moon");
    assert_eq!(faults("kube_moon")[0], "there is no metric kube_moon");
    assert!(faults("sum by (moon) (detector_hung_tasks)")[0].contains("label moon"));
    assert!(faults("detector_hung_tasks{class=\"moon\"}")[0].contains("class is never moon"));
}

#[test]
fn each_metric_of_ours_but_a_few_is_on_a_dashboard() {
    // What no picture is made of: the limit and the number of open files.
    let left_out = ["process_open_fds", "process_max_fds"];
    let all: String = expressions().into_iter().map(|(_, text)| text + "\n").collect();
    for metric in metrics().filter(|metric| !left_out.contains(&metric.name)) {
        assert!(all.contains(metric.name), "{} is on no dashboard", metric.name);
    }
}
