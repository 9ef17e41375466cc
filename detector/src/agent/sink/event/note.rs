//! What an event says to people: which process, how much memory, whose limit, what became of it.

use crate::{
    agent::sink::report::{HangReport, KillReport, Subject},
    contract::event::NOTE_BYTES,
    text::{self, harmless},
};

/// Victims of a group kill that are named; the others are counted.
pub(super) const NAMED: usize = 5;

/// Functions of a stack that are told.
const FRAMES: usize = 4;

/// What one kill did, in a sentence or two.
pub(super) fn kill(report: &KillReport, names_container: bool) -> String {
    let whose = whose(&report.subject, names_container);
    let what = match report.process.as_str() {
        "init" if !whose.is_empty() => format!("the main process {}", process(report)),
        _ => format!("the process {}", process(report)),
    };
    let in_container = report.subject.container_id.is_some();
    let then = match report.process.as_str() {
        _ if !in_container => "",
        "init" => " The container ends with its main process.",
        "child" => " The container itself lives on.",
        _ => "",
    };
    cut(&format!("The kernel's OOM killer killed {what}{whose}, because {}.{then}", cause(report)))
}

/// What a group kill did. `named` are the first of `count` victims, `first` the first of them. They need not be all processes
/// of the container: once the first of a pid namespace is dead, the others die with it before the OOM killer comes to them
/// (`zap_pid_ns_processes`, `kernel/pid_namespace.c`).
pub(super) fn group(first: &KillReport, named: &[String], count: u32, names_container: bool) -> String {
    let whose = whose(&first.subject, names_container);
    let (one, many) = (format!("the process {}", named.concat()), format!("{count} processes"));
    let (what, list) = if count == 1 { (one, String::new()) } else { (many, format!(": {}", named.join(", "))) };
    let others = (count as usize).saturating_sub(named.len());
    let others = if others > 0 { format!(" and {others} more") } else { String::new() };
    let because = cause(first);
    cut(&format!("The kernel's OOM killer killed {what}{whose} at once, because {because}{list}{others}."))
}

/// A task that hangs.
pub(super) fn hang(report: &HangReport, names_container: bool) -> String {
    let name = report.comm.as_deref().or(report.leader_comm.as_deref()).map_or_else(|| "?".to_owned(), harmless);
    let mut ids: Vec<String> = Vec::new();
    ids.extend(report.tid.map(|tid| format!("thread {tid}")));
    if report.pid != report.tid {
        let leader = report.leader_comm.as_deref().map_or_else(String::new, |leader| format!(" {}", harmless(leader)));
        ids.extend(report.pid.map(|pid| format!("process {pid}{leader}")));
    }
    let ids = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(" of ")) };
    let whose = whose(&report.subject, names_container);
    let time = match report.hung_seconds {
        0 => "for too long".to_owned(),
        seconds => format!("for at least {seconds} s"),
    };
    let lock = report.lock.as_deref().map(|lock| {
        let holder = report.holder.as_ref().map_or_else(String::new, |(comm, pid)| {
            let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            format!(" held by {}{pid}", comm.as_deref().map_or_else(|| "?".to_owned(), harmless))
        });
        format!(", waiting for a {}{holder}", lock_name(lock))
    });
    let stack: Vec<String> = report.stack.iter().take(FRAMES).map(|frame| harmless(frame)).collect();
    let stack = if stack.is_empty() { String::new() } else { format!(" Innermost functions: {}.", stack.join(", ")) };
    cut(&format!("The task {name}{ids}{whose} hangs in the kernel {time}{}.{stack}", lock.unwrap_or_default()))
}

/// What could not be told one by one.
pub(super) fn further(kills: u64, hangs: u64, pods: u64) -> String {
    let mut what = Vec::new();
    what.extend((kills > 0).then(|| counted(kills, "further OOM kill", "further OOM kills")));
    what.extend((hangs > 0).then(|| counted(hangs, "further hung task", "further hung tasks")));
    let pods = if pods == 0 { String::new() } else { format!(" in {}", counted(pods, "pod", "pods")) };
    cut(&format!(
        "{}{pods}: too many to be told one by one while events could not be written. Metrics and the agent's log have each.",
        what.join(" and ")
    ))
}

/// `worker (pid 4242, 61.2Mi)`.
pub(super) fn process(report: &KillReport) -> String {
    let name = report.comm.as_deref().map_or_else(|| "?".to_owned(), harmless);
    let mut facts: Vec<String> = Vec::new();
    facts.extend(report.pid.map(|pid| format!("pid {pid}")));
    facts.extend(report.namespace_pid.filter(|pid| report.pid != Some(*pid)).map(|pid| format!("{pid} inside")));
    facts.extend(report.memory_bytes.map(|bytes| format!("using {}", quantity(bytes))));
    if facts.is_empty() { name } else { format!("{name} ({})", facts.join(", ")) }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// ` of container app`, and where the event is not about the pod itself, also of which pod.
fn whose(subject: &Subject, names_container: bool) -> String {
    let container = match (&subject.container, &subject.container_id) {
        (Some(name), _) if names_container => Some(format!("container {}", harmless(name))),
        (Some(name), Some(id)) => Some(format!("container {} ({})", harmless(name), harmless(id))),
        (Some(name), None) => Some(format!("container {}", harmless(name))),
        (None, Some(id)) => Some(format!("container {}", harmless(id))),
        (None, None) => None,
    };
    let pod = subject.pod_uid.as_ref().filter(|_| !names_container).map(|uid| match &subject.pod {
        Some(name) => format!("pod {} ({})", harmless(name), harmless(uid)),
        None => format!("the pod with uid {}", harmless(uid)),
    });
    let place = match (container, pod, &subject.unit, &subject.cgroup) {
        (Some(container), Some(pod), _, _) => format!("{container} in {pod}"),
        (Some(one), None, _, _) | (None, Some(one), _, _) => one,
        (None, None, Some(unit), _) => format!("unit {}", harmless(unit)),
        (None, None, None, Some(path)) if subject.pod_uid.is_none() => format!("cgroup {}", harmless(path)),
        _ => return String::new(),
    };
    format!(" of {place}")
}

/// Whose limit, in words.
fn cause(report: &KillReport) -> String {
    let of = report.limit_bytes.map_or_else(String::new, |bytes| format!(" of {}", quantity(bytes)));
    match report.limit.as_str() {
        "container" => format!("the container reached its own limit{of}"),
        "pod" => format!("the pod reached the pod's limit{of}"),
        "ancestor" => format!("a limit{of} above the pod was reached, which several pods share"),
        "node" => "the node ran out of memory".to_owned(),
        "nested" => format!("a limit{of} set inside of the container was reached"),
        "cgroup" => format!("its cgroup reached its limit{of}"),
        _ => "a memory limit was reached (which one is not known)".to_owned(),
    }
}

fn lock_name(word: &str) -> String {
    match word {
        "rwsem_reader" => "read-write semaphore (to read)".to_owned(),
        "rwsem_writer" => "read-write semaphore (to write)".to_owned(),
        other => harmless(other),
    }
}

/// `bytes` as people write them in a pod's limits: `64Mi`, `1.5Gi`, `61.2Mi`.
fn quantity(bytes: u64) -> String {
    const NAMES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut value = bytes as f64;
    let mut name = 0;
    while value >= 1024.0 && name + 1 < NAMES.len() {
        value /= 1024.0;
        name += 1;
    }
    let tenths = (value * 10.0).round() / 10.0;
    let digits = usize::from(tenths.fract() != 0.0);
    format!("{tenths:.digits$}{}", NAMES[name])
}

/// At most [`NOTE_BYTES`] bytes, cut between characters.
fn cut(note: &str) -> String {
    text::cut(note, NOTE_BYTES)
}
