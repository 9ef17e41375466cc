//! Many kills: one line each, none lost, equal to the kernel's count.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context, Result, ensure};
use detector_kernel_tests::{provoke, watcher::Watcher};
use detector_provoke::{Hierarchy, vmstat_kills};

const KILLS: usize = 1000;
const NAME: &str = "detector-test-storm";

#[test]
fn a_thousand_kills_are_a_thousand_lines() -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let path = hierarchy.path_of(&hierarchy.mount.join(NAME));
    let before = vmstat_kills()?;
    let watcher = Watcher::start(&[])?;
    let words = ["oom", "--cgroup", NAME, "--limit-mib", "8", "--parallel", "4", "--kills", &KILLS.to_string()];
    let status = Command::new(provoke()?).args(words).status().context("starting provoke")?;
    ensure!(status.success(), "provoke ended with {status}");
    let kills = watcher.kills(&path, KILLS)?;
    let processes: BTreeSet<_> = kills.iter().map(|kill| kill["victim"]["pid"].to_string()).collect();
    let counted = vmstat_kills()? - before;
    let ended = watcher.stop()?;
    assert_eq!(processes.len(), KILLS, "a process was told twice, or not at all");
    ensure!(ended.status.success(), "the watcher ended with {}", ended.status);
    let summary = ended.lines.last().context("no last line")?;
    assert_eq!(summary["type"], "summary", "{summary}");
    assert_eq!(summary["lost"], 0, "{summary}");
    assert_eq!(summary["unresolved"], 0, "{summary}");
    assert_eq!(summary["unaccounted"], 0, "{summary}");
    assert_eq!(summary["kernel_kills"], counted, "{summary}");
    assert_eq!(summary["kills"], counted, "{summary}");
    Ok(())
}
