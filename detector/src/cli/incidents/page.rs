//! Incidents as people read them: the table, and the timeline of one. Pure.

use jiff::Timestamp;

use crate::{
    contract::incident::{Confidence, KernelIncident, StepState},
    ops::screen::Screen,
    text,
};

/// Width of a terminal that tells none.
const USUAL_WIDTH: usize = 80;
/// Room between two columns.
const GAP: &str = "  ";
/// Pods that are named in a timeline.
const PODS: usize = 20;
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

fn painted(screen: Screen, text: &str, colour: &str) -> String {
    if screen.colour { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
}

/// As much of a line as fits.
fn fitted(screen: Screen, line: &str) -> String {
    let line = line.trim_end();
    // A serial console says 0 columns.
    match (screen.width)().map(|width| if width == 0 { USUAL_WIDTH } else { width }) {
        Some(width) if line.chars().count() > width => {
            line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
        }
        _ => line.to_owned(),
    }
}

/// Something in a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Happening {
    pub(super) at: Timestamp,
    /// `evidence`, `step`, `hold`, `event`.
    pub(super) kind: &'static str,
    pub(super) what: String,
    pub(super) text: String,
    /// It stands out.
    pub(super) bad: bool,
}

/// One line for each of `all`, in their order.
pub(super) fn table(all: &[KernelIncident], now: Timestamp, screen: Screen) -> String {
    if all.is_empty() {
        return "no incidents\n".to_owned();
    }
    let heads = ["NAME", "NODE", "CAUSE", "SUSPECT", "PODS", "PHASE", "AGE"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(heads).chain(all.iter().map(|one| row(one, now))).collect();
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut page = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let line = fitted(screen, &cells.join(GAP));
        page.push_str(&if number == 0 { painted(screen, &line, BOLD) } else { line });
        page.push('\n');
    }
    page
}

fn row(incident: &KernelIncident, now: Timestamp) -> [String; 7] {
    let status = incident.status.clone().unwrap_or_default();
    let word = |word: Option<String>| word.map_or_else(|| "-".to_owned(), |word| text::harmless(&word));
    let suspect = status.suspect.filter(|suspect| suspect.confidence > Confidence::Unknown).map(|suspect| suspect.name);
    [
        word(incident.metadata.name.clone()),
        word(Some(incident.spec.node.clone())),
        word(status.cause.map(|cause| format!("{cause:?}"))),
        word(suspect),
        word(status.pod_count.map(|count| count.to_string())),
        word(status.phase.map(|phase| format!("{phase:?}"))),
        age(now.duration_since(incident.spec.time.0).as_secs()),
    ]
}

/// How long ago, in the largest unit of which there are two.
fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// All that is known of one, in the order of time.
pub(super) fn timeline(incident: &KernelIncident, events: &[Happening], now: Timestamp, screen: Screen) -> String {
    let status = incident.status.clone().unwrap_or_default();
    let mut page = head(incident, now, screen);
    let mut all: Vec<Happening> = happenings(incident).chain(events.iter().cloned()).collect();
    all.sort_by(|one, other| (one.at, one.kind).cmp(&(other.at, other.kind)));
    for one in &mut all {
        (one.what, one.text) = (text::harmless(&one.what), text::harmless(&one.text));
    }
    let width = all.iter().map(|one| one.what.chars().count()).max().unwrap_or(0);
    for one in &all {
        let since = relative(one.at.duration_since(incident.spec.time.0).as_millis());
        let line = format!("{since:>9}  {:<8}  {:<width$}  {}", one.kind, one.what, one.text);
        let line = fitted(screen, &line);
        page.push_str(&if one.bad { painted(screen, &line, RED) } else { line });
        page.push('\n');
    }
    if !status.pods.is_empty() {
        page.push_str(&painted(screen, "\npods", BOLD));
        page.push('\n');
        for pod in status.pods.iter().take(PODS) {
            let kind = pod.controller.as_deref().map(|kind| format!(" ({kind})")).unwrap_or_default();
            let left = pod.left.as_deref().map(|why| format!(", left alone: {why}")).unwrap_or_default();
            let line = text::harmless(&format!("  {}/{}{kind}{left}", pod.namespace, pod.name));
            page.push_str(&fitted(screen, &line));
            page.push('\n');
        }
        let count = usize::try_from(status.pod_count.unwrap_or_default()).unwrap_or_default();
        let rest = count.saturating_sub(status.pods.len().min(PODS));
        if rest > 0 {
            page.push_str(&format!("  and {rest} more\n"));
        }
    }
    for log in &status.logs {
        page.push_str(&painted(screen, &format!("\nlast words, heard by {}", text::harmless(&log.id)), BOLD));
        page.push('\n');
        for line in log.text.lines() {
            page.push_str(&fitted(screen, &format!("  {}", text::harmless(line))));
            page.push('\n');
        }
    }
    page
}

fn head(incident: &KernelIncident, now: Timestamp, screen: Screen) -> String {
    let status = incident.status.clone().unwrap_or_default();
    let name = text::harmless(incident.metadata.name.as_deref().unwrap_or_default());
    let mut page = painted(screen, &name, BOLD);
    let (at, ago) = (incident.spec.time.0, age(now.duration_since(incident.spec.time.0).as_secs()));
    page.push_str(&format!("\nnode      {}\ntime      {at:.3} ({ago} ago)\n", text::harmless(&incident.spec.node)));
    let mut line = |what: &str, value: Option<String>| {
        if let Some(value) = value {
            page.push_str(&fitted(screen, &format!("{what:<8}  {}", text::harmless(&value))));
            page.push('\n');
        }
    };
    line("boot", incident.spec.boot_id.clone());
    let sure = status.confidence.map(sureness).unwrap_or_default();
    line("cause", status.cause.map(|cause| format!("{cause:?}{sure}")));
    line("", status.message);
    line(
        "suspect",
        status.suspect.map(|suspect| {
            let role = suspect.role.map(|role| format!(", {role}")).unwrap_or_default();
            format!("{}{}{role}", suspect.name, sureness(suspect.confidence))
        }),
    );
    line("phase", status.phase.map(|phase| format!("{phase:?}")));
    line("pods", status.pod_count.map(|count| count.to_string()));
    page.push('\n');
    page
}

fn sureness(confidence: Confidence) -> String {
    format!(" (confidence: {})", format!("{confidence:?}").to_lowercase())
}

fn happenings(incident: &KernelIncident) -> impl Iterator<Item = Happening> {
    let status = incident.status.clone().unwrap_or_default();
    let evidence = status.evidence.into_iter().map(|entry| {
        let witness = entry.id.split('/').next().unwrap_or_default().to_owned();
        let sure = format!("{:?}", entry.confidence).to_lowercase();
        let text = format!("{} [{witness}, {:?}, {sure}]", entry.message, entry.origin);
        let what = format!("{:?}", entry.kind);
        Happening { at: entry.time.0, kind: "evidence", what, text: text.trim_start().to_owned(), bad: false }
    });
    let steps = status.steps.into_iter().map(|entry| Happening {
        at: entry.ended.as_ref().unwrap_or(&entry.time).0,
        kind: "step",
        what: format!("{:?} {:?}", entry.kind, entry.state),
        text: entry.message,
        bad: entry.state == StepState::Failed,
    });
    let holds = status.holds.into_iter().map(|entry| Happening {
        at: entry.since.0,
        kind: "hold",
        what: format!("{:?} {:?}", entry.step, entry.reason),
        text: entry.message,
        bad: false,
    });
    let closed = status.closed_at.map(|at| Happening {
        at: at.0,
        kind: "end",
        what: "Closed".to_owned(),
        text: String::new(),
        bad: false,
    });
    evidence.chain(steps).chain(holds).chain(closed)
}

/// Time since the first evidence: to the hundredth of a second within a minute.
fn relative(milliseconds: i128) -> String {
    let (sign, size) = if milliseconds < 0 { ('-', -milliseconds) } else { ('+', milliseconds) };
    match size {
        0..60_000 => format!("{sign}{}.{:02}s", size / 1000, size % 1000 / 10),
        60_000..3_600_000 => format!("{sign}{}m{:02}s", size / 60_000, size / 1000 % 60),
        3_600_000..172_800_000 => format!("{sign}{}h{:02}m", size / 3_600_000, size / 60_000 % 60),
        _ => format!("{sign}{}d", size / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PIPE: Screen = Screen { width: || None, colour: false };

    fn incident() -> KernelIncident {
        serde_json::from_value(json!({
            "apiVersion": "detector.dev/v1alpha1", "kind": "KernelIncident", "metadata": {"name": "node-a-0f3c"},
            "spec": {"node": "node-a", "bootId": "0f3c", "time": "2026-11-22T12:00:00.000000Z"},
            "status": {
                "phase": "Dead", "cause": "Oops", "confidence": "High", "message": "the kernel panicked",
                "suspect": {"name": "shop/cart-0/php", "confidence": "High", "role": "current"},
                "podCount": 3,
                "pods": [{"namespace": "shop", "name": "cart-0", "uid": "u", "controller": "StatefulSet"}],
                "evidence": [
                    {"id": "leader/LeaseStale", "kind": "LeaseStale", "origin": "Lease", "confidence": "High",
                        "time": "2026-11-22T12:00:23.000000Z", "message": "not renewed"},
                    {"id": "r1/Panic", "kind": "Panic", "origin": "Netconsole", "confidence": "Medium",
                        "time": "2026-11-22T12:00:00.000000Z", "message": "Fatal\u{1b}[2J exception"},
                ],
                "steps": [{"kind": "Cordon", "state": "Failed", "time": "2026-11-22T12:00:00.100000Z",
                    "ended": "2026-11-22T12:00:00.250000Z", "message": "no"}],
                "holds": [{"step": "DeletePods", "reason": "NoCorroboration", "since": "2026-11-22T12:01:05.000000Z"}],
            },
        }))
        .expect("an incident")
    }

    fn now() -> Timestamp {
        "2026-11-22T12:05:00Z".parse().expect("a time")
    }

    #[test]
    fn a_timeline_is_in_the_order_of_time_and_counts_from_the_first_evidence() {
        let event = Happening {
            at: "2026-11-22T12:00:00.3Z".parse().expect("a time"),
            kind: "event",
            what: "StepFailed".to_owned(),
            text: "no".to_owned(),
            bad: true,
        };
        let page = timeline(&incident(), &[event], now(), PIPE);
        let starts = page.lines().filter_map(|line| line.trim_start().strip_prefix('+')?.split("  ").next());
        assert_eq!(starts.collect::<Vec<_>>(), ["0.00s", "0.25s", "0.30s", "23.00s", "1m05s"], "{page}");
        assert!(page.contains("suspect   shop/cart-0/php (confidence: high), current"), "{page}");
        assert!(page.contains("and 2 more"), "{page}");
    }

    #[test]
    fn foreign_text_cannot_command_the_terminal_and_a_pipe_gets_no_colours() {
        let event = Happening {
            at: now(),
            kind: "event",
            what: "Planted\u{1b}[2J".to_owned(),
            text: "\u{1b}]0;title".to_owned(),
            bad: false,
        };
        assert!(!timeline(&incident(), &[event], now(), PIPE).contains('\x1b'));
        let coloured = timeline(&incident(), &[], now(), Screen { width: || Some(80), colour: true });
        assert!(coloured.contains(RED) && !coloured.contains("[2J\u{1b}"), "{coloured:?}");
    }

    #[test]
    fn a_table_has_one_line_for_each_and_fits_the_screen() {
        let page = table(&[incident()], now(), Screen { width: || Some(40), colour: false });
        assert_eq!(page.lines().count(), 2);
        assert!(page.lines().all(|line| line.chars().count() <= 40), "{page}");
        let wide = table(&[incident()], now(), PIPE);
        let row: Vec<_> = wide.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["node-a-0f3c", "node-a", "Oops", "shop/cart-0/php", "3", "Dead", "5m"]);
        assert_eq!(table(&[], now(), PIPE), "no incidents\n");
    }
}
