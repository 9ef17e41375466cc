//! Records per second through the stages, by criterion (`detector/benches`).

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::table::Row;
use crate::{process, workspace};

/// Fewest records per second.
const LIMIT: f64 = 1_000_000.0;

/// Benchmarks of `detector/benches/stages.rs`, and what each measures.
const BENCHES: [(&str, &str); 4] = [
    ("decode", "decode of an OOM record"),
    ("locate", "locate, place cached"),
    ("decode_and_locate", "decode and locate together"),
    ("cgroup_life", "decode and apply of cgroup life"),
];

/// Runs the benchmarks and reads their medians.
pub(super) fn measure() -> Result<Vec<Row>> {
    let mut command = workspace::cargo();
    command.args(["bench", "--quiet", "--package", "detector", "--bench", "stages"]);
    process::long(&mut command, "run criterion", "3 minutes, a minute of it measuring")?;
    BENCHES.iter().map(|(id, what)| row(id, what)).collect()
}

fn row(id: &str, what: &str) -> Result<Row> {
    let path = workspace::target().join("criterion").join(id).join("new/estimates.json");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let estimates: Value = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    let ns = estimates["median"]["point_estimate"].as_f64();
    let ns = ns.with_context(|| format!("find the median in {}", path.display()))?;
    let rate = 1e9 / ns;
    let figure = format!("{:.1} million records/s ({ns:.0} ns each)", rate / 1e6);
    Ok(Row::limit(what, figure, "1 million/s", rate >= LIMIT))
}
