//! From the kernel to a printed line, beside the peers', on the same kills, in a virtual machine: the peers need kprobes,
//! which not every machine has. `tests/vm/src/bin/latency` is what runs there.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    peer,
    table::{Row, percentile},
};
use crate::{build::Artifacts, process, vm};

/// The kernel that the peers' packages were made for: that of Debian 12.
const SERIES: &str = "6.1";

/// Kills, one after the other.
const KILLS: u32 = 200;

/// Memory of the guest: its files take 220 MB, twice while it unpacks them, and a peer compiles.
const MEMORY_MIB: u32 = 1500;

/// Name of our own tool in what the guest prints.
const OURS: &str = "detector";

/// What the guest told of one tool.
#[derive(Clone, Debug, Default, PartialEq)]
struct Figures {
    start_ms: f64,
    resident_kb: f64,
    /// Nanoseconds from the entry into `oom_kill_process` to the line, one per kill.
    from_decision: Vec<f64>,
    /// Nanoseconds from the mark of the victim to the line.
    from_mark: Vec<f64>,
}

/// Boots the guest and reads what it measured.
pub(super) fn measure(artifacts: &Artifacts) -> Result<Vec<Row>> {
    let peers = peer::files()?;
    let names: Vec<_> = peers.iter().map(|path| path.to_string_lossy()).collect();
    let mut files = vec![("detector", artifacts.detector.clone())];
    files.extend(names.iter().zip(&peers).map(|(name, path)| (name.trim_start_matches('/'), path.clone())));
    let parameters = format!("detector.guest=1 detector.kills={KILLS}");
    process::say(format_args!("boot Linux {SERIES} with {} and the sensor (usually 2 minutes)", peer::versions()?));
    let guest = vm::Guest { series: SERIES, init: "latency", files, memory_mib: MEMORY_MIB, parameters: &parameters };
    let console = vm::run_guest(guest)?;
    let mut figures = parse(&console.text)?;
    rows(&console.package, &mut figures)
}

fn rows(package: &str, figures: &mut BTreeMap<String, Figures>) -> Result<Vec<Row>> {
    let delay = |name: &str, figures: &mut Figures| {
        let (decision, mark) = (&mut figures.from_decision, &mut figures.from_mark);
        let us = |values: &mut [f64], share| percentile(values, share) / 1e3;
        let text = format!(
            "{name} p50 {:.0} µs, p99 {:.0} µs (from the mark {:.0}, {:.0})",
            us(decision, 0.5),
            us(decision, 0.99),
            us(mark, 0.5),
            us(mark, 0.99)
        );
        (text, us(decision, 0.99))
    };
    let mut ours = figures.remove(OURS).context("the guest told nothing of the sensor")?;
    ensure!(!figures.is_empty(), "the guest told nothing of the peers");
    let start = format!("{:.0} ms, {:.1} MB", ours.start_ms, ours.resident_kb * 1024.0 / 1e6);
    let ours_by_kill = ours.from_decision.clone();
    let (text, our_p99) = delay("", &mut ours);
    let mut peers_start = Vec::new();
    let mut peers_delay = Vec::new();
    let mut holds = true;
    for (name, peer) in figures {
        peers_start.push(format!("{name} {:.0} ms, {:.1} MB", peer.start_ms, peer.resident_kb * 1024.0 / 1e6));
        // Kill by kill: that cancels what the host did meanwhile.
        let pairs = ours_by_kill.iter().zip(&peer.from_decision);
        let mut later: Vec<_> = pairs.map(|(ours, theirs)| ours - theirs).collect();
        let later = percentile(&mut later, 0.5) / 1e3;
        let (text, p99) = delay(name, peer);
        peers_delay.push(format!("{text}, ours minus its {later:+.0} µs at the median kill"));
        holds &= our_p99 <= p99;
    }
    let kernel = package.trim_start_matches("linux-image-");
    Ok(vec![
        Row::peers(format!("start and memory, VM, {kernel}"), start, peers_start.join("; "), None),
        Row::peers(
            format!("kernel's decision to printed line, VM, {KILLS} kills"),
            text.trim().to_owned(),
            peers_delay.join("; "),
            Some(holds),
        ),
    ])
}

fn parse(console: &str) -> Result<BTreeMap<String, Figures>> {
    if let Some((_, cause)) = console.split_once("FAILED ") {
        bail!("the guest says: {}", cause.lines().next().unwrap_or_default());
    }
    ensure!(console.contains("DONE "), "the guest ended without its last line");
    let mut all: BTreeMap<String, Figures> = BTreeMap::new();
    for line in console.lines() {
        if let Some((_, rest)) = line.split_once("TOOL ") {
            let figures = all.entry(name(rest)).or_default();
            figures.start_ms = number(rest, "start_ms=")?;
            figures.resident_kb = number(rest, "rss_kb=")?;
        } else if let Some((_, rest)) = line.split_once("SAMPLE ") {
            let figures = all.entry(name(rest)).or_default();
            figures.from_decision.push(number(rest, "decision_ns=")?);
            figures.from_mark.push(number(rest, "mark_ns=")?);
        }
    }
    Ok(all)
}

fn name(rest: &str) -> String {
    rest.split_whitespace().next().unwrap_or_default().to_owned()
}

fn number(rest: &str, key: &str) -> Result<f64> {
    let word = rest.split_whitespace().find_map(|word| word.strip_prefix(key));
    word.and_then(|word| word.parse().ok()).with_context(|| format!("find {key} in the guest's line {rest:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "TOOL detector start_ms=400 rss_kb=4400\r\nTOOL oomkill start_ms=300 rss_kb=9000\r\n\
        SAMPLE detector decision_ns=900000 mark_ns=100000\r\nSAMPLE oomkill decision_ns=800000 mark_ns=-5\r\nDONE kills=1\r\n";

    #[test]
    fn our_figures_stand_beside_those_of_the_peers() {
        let mut figures = parse(CONSOLE).expect("parsed");
        let rows = rows("linux-image-6.1.0-cloud", &mut figures).expect("rows");
        let mut table = super::super::table::Table::new();
        rows.into_iter().for_each(|row| table.add(row));
        let text = table.render();
        assert!(text.contains("p50 900 µs, p99 900 µs (from the mark 100, 100)"), "{text}");
        assert!(text.contains("oomkill p50 800 µs") && text.contains("DOES NOT HOLD"), "{text}");
    }

    #[test]
    fn a_guest_that_failed_is_an_error_with_its_reason() {
        let refused = parse("FAILED starting bpftrace: it ended\r\n").expect_err("failed").to_string();
        assert!(refused.contains("starting bpftrace"), "{refused}");
        assert!(parse("TOOL detector start_ms=1 rss_kb=1\n").is_err());
    }
}
