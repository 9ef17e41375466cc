//! The report of `detector doctor` for people: one page of 80 columns, the verdict first, what is wrong marked with `!`.

mod cost;

use crate::{
    agent::sink::cell::{columns, harmless, human, pad},
    contract::doctor::{self, Report},
    ops::screen::Screen,
};

/// Columns of the page.
const WIDTH: usize = 80;
/// Widths of columns: state of a method, name of a method, name of a setting or capability.
const STATE: usize = 8;
const METHOD: usize = 15;
const NAME: usize = 33;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// Writes the page.
#[derive(Debug)]
pub struct Page {
    colour: bool,
    text: String,
}

impl Page {
    /// An empty page, with colours if `screen` has them.
    #[must_use]
    pub const fn new(screen: Screen) -> Self {
        Self { colour: screen.colour, text: String::new() }
    }

    /// The whole page.
    #[must_use]
    pub fn render(mut self, report: &Report) -> String {
        self.verdict(report);
        self.detectors(report);
        self.missing_fields(report);
        self.rights(report);
        self.kernel(report);
        self.settings(report);
        self.runtimes(report);
        self.last_traces(report);
        self.cost(report);
        self.text
    }

    fn verdict(&mut self, report: &Report) {
        let kernel = &report.kernel;
        let release = kernel.release.as_deref().unwrap_or("of unknown release");
        let works = report.detectors.iter().filter(|detector| detector.method.is_some()).count();
        let all = report.detectors.len();
        let mark = if works < all { ("! ", RED) } else { ("", GREEN) };
        let text = format!("Linux {release}, {}: {works} of {all} detectors work", kernel.architecture);
        self.line(mark, "", &text);
        let side = &report.kernel_side;
        if let (Some(reason), false) = (side.reason, side.state == "loaded") {
            let text = format!("The BPF programs of this binary cannot be used: {}.", in_words(reason));
            self.line(("! ", RED), "", &text);
            self.details(reason, side.message.as_deref(), side.remedy.as_deref(), "  ");
        }
    }

    fn detectors(&mut self, report: &Report) {
        for detector in &report.detectors {
            let (what, colour) = match detector.method {
                Some(method) => (format!("by {method}"), BOLD),
                None => ("no method works, it is blind".to_owned(), RED),
            };
            self.text.push('\n');
            self.line(("", colour), "", &format!("{}: {what}", subject(detector.name)));
            for method in &detector.methods {
                self.method(report, method);
            }
            for warning in &detector.warnings {
                self.line(("! ", RED), "  ", warning);
            }
        }
    }

    fn method(&mut self, report: &Report, method: &doctor::Method) {
        let colour = match method.state {
            "taken" => GREEN,
            "refused" => YELLOW,
            _ => "",
        };
        let reason = method.reason.map(in_words).unwrap_or_default();
        let row = format!("{} {reason}", pad(method.name, METHOD));
        self.line((&pad(method.state, STATE), colour), "  ", row.trim_end());
        let indent = " ".repeat(2 + STATE);
        if let Some(reason) = method.reason {
            // What holds for all of them was said at the top.
            let said = report.kernel_side.message.is_some() && report.kernel_side.message == method.message;
            let (message, remedy) = (method.message.as_deref(), method.remedy.as_deref());
            self.details(reason, message.filter(|_| !said), remedy.filter(|_| !said), &indent);
        }
        for part in &method.without {
            self.line(("", ""), &indent, &format!("without a part that was refused: {part}"));
        }
    }

    /// What the kernel said, where the reason alone does not tell, and what would change it.
    fn details(&mut self, reason: &str, message: Option<&str>, remedy: Option<&str>, indent: &str) {
        let needs_message = matches!(reason, "other" | "verifier" | "not_permitted" | "missing_field" | "no_cgroups");
        if let Some(message) = message.filter(|_| needs_message) {
            self.line(("", ""), indent, message);
        }
        if let Some(remedy) = remedy {
            self.line(("> ", ""), indent, remedy);
        }
    }

    fn missing_fields(&mut self, report: &Report) {
        if report.missing_fields.is_empty() {
            return;
        }
        self.heading("What this kernel does not tell");
        let mut told: Vec<&str> = Vec::new();
        for field in &report.missing_fields {
            if !told.contains(&field.lost) {
                told.push(field.lost);
                self.line(("", ""), "  ", &format!("{} ({})", field.lost, field.message));
            }
        }
    }

    fn rights(&mut self, report: &Report) {
        let process = &report.process;
        self.heading("Rights of this process");
        let namespace = match process.user_namespace {
            "machine" => "in the machine's own user namespace",
            "own" => "in a user namespace of its own, which holds for nothing outside",
            _ => "in an unknown user namespace",
        };
        let mark = if process.user_namespace == "own" { ("! ", RED) } else { ("", "") };
        self.line(mark, "  ", &format!("user {}, {namespace}", process.uid));
        for capability in report.capabilities.iter().filter(|capability| capability.need != "unused") {
            let (state, colour) = match (capability.held, capability.need) {
                (true, _) => ("has", ""),
                (false, "required") => ("lacks !", RED),
                (false, "recommended") => ("lacks !", YELLOW),
                (false, _) => ("lacks", ""),
            };
            let by = capability.held_by.map(|by| format!(" by way of {by}")).unwrap_or_default();
            let row = format!("{}{by}", capability.name);
            self.line((&pad(state, STATE), colour), "  ", &row);
            if !capability.held {
                self.line(("lost: ", ""), &" ".repeat(2 + STATE), capability.lost_without);
            }
        }
    }

    fn kernel(&mut self, report: &Report) {
        let kernel = &report.kernel;
        self.heading("Kernel and mounts");
        match (kernel.btf_bytes, &kernel.btf_problem) {
            (Some(bytes), None) => self.fact("types (BTF)", &human(bytes)),
            (_, problem) => self.wrong("types (BTF)", problem.as_deref().unwrap_or("not there")),
        }
        match kernel.lockdown {
            "confidentiality" => self.wrong("lockdown", "confidentiality: no program may read kernel memory"),
            "unknown" => self.fact("lockdown", "not told: there is no /sys/kernel/security/lockdown"),
            other => self.fact("lockdown", other),
        }
        match &kernel.tracefs {
            Some(place) if kernel.tracefs_readable => self.fact("tracefs", place),
            Some(place) => self.fact("tracefs", &format!("{place}, closed to this process")),
            None => self.fact("tracefs", "not mounted"),
        }
        self.fact("bpffs", kernel.bpffs.as_deref().unwrap_or("not mounted"));
        let cgroups = &report.cgroups;
        match (&cgroups.problem, &cgroups.memory_mount) {
            (Some(problem), _) => self.wrong("memory cgroups", problem),
            (None, mount) => {
                let version = cgroups.version.unwrap_or("unknown");
                let number = cgroups.memory_hierarchy.map_or_else(|| "?".to_owned(), |number| number.to_string());
                let mount = mount.as_deref().unwrap_or("?");
                self.fact("memory cgroups", &format!("version {version}, hierarchy {number} at {mount}"));
            }
        }
        if cgroups.memory_view == Some("part") {
            self.wrong("", "only a part is seen: cgroups become known as they are made");
        }
    }

    fn settings(&mut self, report: &Report) {
        self.heading("Settings");
        for setting in &report.settings {
            let value = setting.value.as_deref().unwrap_or("not there");
            self.line(("", ""), "  ", &format!("{} {value}", pad(setting.name, NAME)));
            if let Some(effect) = &setting.effect {
                self.line(("! ", YELLOW), "    ", effect);
            }
        }
    }

    fn runtimes(&mut self, report: &Report) {
        self.heading("Container runtimes");
        let (absent, there): (Vec<_>, Vec<_>) = report.runtimes.iter().partition(|runtime| runtime.state == "absent");
        for runtime in there {
            let closed = runtime.state == "closed";
            let mark = if closed { ("! ", YELLOW) } else { ("", "") };
            let rest = if closed { ", closed to this process: names stay unknown" } else { "" };
            self.line(mark, "  ", &format!("{} at {}{rest}", runtime_name(runtime), runtime.path));
        }
        if !absent.is_empty() {
            let mut names: Vec<String> = absent.into_iter().map(runtime_name).collect();
            names.dedup();
            self.line(("", ""), "  ", &format!("not found: {}", names.join(", ")));
        }
    }

    fn last_traces(&mut self, report: &Report) {
        let traces = &report.last_traces;
        self.heading("What a panic would leave");
        self.fact("pstore", traces.pstore_backend.as_deref().unwrap_or("no backend"));
        let places = [("records", traces.pstore), ("archive", traces.archive), ("crashes", traces.crashes)];
        for (name, state) in places.into_iter().filter(|(_, state)| *state == "closed") {
            self.wrong(name, &format!("{state} to this process"));
        }
        let archive =
            if traces.archive == "found" { "systemd's, at /var/lib/systemd/pstore" } else { "none of systemd" };
        self.fact("archive", archive);
        self.fact("kdump", if traces.kdump_loaded == Some(true) { "loaded" } else { "not loaded" });
        for warning in &traces.warnings {
            self.line(("! ", YELLOW), "  ", warning);
        }
    }

    fn fact(&mut self, name: &str, text: &str) {
        self.line((&pad(name, METHOD), ""), "  ", text);
    }

    fn wrong(&mut self, name: &str, text: &str) {
        self.line((&pad(name, METHOD), RED), "  ", &format!("! {text}"));
    }

    fn heading(&mut self, text: &str) {
        self.text.push('\n');
        self.line(("", BOLD), "", text);
    }

    /// Writes `text` in lines of at most [`WIDTH`] columns, each after `indent`; the first begins with a coloured mark,
    /// and the others stand below its text. An empty mark colours the text itself.
    fn line(&mut self, (mark, colour): (&str, &str), indent: &str, text: &str) {
        let hang = format!("{indent}{}", " ".repeat(columns(mark)));
        let room = WIDTH.saturating_sub(columns(&hang));
        for (number, line) in wrapped(&harmless(text), room).into_iter().enumerate() {
            let first = number == 0 && !mark.is_empty();
            let start = if first { format!("{indent}{}", self.coloured(mark, colour)) } else { hang.clone() };
            let line = if mark.is_empty() { self.coloured(&line, colour) } else { line };
            self.text.push_str(format!("{start}{line}").trim_end());
            self.text.push('\n');
        }
    }

    fn coloured(&self, text: &str, colour: &str) -> String {
        if self.colour && !colour.is_empty() { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
    }
}

/// Breaks a text between words. A word that is wider than the room stands on a line of its own. At least one line.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for (number, word) in text.split(' ').enumerate() {
        if number > 0 && columns(&line) + 1 + columns(word) > room {
            lines.push(std::mem::take(&mut line));
        } else if number > 0 {
            // Of a run of spaces each is the gap before an empty word, so that columns stay.
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

fn runtime_name(runtime: &doctor::Runtime) -> String {
    runtime.shipped_by.map_or_else(|| runtime.name.to_owned(), |by| format!("{} of {by}", runtime.name))
}

/// What a detector looks for.
fn subject(detector: &str) -> &str {
    match detector {
        "oom" => "OOM kills (oom)",
        "hung_task" => "Hung tasks (hung_task)",
        other => other,
    }
}

/// The words for a reason.
fn in_words(reason: &'static str) -> &'static str {
    match reason {
        "no_kernel_side" => "it was built without them",
        "missing_capability" => "this process lacks a capability",
        "user_namespace" => "its rights hold in a user namespace only",
        "memory_lock_limit" => "the limit of locked memory is too low",
        "lockdown" => "the kernel's lockdown forbids it",
        "trampoline_refused" => "the kernel refuses trampolines",
        "perf_event_paranoid" => "kernel.perf_event_paranoid forbids it",
        "no_btf" => "the kernel does not tell its types",
        "missing_field" => "the kernel lacks a field that is read",
        "no_hook" => "the kernel has no such hook",
        "no_kprobes" => "the kernel has no kprobes",
        "no_tracefs" => "tracefs is not mounted",
        "no_kernel_log" => "there is no /dev/kmsg",
        "no_cgroups" => "there are no memory cgroups",
        "not_permitted" => "forbidden, though the capabilities are there",
        "verifier" => "the kernel's verifier refuses it",
        "other" => "it failed",
        unknown => unknown,
    }
}

#[cfg(test)]
mod tests;
