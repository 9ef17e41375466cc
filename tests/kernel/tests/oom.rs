//! Single kills on this machine's kernel: who, where, by which limit.

use anyhow::{Context, Result, ensure};
use detector_kernel_tests::watcher::Watcher;
use detector_provoke::{Cgroup, Hierarchy, Limits, Provoked, Version, scenario, vmstat_kills};
use serde_json::Value;

const LIMIT: Limits = Limits::mib(30);
const NONE: Limits = Limits { bytes: None, group: false };

/// The one kill that `provoke` causes in cgroup `path`, compared with the victim that was forked for it.
fn only_kill(path: &str, provoke: impl FnOnce() -> Result<Provoked>) -> Result<Value> {
    let watcher = Watcher::start(&[])?;
    let provoked = provoke()?;
    let [victim] = provoked.victims.as_slice() else { anyhow::bail!("{} victims", provoked.victims.len()) };
    let kill = watcher.kills(path, 1)?.pop().context("no kill")?;
    assert_eq!(kill["victim"]["pid"], victim.pid, "{kill}");
    assert_eq!(kill["victim"]["comm"], victim.comm, "{kill}");
    let ended = watcher.stop()?;
    let more = ended.lines.iter().filter(|line| line["type"] == "oom_kill" && line["cgroup"]["path"] == path).count();
    assert_eq!(more, 0, "told twice");
    Ok(kill)
}

#[test]
fn a_kill_is_told_with_cgroup_victim_and_limit() -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let leaf = Cgroup::make(&hierarchy, "detector-test-own", LIMIT)?;
    let before = vmstat_kills()?;
    let kill = only_kill(&leaf.path(), || Ok(scenario::single_child(&leaf)?))?;
    assert_eq!(kill["cgroup"]["id"], leaf.id()?, "{kill}");
    assert_eq!(kill["limit"]["hit"], "cgroup", "{kill}");
    assert_eq!(kill["limit"]["cgroup"]["path"], leaf.path(), "{kill}");
    assert_eq!(kill["limit"]["bytes"], 30 << 20, "{kill}");
    assert_eq!(kill["victim"]["process"], "unknown", "{kill}");
    assert_eq!(leaf.kills()?, 1);
    ensure!(vmstat_kills()? > before, "the kernel's own count did not rise");
    Ok(())
}

#[test]
fn the_limit_of_an_ancestor_is_told_as_such() -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let parent = Cgroup::make(&hierarchy, "detector-test-parent", LIMIT)?;
    let leaf = Cgroup::make(&hierarchy, "detector-test-parent/leaf", NONE)?;
    let kill = only_kill(&leaf.path(), || Ok(scenario::single_child(&leaf)?))?;
    assert_eq!(kill["limit"]["hit"], "ancestor", "{kill}");
    assert_eq!(kill["limit"]["cgroup"]["path"], parent.path(), "{kill}");
    assert_eq!(kill["limit"]["bytes"], 30 << 20, "{kill}");
    Ok(())
}

#[test]
fn a_cgroup_that_is_gone_at_once_keeps_its_name() -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let parent = Cgroup::make(&hierarchy, "detector-test-lasting", LIMIT)?;
    let path = format!("{}/gone", parent.path());
    let kill = only_kill(&path, || Ok(scenario::removed_at_once(&hierarchy, "detector-test-lasting/gone")?))?;
    assert_eq!(kill["limit"]["hit"], "ancestor", "{kill}");
    Ok(())
}

#[test]
fn a_thread_without_its_leader_is_told_as_its_process() -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let leaf = Cgroup::make(&hierarchy, "detector-test-thread", LIMIT)?;
    let kill = only_kill(&leaf.path(), || Ok(scenario::leader_gone(&leaf)?))?;
    assert_ne!(kill["victim"]["tid"], kill["victim"]["pid"], "{kill}");
    assert_eq!(kill["victim"]["leader_comm"], scenario::EATER, "{kill}");
    Ok(())
}

#[test]
fn four_threads_are_one_kill() -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let leaf = Cgroup::make(&hierarchy, "detector-test-threads", LIMIT)?;
    only_kill(&leaf.path(), || Ok(scenario::four_threads(&leaf)?)).map(drop)
}

#[test]
fn a_process_of_a_pid_namespace_is_told_with_both_numbers() -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let leaf = Cgroup::make(&hierarchy, "detector-test-namespace", LIMIT)?;
    let kill = only_kill(&leaf.path(), || Ok(scenario::child_in_namespace(&leaf)?))?;
    assert_eq!(kill["victim"]["namespace_pid"], 2, "{kill}");
    Ok(())
}

/// Runs on cgroup v2 only: v1 has no `memory.oom.group`.
#[test]
fn a_group_kill_is_one_incident_with_all_its_victims() -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    if hierarchy.version == Version::V1 {
        let refused = Cgroup::make(&hierarchy, "detector-test-group", LIMIT.grouped());
        ensure!(refused.is_err(), "cgroup v1 has a group kill after all: this test must be extended");
        return Ok(());
    }
    let leaf = Cgroup::make(&hierarchy, "detector-test-group", LIMIT.grouped())?;
    let watcher = Watcher::start(&[])?;
    scenario::group(&leaf, &[&leaf, &leaf])?;
    let kills = watcher.kills(&leaf.path(), 3)?;
    ensure!(
        kills.iter().all(|kill| kill["group_kill"] == true && kill["incident"] == kills[0]["incident"]),
        "{kills:?}"
    );
    // The kernel counts the chosen victim twice.
    assert_eq!(leaf.kills()?, 4);
    Ok(())
}
