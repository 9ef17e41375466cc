//! The log of one boot, bounded, so that what decides is in it: the lines before, the head of the fault, the head of the
//! panic, the last lines.
//!
//! ```text
//! before (last 8 KiB) │ fault: first 8 KiB │ between: last 5 KiB │ panic: first 7 KiB │ after: last 3 KiB
//! ```

use std::collections::VecDeque;

use super::{Line, signature::Note};
use crate::contract::incident::MAX_LOG_BYTES;

/// Parts, in the order of the log, and the bytes of each at most.
const PARTS: [usize; 5] = [8 * 1024, 8 * 1024, 5 * 1024, 7 * 1024, 3 * 1024];

/// Bytes for what stands between parts: where lines were left out, and how many.
const MAX_MARKS_BYTES: usize = 1024;

const _: () = assert!(PARTS[0] + PARTS[1] + PARTS[2] + PARTS[3] + PARTS[4] + MAX_MARKS_BYTES <= MAX_LOG_BYTES);

/// Bytes of one line at most.
const MAX_LINE_BYTES: usize = 1024;

const BEFORE: usize = 0;
const FAULT: usize = 1;
const BETWEEN: usize = 2;
const PANIC: usize = 3;
const AFTER: usize = 4;

/// A part of the log.
#[derive(Debug, Default)]
struct Part {
    lines: VecDeque<Box<str>>,
    bytes: usize,
    /// Lines that were there once and had to make room.
    left_out: u64,
}

/// The log of one boot.
#[derive(Debug, Default)]
pub struct Excerpt {
    parts: [Part; PARTS.len()],
    /// The part that lines go to.
    now: usize,
    /// Number that comes next, once every number is sent.
    next: Option<u64>,
    /// Numbers that did not come since.
    lost: u64,
}

impl Excerpt {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next line, and what it is. What is not the kernel's own is left out.
    pub fn push(&mut self, line: &Line, note: Note) {
        match note {
            Note::Foreign => return,
            Note::Signature if self.now < PANIC => self.begin(FAULT, &[FAULT, BETWEEN]),
            Note::Panic if self.now < PANIC => self.now = PANIC,
            Note::Panic => self.begin(PANIC, &[FAULT, BETWEEN, PANIC, AFTER]),
            Note::Signature | Note::Detail | Note::Nothing => {}
        }
        self.count(line);
        let text = shown(line).into_boxed_str();
        // A head that is full stays as it is: what follows goes to the part after it.
        if matches!(self.now, FAULT | PANIC) && self.parts[self.now].bytes + text.len() > PARTS[self.now] {
            self.now += 1;
        }
        self.parts[self.now].push(text, PARTS[self.now]);
    }

    /// Lines that are known to be missing: lost on the way since the panic began, or left out between parts.
    #[must_use]
    pub fn lines_missing(&self) -> u64 {
        let cut: u64 = self.parts.iter().skip(FAULT).map(|part| part.left_out).sum();
        self.lost.saturating_add(cut)
    }

    /// Bytes of memory, roughly: [`MAX_LOG_BYTES`] at most and what lines cost besides.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes + part.lines.len() * size_of::<Box<str>>()).sum()
    }

    /// The text: [`MAX_LOG_BYTES`] at most, each line with its end.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (index, part) in self.parts.iter().enumerate() {
            if index > BEFORE && part.left_out > 0 {
                text.push_str(&format!("[... {} lines left out ...]\n", part.left_out));
            }
            part.lines.iter().for_each(|line| text.push_str(line));
        }
        text
    }

    /// A head begins anew: what was there was another matter, and its lines are but lines before.
    fn begin(&mut self, head: usize, earlier: &[usize]) {
        for index in earlier {
            let part = std::mem::take(&mut self.parts[*index]);
            part.lines.into_iter().for_each(|line| self.parts[BEFORE].push(line, PARTS[BEFORE]));
        }
        self.now = head;
    }

    /// Counts what is lost. Only since the panic: it opens the console for every level (`console_verbose`, `kernel/panic.c`),
    /// while before a number may be missing because its record was not sent.
    fn count(&mut self, line: &Line) {
        let Some(header) = line.header.filter(|_| self.now >= PANIC) else { return };
        if let Some(next) = self.next {
            self.lost = self.lost.saturating_add(header.sequence.saturating_sub(next));
            // A line that is only late was taken for lost.
            self.lost = self.lost.saturating_sub(u64::from(header.sequence < next));
        }
        self.next = self.next.max(Some(header.sequence.saturating_add(1)));
    }
}

impl Part {
    /// Appends a line; the oldest make room.
    fn push(&mut self, line: Box<str>, most: usize) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > most {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.len();
            self.left_out += 1;
        }
    }
}

/// A line as the log shows it, with its end.
fn shown(line: &Line) -> String {
    let text = line.text.get(..line.text.floor_char_boundary(MAX_LINE_BYTES - 64)).unwrap_or_default();
    let torn = if line.torn || text.len() < line.text.len() { " [...]" } else { "" };
    match &line.header {
        Some(header) => {
            let (seconds, micros) = (header.uptime.as_secs(), header.uptime.subsec_micros());
            format!("[{seconds:>5}.{micros:06}] {text}{torn}\n")
        }
        None => format!("{text}{torn}\n"),
    }
}

#[cfg(test)]
mod tests;
