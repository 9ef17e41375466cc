//! The text of a scrape: OpenMetrics as the library writes it, or the older format of Prometheus made of that.

use std::fmt::Write as _;

use prometheus_client::{encoding::text, registry::Registry};

/// All metrics of `registry`: as OpenMetrics 1.0 if `open`, else in the text format of Prometheus 0.0.4.
#[must_use]
pub fn text(registry: &Registry, open: bool) -> String {
    let mut page = String::new();
    // Writing to a `String` cannot fail, and no histogram of ours is without buckets.
    text::encode(&mut page, registry).ok();
    if open { page } else { to_prometheus(&page) }
}

/// The older format: a counter is described under the name that its samples have, and the end is not marked.
fn to_prometheus(page: &str) -> String {
    let mut lines = page.lines().peekable();
    let mut text = String::with_capacity(page.len());
    while let Some(line) = lines.next() {
        let described =
            |line: &str| line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")).is_some();
        let is_counter = described(line) || lines.peek().is_some_and(|next| described(next));
        // Writing to a `String` cannot fail.
        match line.strip_prefix("# ").map(|rest| rest.splitn(3, ' ').collect::<Vec<_>>()).as_deref() {
            Some(["EOF", ..]) => continue,
            Some([what, name, rest]) if is_counter => writeln!(text, "# {what} {name}_total {rest}"),
            _ => writeln!(text, "{line}"),
        }
        .ok();
    }
    text
}
