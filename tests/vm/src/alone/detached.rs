//! A method that fails at run time: somebody detaches its program. The watcher must notice, tell, and go on by another
//! method, and tell each happening once.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use detector_provoke::{HungTask, Victim};
use rustix::mount::{MountFlags, mount};

use super::{kill_in_container, kills_of, link, told_once};
use crate::{
    hang,
    kmsg::Scans,
    line::{HangState, Line, MethodChanged},
    run::Rig,
    watcher::{Lines, Watcher},
};

/// Within this a watcher must have noticed.
const NOTICED: Duration = Duration::from_secs(60);

/// Where the switch of all kprobes is (`Documentation/trace/kprobes.rst`).
const DEBUGFS: &str = "/sys/kernel/debug";
const KPROBES: &str = "/sys/kernel/debug/kprobes/enabled";

/// Kills in a row without a decision from which a watcher must see that its probe is dead.
const UNDECIDED: usize = 3;

/// Kills after the first that must be told.
const LATER: usize = 2;

/// Links that every method of BPF programs has, by hook.
const HOOKS: [&str; 3] = ["mark_victim", "signal_generate", "mm_vmscan_memcg_reclaim_begin"];

/// The links of a method are closed, all at once: it must be replaced once, not once for each.
pub(super) fn kills(rig: &Rig) -> Result<Vec<String>> {
    let (mut watcher, before) = start("oom")?;
    for hook in HOOKS {
        let closed = link::close(watcher.pid(), hook)?;
        ensure!(closed > 0, "it has no link to {hook}, by method {before}");
    }
    let wrong = go_on(rig, &mut watcher, &before, 1)?;
    watcher.stop()?;
    Ok(wrong)
}

/// All kprobes are switched off while a watcher uses one.
pub(super) fn kprobes(rig: &Rig) -> Result<Vec<String>> {
    if !Path::new(KPROBES).exists() {
        mount("debugfs", DEBUGFS, "debugfs", MountFlags::empty(), None).context("mounting debugfs")?;
    }
    let (mut watcher, before) = start("oom")?;
    // A better method does without kprobes; it is taken away first.
    let mut method = before;
    if method == "fentry" {
        link::close(watcher.pid(), "mark_victim")?;
        let victim = kill_in_container(rig)?;
        let (changed, _) = change(&mut watcher, "oom", &[victim])?;
        method = changed.now.unwrap_or_default();
    }
    ensure!(method == "kprobe", "the method below fentry is {method:?} and not kprobe");
    switch_kprobes(false)?;
    // Each kill is told all the same: only the decision is missing.
    let outcome = go_on(rig, &mut watcher, &method, UNDECIDED);
    switch_kprobes(true)?;
    watcher.stop()?;
    outcome
}

/// The link to `sched_process_hang` is closed; then a task hangs.
pub(super) fn hangs(rig: &Rig) -> Result<Vec<String>> {
    let (mut watcher, before) = start("hung_task")?;
    let closed = link::close(watcher.pid(), "sched_process_hang")?;
    ensure!(closed > 0, "it has no link to sched_process_hang, by method {before}");
    let mut hung = hang::case::hang(rig)?;
    let tasks: Vec<HungTask> = hung.hanging.tasks().cloned().collect();
    let scans = Scans::often()?;
    let (changed, lines) = change(&mut watcher, "hung_task", &[])?;
    let mut wrong = judge(&changed, &before);
    let told = |lines: &[Line], states: &[HangState]| tasks.iter().all(|task| count(lines, task.pid, states) > 0);
    let hangs = watcher.lines_until(|lines| told(lines, &[HangState::Raised]))?;
    hung.hanging.thaw()?;
    let over = watcher.lines_until(|lines| told(lines, &[HangState::Ran, HangState::Exited]))?;
    drop(scans);
    hung.hanging.finish()?;
    let lines = [lines.all, hangs.all, over.all].concat();
    for task in &tasks {
        for states in [&[HangState::Raised][..], &[HangState::Ran, HangState::Exited]] {
            let count = count(&lines, task.pid, states);
            if count != 1 {
                wrong.push(format!("task {}: {states:?} {count} times", task.pid));
            }
        }
    }
    watcher.stop()?;
    Ok(wrong)
}

/// A watcher of one detector, by whatever method it finds best.
fn start(detector: &str) -> Result<(Watcher, String)> {
    let arguments = ["--kind".to_owned(), detector.to_owned()];
    let (watcher, started) = Watcher::start(&format!("detached-{detector}"), &arguments, |_| ())?;
    let method = started.methods.get(detector).cloned().flatten();
    Ok((watcher, method.with_context(|| format!("{detector} has no method"))?))
}

/// Kills `unseen` times, and judges that the change is told in time and each kill once: those first ones perhaps without
/// their place, because nothing but the kernel's log may have seen them.
fn go_on(rig: &Rig, watcher: &mut Watcher, before: &str, unseen: usize) -> Result<Vec<String>> {
    let mut victims = Vec::new();
    for _ in 0..unseen {
        victims.push(kill_in_container(rig)?);
    }
    let (changed, mut lines) = change(watcher, "oom", &victims)?;
    let mut wrong = judge(&changed, before);
    for _ in 0..LATER {
        let victim = kill_in_container(rig)?;
        let more = watcher.lines_until(|lines| !kills_of(&victim, lines).is_empty())?;
        lines.all.extend(more.all);
        victims.push(victim);
    }
    let changes = lines.all.iter().filter(|line| matches!(line, Line::MethodChanged(_))).count();
    if changes != 1 {
        wrong.push(format!("the method changed {changes} times"));
    }
    for (number, victim) in victims.iter().enumerate() {
        wrong.extend(told_once(victim, &lines.all, number < unseen));
    }
    Ok(wrong)
}

/// Waits for the change of method, and for the kills of `victims`.
fn change(watcher: &mut Watcher, detector: &str, victims: &[Victim]) -> Result<(MethodChanged, Lines)> {
    let start = Instant::now();
    let changes = |lines: &[Line]| {
        let changed = |line: &Line| match line {
            Line::MethodChanged(changed) if changed.detector == detector => Some(changed.clone()),
            _ => None,
        };
        lines.iter().filter_map(changed).collect::<Vec<_>>()
    };
    let told = |lines: &[Line]| victims.iter().all(|victim| !kills_of(victim, lines).is_empty());
    let lines = watcher.lines_within(NOTICED, |lines| !changes(lines).is_empty() && told(lines))?;
    println!("GUEST {detector} noticed after {} ms: {:?}", start.elapsed().as_millis(), changes(&lines.all));
    let mut changes = changes(&lines.all);
    ensure!(changes.len() == 1, "{} changes of method told within {NOTICED:?}", changes.len());
    Ok((changes.remove(0), lines))
}

fn judge(changed: &MethodChanged, before: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if changed.before != before || changed.now.is_none() || changed.reason.is_empty() {
        wrong.push(format!("from {before} to another, with a reason, not {changed:?}"));
    }
    wrong
}

fn count(lines: &[Line], pid: u32, states: &[HangState]) -> usize {
    let of_task = |line: &&Line| matches!(line, Line::HungTask(hang) if hang.task.tid == Some(pid) && states.contains(&hang.state));
    lines.iter().filter(of_task).count()
}

fn switch_kprobes(on: bool) -> Result<()> {
    fs::write(KPROBES, if on { "1" } else { "0" }).with_context(|| format!("writing to {KPROBES}"))
}
