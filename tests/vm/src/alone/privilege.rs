//! A watcher with few rights attaches, and sees a kill with the names of its container.

use anyhow::Result;

use super::{kill_in_container, kills_of, rights, told_once};
use crate::{run::Rig, watcher::Watcher};

/// Runs a watcher as root, or as `user`, with the capabilities that [`rights`] leaves it.
pub(super) fn watch(rig: &Rig, user: Option<u32>) -> Result<Vec<String>> {
    let name = format!("privilege-{}", user.unwrap_or(0));
    let (mut watcher, started) = Watcher::start(&name, &[], |command| rights::limit(command, user))?;
    println!("GUEST {name} uses {:?}", started.methods);
    let mut wrong = Vec::new();
    for (detector, method) in &started.methods {
        // A kprobe, which wants more than these rights by Debian's default (`kernel.perf_event_paranoid` 3).
        if detector == "panic" {
            continue;
        }
        if method.is_none() {
            wrong.push(format!("{detector} has no method"));
        }
    }
    let victim = kill_in_container(rig)?;
    let lines = watcher.lines_until(|lines| !kills_of(&victim, lines).is_empty())?;
    wrong.extend(told_once(&victim, &lines.all, false));
    watcher.stop()?;
    Ok(wrong)
}
