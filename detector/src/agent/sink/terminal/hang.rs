//! A hang as one row of the table, and what `--stack` shows below it.
//!
//! The columns are those of kills: in place of memory stands how long the task has hung, in place of the limit what it
//! waits for.

use super::{KIND, LIMIT, Layout, MEMORY, RED, named, pid_text, place_text};
use crate::agent::{
    decode::event::{Comm, Holder, Lock, LockKind, Task},
    problem::{Frame, Hang, HangState},
    sink::cell::{columns, harmless, keep_end, keep_start, length, pad},
};

/// Cells between the time and the place, each as wide as its column; the colour is that of the fourth.
pub(super) fn cells(hang: &Hang, layout: &Layout) -> ([String; 4], Option<&'static str>) {
    let (kind, colour) = match hang.state {
        HangState::Raised => ("hangs", Some(RED)),
        HangState::Sustained => ("still", None),
        HangState::Ran => ("ran", None),
        HangState::Exited => ("gone", None),
    };
    let hung = length(hang.hung);
    let cells = [
        pad(&process(&hang.event.task, layout.process), layout.process),
        format!("{hung:>MEMORY$}"),
        pad(&waits_for(hang), LIMIT),
        pad(kind, KIND),
    ];
    (cells, colour)
}

/// Where the task lives.
pub(super) fn place(hang: &Hang, layout: &Layout) -> String {
    let place = place_text(hang.place.as_deref(), hang.event.task.cgroup);
    layout.place.map_or_else(|| place.clone(), |room| keep_end(&place, room))
}

/// Lines below the row: the thread if it is not the process itself, the lock with its holder, the stack.
pub(super) fn details(hang: &Hang) -> Vec<String> {
    let task = &hang.event.task;
    let mut lines = Vec::new();
    if task.pid != task.tgid {
        lines.push(format!("thread {}", named(task.comm, task.pid, usize::MAX)));
    }
    if let Some(Some(lock)) = &hang.event.lock {
        lines.push(match &lock.holder {
            Some(holder) => held_by(lock, holder, hang),
            None => format!("waits for a {}", lock_word(lock.kind)),
        });
    }
    lines.extend(hang.stack.iter().map(|frame| harmless(&frame.to_string())));
    lines
}

fn held_by(lock: &Lock, holder: &Holder, hang: &Hang) -> String {
    let likely = if holder.likely { "last seen held" } else { "held" };
    let name = named(holder.task.comm, holder.task.pid, usize::MAX);
    let place = place_text(hang.holder_place.as_deref(), holder.task.cgroup);
    format!("waits for a {}, {likely} by {name} in {place}", lock_word(lock.kind))
}

/// Whose lock, which lock, or in which function: the first of these that is known.
fn waits_for(hang: &Hang) -> String {
    let lock = hang.event.lock.flatten();
    let function = || hang.stack.iter().find_map(function);
    match lock.map(|lock| (lock_word(lock.kind), lock.holder)) {
        Some((word, Some(holder))) => {
            let room = LIMIT.saturating_sub(columns(word) + 1);
            format!("{word} {}", process(&holder.task, room))
        }
        Some((word, None)) => word.to_owned(),
        None => function().map_or_else(|| "?".to_owned(), |name| keep_start(&format!("in {name}"), LIMIT)),
    }
}

/// The function's name without what the compiler hung on it (`.constprop.0`).
fn function(frame: &Frame) -> Option<String> {
    let name = frame.symbol.as_deref()?;
    Some(harmless(name.split('.').next().filter(|name| !name.is_empty()).unwrap_or(name)))
}

/// The process by its leading thread's name, where it is known.
fn process(task: &Task, room: usize) -> String {
    let name: Option<Comm> = task.leader_comm.or(task.comm);
    let text = named(name, task.tgid.or(task.pid), room);
    // A column narrower than the number: the number alone says more than its end.
    if columns(&text) > room { keep_start(&pid_text(task.tgid.or(task.pid)), room) } else { text }
}

fn lock_word(kind: LockKind) -> &'static str {
    match kind {
        LockKind::Mutex => "mutex",
        LockKind::Semaphore => "semaphore",
        LockKind::RwsemReader | LockKind::RwsemWriter => "rwsem",
    }
}
