//! The page that tells operators of all metrics.

use std::fmt::Write;

use super::{LOSSES, Label, METRICS, Metric, Values};

/// The reference of all metrics, as a Markdown page.
#[must_use]
pub fn reference() -> String {
    page(PREFACE, METRICS)
}

/// `preface` and what there is to say of each of `metrics`.
pub(super) fn page(preface: &str, metrics: &[&Metric]) -> String {
    let mut page = preface.to_owned();
    for metric in metrics {
        // Writing to a `String` cannot fail.
        write!(page, "\n## `{}`\n\n", metric.name).ok();
        let unit = metric.unit.map(|unit| format!(", in {unit}")).unwrap_or_default();
        writeln!(page, "{}{unit}. {}", capitalised(metric.kind.name()), metric.help).ok();
        if !metric.labels.is_empty() {
            page.push_str("\n| label | values |\n|---|---|\n");
        }
        for label in metric.labels {
            writeln!(page, "| `{}` | {} |", label.name, values(label)).ok();
        }
        if metric.labels.iter().any(|label| label.values == Values::Losses) {
            page.push_str(&losses());
        }
    }
    page
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn values(label: &Label) -> String {
    let quoted = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match label.values {
        Values::Words(words) => quoted(words),
        Values::Names(text) => text.to_owned(),
        Values::Losses => "those of the stage, below".to_owned(),
    }
}

/// A table of all losses.
fn losses() -> String {
    let mut table = String::from("\n| stage | kind | one is |\n|---|---|---|\n");
    for loss in LOSSES {
        // Writing to a `String` cannot fail.
        writeln!(table, "| `{}` | `{}` | {} |", loss.stage().word(), loss.kind(), loss.meaning()).ok();
    }
    table
}

const PREFACE: &str = "\
# Metrics of `detector agent`

Served at `/metrics` in the text format of OpenMetrics, or in that of Prometheus to who does not ask for the former.
Names and labels are renamed or removed only with a deprecation. Counters of kills and losses go on over a restart of the
agent, also after SIGKILL, where its state is kept; the others begin at zero. Counters without labels that name a
container are there from the start, with zero.

Scrape with `honorLabels: true`: `namespace`, `pod` and `container` are those of the victim, not those of the agent.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_each_metric_with_its_labels() {
        let page = reference();
        for metric in METRICS {
            assert!(page.contains(&format!("## `{}`\n", metric.name)), "{}", metric.name);
        }
        assert!(page.contains("| `process` | `init`, `child`, `group`, `unknown` |"), "{page}");
        assert!(page.contains("Histogram, in seconds. From"), "{page}");
        assert!(page.contains("| `sink` | `event` | a happening"), "{page}");
    }
}
