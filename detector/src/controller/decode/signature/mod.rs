//! The lines of one boot → what they say together: whether the kernel panicked, of what, and who was there.
//!
//! ```text
//!             line of the table                    Kernel panic - not syncing
//! nothing ───────────────────────▶ signature ───────────────────────────────▶ panic
//!    │                             │  a stronger or much later one replaces it   │
//!    └─────────────────────────────┴── task, symbol, modules: the first after ───┘ nothing replaces the first panic
//! ```
//!
//! Only the kernel's own lines count (facility 0). A program may write what it likes into `/dev/kmsg`: it arrives with
//! another facility. It can also choose words that stand in the kernel's own lines; so marks count at the begin of a line only.
//! The basic format has no facility: what it says is believed here, and weighed as weak by whoever names its author. There the
//! last panic counts and not the first: a program may have spoken of one before, and none speaks after.
//!
//! A line that went before the panic by more than [`MAX_AGE`] has nothing to do with it.

pub mod table;
mod words;

use std::time::Duration;

use self::table::{Place, Row, Weight};
use super::{Findings, Line};
use crate::{
    contract::{incident::Cause, last_words},
    kernel_line::{PANIC, console},
    text,
};

/// What the last line begins with, where the machine is not started again; the panic's text follows.
const END_OF_PANIC: &str = "---[ end Kernel panic - not syncing: ";

/// How old a signature may be to belong to what follows it.
pub const MAX_AGE: Duration = Duration::from_secs(60);

/// Bytes of a panic's text or of a signature at most. The kernel's are 1,023 at most (`vpanic`).
pub const MAX_TEXT_BYTES: usize = 1024;

/// Modules that are named at most.
pub const MAX_MODULES: usize = 16;

/// What a line was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It came in through `/dev/kmsg` and says nothing.
    Foreign,
    /// It adds nothing.
    Nothing,
    /// It adds to the findings.
    Detail,
    /// It is the line of a fault that may go before a panic, and the one that counts by now.
    Signature,
    /// It is the panic.
    Panic,
}

/// The signature that counts by now.
#[derive(Clone, Copy, Debug)]
struct Fault {
    row: &'static Row,
    at: Option<Duration>,
}

/// What the lines of one boot say.
#[derive(Debug, Default)]
pub struct Reading {
    findings: Findings,
    fault: Option<Fault>,
    /// What the panic's text speaks for.
    verdict: Option<&'static Row>,
    /// The panic came without a head: a program may have written it.
    doubtful: bool,
}

impl Reading {
    /// Nothing was heard yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What all lines by now say.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Takes the next line.
    pub fn push(&mut self, line: &Line) -> Note {
        let Some((text, uptime)) = kernels_own(line) else { return Note::Foreign };
        if self.findings.release.is_none() {
            self.findings.release = line.release.as_deref().and_then(words::release);
        }
        if let Some(panic) = text.strip_prefix(PANIC) {
            return self.panic(panic, uptime, line.header.is_none());
        }
        if let Some(panic) = text.strip_prefix(END_OF_PANIC).filter(|_| self.verdict.is_none()) {
            return self.panic(panic, uptime, line.header.is_none());
        }
        if (self.verdict.is_none() || self.doubtful)
            && let Some(row) = table::row(Place::Before, text)
        {
            return self.fault(row, text, uptime);
        }
        if self.detail(text) { Note::Detail } else { Note::Nothing }
    }

    fn panic(&mut self, text: &str, uptime: Option<Duration>, doubtful: bool) -> Note {
        if self.verdict.is_some() && !self.doubtful {
            return Note::Nothing;
        }
        self.doubtful = doubtful;
        if !self.fault.is_some_and(|fault| fault.is_recent(uptime)) {
            self.forget_fault();
        }
        let text = bounded(text.strip_suffix(" ]---").unwrap_or(text).trim());
        self.verdict = table::row(Place::Panic, &text);
        self.findings.panic = Some(text);
        self.conclude();
        Note::Panic
    }

    fn fault(&mut self, row: &'static Row, text: &str, at: Option<Duration>) -> Note {
        let stays = self.fault.is_some_and(|fault| fault.is_recent(at) && fault.row.weight >= row.weight);
        if stays {
            return Note::Nothing;
        }
        self.forget_fault();
        self.fault = Some(Fault { row, at });
        self.findings.signature = Some(bounded(text.trim_end()));
        self.conclude();
        Note::Signature
    }

    /// What was told about an older fault is not about what follows.
    fn forget_fault(&mut self) {
        self.fault = None;
        self.findings.signature = None;
        self.findings.task = None;
        self.findings.symbol = None;
        self.findings.modules.clear();
    }

    /// Takes what a line tells besides. Only with a fault or panic: reports of other kinds have the same lines.
    fn detail(&mut self, text: &str) -> bool {
        if let Some(words) = last_words::read_in_log(text) {
            let first = self.findings.last_words.is_none();
            self.findings.last_words.get_or_insert(words);
            return first;
        }
        if self.fault.is_none() && self.verdict.is_none() {
            return false;
        }
        if let Some(cpu) = words::cpu(text) {
            let first = self.findings.task.is_none() && cpu.task.is_some();
            if first {
                self.findings.task = cpu.task;
                self.findings.taint = cpu.taint;
                self.findings.release = cpu.release.or(self.findings.release.take());
            }
            return first;
        }
        if let Some((symbol, module)) = words::symbol(text) {
            let first = self.findings.symbol.is_none();
            if first {
                self.findings.symbol = Some(symbol);
                self.modules(module);
                self.conclude();
            }
            return first;
        }
        words::modules(text).is_some_and(|modules| self.modules(modules))
    }

    fn modules(&mut self, names: impl IntoIterator<Item = String>) -> bool {
        let before = self.findings.modules.len();
        for name in names {
            if self.findings.modules.len() < MAX_MODULES && !self.findings.modules.contains(&name) {
                self.findings.modules.push(name);
            }
        }
        self.findings.modules.len() > before
    }

    /// What panic and fault speak for together.
    fn conclude(&mut self) {
        let strong = self.fault.filter(|fault| fault.row.weight >= Weight::Strong).map(|fault| fault.row.cause);
        // Before 5.9 a crash by request was made by a NULL pointer.
        let asked = self.findings.symbol.as_deref() == Some("sysrq_handle_crash");
        self.findings.cause = match self.verdict {
            Some(row) if row.weight == Weight::Firm => Some(row.cause),
            Some(_) | None if asked => Some(Cause::SysRq),
            Some(row) => Some(strong.unwrap_or(row.cause)),
            None => self.fault.map(|fault| fault.row.cause),
        };
    }
}

impl Fault {
    /// Whether what happened at `at` can follow from it. Without times it can.
    fn is_recent(&self, at: Option<Duration>) -> bool {
        at.zip(self.at).is_none_or(|(at, mine)| at.saturating_sub(mine) <= MAX_AGE)
    }
}

/// The kernel's text and its time. `None`: it is not the kernel's.
fn kernels_own(line: &Line) -> Option<(&str, Option<Duration>)> {
    if let Some(header) = &line.header {
        return (header.facility == 0).then_some((line.text.as_str(), Some(header.uptime)));
    }
    let console = console::read(&line.text);
    (!console.is_foreign()).then_some((console.text, console.uptime))
}

fn bounded(text: &str) -> String {
    text::start(text, MAX_TEXT_BYTES).to_owned()
}

/// What lines without heads say together: those that a node's agent passes on of the boot before, or of a console. Whether the
/// panic stands before or behind the others does not count.
#[must_use]
pub fn of_texts<'a>(texts: impl IntoIterator<Item = &'a str> + Clone) -> Findings {
    let line = |text: &str| Line {
        header: None,
        release: None,
        text: text.to_owned(),
        userdata: super::Userdata::default(),
        torn: false,
    };
    let mut reading = Reading::new();
    // A signature that stands after its panic counts too.
    let is_panic = |text: &&str| console::read(text).text.starts_with(PANIC);
    let before = texts.clone().into_iter().filter(|text| !is_panic(text));
    for text in before.chain(texts.into_iter().filter(is_panic)) {
        reading.push(&line(text));
    }
    reading.findings
}

#[cfg(test)]
mod tests;
