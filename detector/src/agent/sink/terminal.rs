//! A live table for people: a header, one row a kill or state of a hang; banner, notices and the closing line beside it.
//!
//! The table goes to one writer (standard output), all else to another (standard error), so that a redirected table
//! holds rows only.

mod hang;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use crate::{
    agent::{
        decode::event::{CgroupKey, Comm},
        locate::{Container, Owner, Place, Pod},
        options::Detector,
        problem::{Hang, HangState, OomKill, Process, Transition, transition::Domain},
        sink::{
            MethodChange, Notice, Sink, Started, Status, Summary, Units,
            cell::{columns, harmless, human, keep_end, keep_start, pad},
            limit_word,
        },
    },
    clock::WallClock,
    ops::screen::Screen,
};

/// Narrowest table. A narrower terminal wraps its lines.
const LEAST_WIDTH: usize = 80;
/// Widths of the columns that never vary: `23:59:59`, `999 MiB`, `container 999 MiB`, `child`.
const TIME: usize = 8;
const MEMORY: usize = 7;
const LIMIT: usize = 17;
const KIND: usize = 5;
const FIXED: usize = TIME + MEMORY + LIMIT + KIND;
/// Gaps between the six columns.
const GAPS: usize = 5;
/// From this width on, gaps are two columns wide; below, places need the room more.
const ROOMY: usize = 100;
/// Narrowest and widest column of processes: the second holds the mark of a group, 15 characters and a pid of 7 digits.
const PROCESS: (usize, usize) = (16, 26);
/// Digits of a container's id that people use.
const SHORT_ID: usize = 12;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// Writes the table.
#[derive(Debug)]
pub struct Terminal<W, E> {
    table: W,
    beside: E,
    units: Units,
    screen: Screen,
    layout: Layout,
    /// Incident of the last row, if that was a kill.
    incident: Option<u64>,
    /// Whether the stacks of tasks that hang are shown.
    stacks: bool,
}

impl<W: Write, E: Write> Terminal<W, E> {
    /// Writes rows to `table`, which should buffer, and all else to `beside`.
    pub fn new(table: W, beside: E, screen: Screen, units: Units) -> Self {
        let layout = Layout::for_width((screen.width)());
        Self { table, beside, units, screen, layout, incident: None, stacks: false }
    }

    /// With `stacks`, the kernel stack of a task that begins to hang is shown below its row.
    #[must_use]
    pub fn with_stacks(self, stacks: bool) -> Self {
        Self { stacks, ..self }
    }

    fn row(&mut self, kill: &OomKill) -> io::Result<()> {
        let time = self.units.wall.time(kill.mark.stamp.boot_ns).strftime("%H:%M:%S").to_string();
        let process = process_cell(kill, self.mark(kill), self.layout.process);
        let memory = kill.mark.victim.memory.as_ref().map_or_else(
            || "?".to_owned(),
            |rss| human(self.units.bytes(rss.anon.saturating_add(rss.shmem).saturating_add(rss.file))),
        );
        let (kind, colour) = match kill.process {
            Process::Init => ("init", Some(RED)),
            Process::Child => ("child", None),
            Process::Unknown => ("-", None),
        };
        let place = place_text(kill.place.as_deref(), kill.mark.victim.cgroup);
        let place = self.layout.place.map_or_else(|| place.clone(), |room| keep_end(&place, room));
        let line = [
            pad(&time, TIME),
            pad(&process, self.layout.process),
            format!("{memory:>MEMORY$}"),
            pad(&limit_cell(kill, &self.units), LIMIT),
            self.coloured(&pad(kind, KIND), colour),
            place,
        ];
        self.incident = Some(kill.incident.number);
        self.table.write_all(format!("{}\n", line.join(self.layout.gap).trim_end()).as_bytes())
    }

    fn hang(&mut self, hang: &Hang) -> io::Result<()> {
        let time = self.units.wall.time(hang.boot_ns).strftime("%H:%M:%S").to_string();
        let ([process, length, waits_for, kind], colour) = hang::cells(hang, &self.layout);
        let kind = self.coloured(&kind, colour);
        let line = [pad(&time, TIME), process, length, waits_for, kind, hang::place(hang, &self.layout)];
        self.incident = None;
        let mut rows = format!("{}\n", line.join(self.layout.gap).trim_end());
        if self.stacks && hang.state == HangState::Raised {
            let indent = " ".repeat(TIME + self.layout.gap.len());
            for detail in hang::details(hang) {
                let detail = self.layout.beside_time.map_or_else(|| detail.clone(), |room| keep_start(&detail, room));
                rows.extend([&indent, &detail, "\n"]);
            }
        }
        self.table.write_all(rows.as_bytes())
    }

    /// Ties the victims of one incident together, where there is or may be more than one.
    fn mark(&self, kill: &OomKill) -> &'static str {
        if kill.group_kill != Some(true) && kill.incident.victim == 1 {
            ""
        } else if self.incident == Some(kill.incident.number) {
            "├ "
        } else {
            "┌ "
        }
    }

    fn coloured(&self, text: &str, colour: Option<&str>) -> String {
        match colour.filter(|_| self.screen.colour) {
            Some(colour) => format!("{colour}{text}{PLAIN}"),
            None => text.to_owned(),
        }
    }

    /// Writes a line beside the table, after all rows so far.
    fn say(&mut self, text: &str) -> io::Result<()> {
        self.table.flush()?;
        self.beside.write_all(format!("{text}\n").as_bytes())?;
        self.beside.flush()
    }
}

impl<W: Write, E: Write> Sink for Terminal<W, E> {
    fn started(&mut self, started: &Started) -> io::Result<()> {
        self.say(&format!(
            "watching Linux {}: {}; {} cgroups known; Ctrl-C ends",
            harmless(&started.kernel),
            methods(started),
            started.cgroups
        ))?;
        let header = [
            pad("TIME UTC", TIME),
            pad("PROCESS", self.layout.process),
            format!("{:>MEMORY$}", "MEMORY"),
            pad("LIMIT", LIMIT),
            pad("KIND", KIND),
            "WHERE".to_owned(),
        ];
        let header = self.coloured(&header.join(self.layout.gap), Some(BOLD));
        self.table.write_all(format!("{header}\n").as_bytes())
    }

    fn transition(&mut self, transition: &Transition) -> io::Result<()> {
        match transition {
            Transition::OomKilled(kill) => self.row(kill),
            Transition::HungTask(hang) => self.hang(hang),
        }
    }

    fn method_changed(&mut self, change: &MethodChange) -> io::Result<()> {
        let MethodChange { detector, before, reason, .. } = change;
        let now = match change.now {
            Some(method) => format!("goes on by {method}"),
            None => "has no method left and is blind".to_owned(),
        };
        let text = format!("method: {detector} {now} instead of {before}: {}", harmless(reason));
        let text = self.coloured(&text, Some(YELLOW));
        self.say(&text)
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        let Notice { stage, kind, count, message, .. } = notice;
        let times = if *count == 1 { String::new() } else { format!(", {count} times") };
        let text = format!("notice: {} {kind}{times}: {}", stage.name(), harmless(message));
        let text = self.coloured(&text, Some(YELLOW));
        self.say(&text)
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        self.say(&closing_line(summary))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.layout = Layout::for_width((self.screen.width)());
        self.table.flush()
    }

    fn set_wall_clock(&mut self, wall: WallClock) {
        self.units.wall = wall;
    }
}

/// Columns of the cells that vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    gap: &'static str,
    process: usize,
    /// `None` is no limit.
    place: Option<usize>,
    /// All columns but the first.
    beside_time: Option<usize>,
}

impl Layout {
    fn for_width(width: Option<usize>) -> Self {
        let Some(width) = width else { return Self { gap: "  ", process: PROCESS.1, place: None, beside_time: None } };
        let width = width.max(LEAST_WIDTH);
        let gap = if width < ROOMY { " " } else { "  " };
        let spare = width - FIXED - GAPS * gap.len();
        // Names are short, places are long.
        let process = (spare / 3).clamp(PROCESS.0, PROCESS.1);
        Self { gap, process, place: Some(spare - process), beside_time: Some(width - TIME - gap.len()) }
    }
}

/// `name[pid]`, the pid always whole. The name is the process's, that is its leading thread's, where it is known.
fn process_cell(kill: &OomKill, mark: &str, room: usize) -> String {
    let victim = &kill.mark.victim;
    let name = victim.leader_comm.or(victim.comm);
    format!("{mark}{}", named(name, victim.tgid.or(victim.pid), room.saturating_sub(columns(mark))))
}

/// `name[pid]`, the pid always whole.
fn named(name: Option<Comm>, pid: Option<u32>, room: usize) -> String {
    let name = name.map_or_else(|| "?".to_owned(), |comm| comm.to_text());
    let pid = pid_text(pid);
    format!("{}{pid}", keep_start(&harmless(&name), room.saturating_sub(columns(&pid))))
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!("[{pid}]"))
}

/// Which limit, and its size where there is one.
fn limit_cell(kill: &OomKill, units: &Units) -> String {
    let word = limit_word(kill.limit);
    let pages = match &kill.domain {
        Domain::Cgroup { limit_pages, .. } => *limit_pages,
        Domain::Node => kill.mark.decision.as_ref().map(|decision| decision.total_pages),
        Domain::Unknown => None,
    };
    pages.map_or_else(|| word.to_owned(), |pages| format!("{word} {}", human(units.bytes(pages))))
}

/// Where a task lives, in the words of whoever owns the place.
fn place_text(place: Option<&Place>, cgroup: Option<CgroupKey>) -> String {
    let text = match place {
        Some(place) => match &place.owner {
            Owner::Container(container) => container_text(container),
            Owner::Pod(pod) => pod_text(pod),
            Owner::Unit(unit) => unit.clone(),
            Owner::Cgroup => place.path.to_string(),
        },
        None => match cgroup {
            Some(key) => format!("unresolved cgroup {}", key.id),
            None => "?".to_owned(),
        },
    };
    harmless(&text)
}

fn container_text(container: &Container) -> String {
    let id = container.id.get(..SHORT_ID).unwrap_or(&container.id);
    let name = container.name.as_deref().unwrap_or(id);
    container.pod.as_ref().map_or_else(|| format!("container {name}"), |pod| format!("{}/{name}", pod_text(pod)))
}

fn pod_text(pod: &Pod) -> String {
    match (&pod.namespace, &pod.name) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (None, Some(name)) => name.clone(),
        (_, None) => format!("pod {}", pod.uid),
    }
}

/// What was seen and what was not, in one line.
fn closing_line(summary: &Summary) -> String {
    let Summary { kills, incidents, already_dying, duplicates, unresolved, lost, .. } = summary;
    let mut parts = vec![
        format!("seen {} in {}", counted(*kills, "kill"), counted(*incidents, "incident")),
        format!("{already_dying} already dying"),
        counted(*duplicates, "duplicate"),
        format!("{} ({} open)", counted(summary.hangs, "hang"), summary.hangs_open),
        format!("unresolved {unresolved}"),
    ];
    let by_stage = [("ring", &summary.lost_ring), ("decode", &summary.lost_decode)];
    let details: Vec<String> = by_stage.into_iter().filter_map(|(stage, counts)| losses(stage, counts)).collect();
    let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join("; ")) };
    parts.push(format!("lost {lost}{details}"));
    let kernel = match (summary.kernel_kills, summary.unaccounted) {
        (Some(count), Some(difference)) => {
            format!("the kernel counted {count}, difference {difference}{}", differences(&summary.differences))
        }
        (Some(count), None) => format!("the kernel counted {count}"),
        (None, _) => "the kernel's count is unknown".to_owned(),
    };
    format!("{}; {kernel}", parts.join(", "))
}

fn differences(by_cgroup: &BTreeMap<String, i64>) -> String {
    let told: Vec<String> = by_cgroup.iter().map(|(path, count)| format!("{} {count}", harmless(path))).collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

fn losses(stage: &str, counts: &BTreeMap<&'static str, u64>) -> Option<String> {
    let told: Vec<String> =
        counts.iter().filter(|(_, count)| **count > 0).map(|(what, count)| format!("{what} {count}")).collect();
    (!told.is_empty()).then(|| format!("{stage}: {}", told.join(", ")))
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// How each detector runs, such as `OOM kills by fentry, hung tasks by kmsg`.
fn methods(started: &Started) -> String {
    let one = |status: &Status| {
        let what = match status.detector {
            Detector::Oom => "OOM kills",
            Detector::HungTask => "hung tasks",
            Detector::Panic => "last words",
        };
        match status.method {
            Some(method) => format!("{what} by {method}"),
            None => format!("{what} not at all"),
        }
    };
    started.detectors.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
