//! Basic format: pieces of text joined into lines at the ends of line.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use super::{
    super::{
        Line, Userdata,
        text::{self, MAX_LINE_BYTES},
    },
    Counts, HOLD, Heard, MAX_LATE,
};
use crate::kernel_line::console::{self, Console};

/// Bytes of one datagram at most (`MAX_PRINT_CHUNK`, `drivers/net/netconsole.c`): a line that ends so goes on in the next.
const MAX_CHUNK: usize = 1000;

/// Datagrams that are remembered for [`HOLD`], so that duplicates are known.
const MAX_REMEMBERED: usize = 64;

/// A line that has not ended, and what is known of those before.
#[derive(Debug, Default)]
pub(super) struct Basic {
    begun: Vec<u8>,
    /// When the last piece of it arrived.
    touched: Duration,
    /// The last piece filled its datagram: more is to come.
    goes_on: bool,
    /// Hash and arrival of the last datagrams that have a time.
    remembered: VecDeque<(u64, Duration)>,
    /// Newest time that was read.
    uptime: Option<Duration>,
}

impl Basic {
    pub(super) fn push(&mut self, bytes: &[u8], at: Duration, counts: &mut Counts, heard: &mut Vec<Heard>) {
        let timed = console::begins_with_time(bytes);
        if timed && self.was_heard(bytes, at) {
            counts.duplicates += 1;
            return;
        }
        if timed {
            // A time stands only at the begin of a line: the one before has no end of line, or lost it.
            self.end(counts, heard);
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let room = MAX_LINE_BYTES - self.begun.len();
            self.begun.extend_from_slice(text.get(..room).unwrap_or(text));
            self.goes_on = !ended && bytes.len() >= MAX_CHUNK;
            if ended || text.len() > room {
                self.give(text.len() > room, counts, heard);
            }
        }
        self.touched = at;
    }

    pub(super) fn due(&self) -> Option<Duration> {
        (!self.begun.is_empty()).then(|| self.touched + HOLD)
    }

    pub(super) fn flush(&mut self, now: Duration, counts: &mut Counts, heard: &mut Vec<Heard>) {
        if self.due().is_some_and(|due| due <= now) {
            self.end(counts, heard);
        }
    }

    pub(super) fn end(&mut self, counts: &mut Counts, heard: &mut Vec<Heard>) {
        if !self.begun.is_empty() {
            self.give(self.goes_on, counts, heard);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.begun.capacity() + self.remembered.capacity() * size_of::<(u64, Duration)>()
    }

    fn was_heard(&mut self, bytes: &[u8], at: Duration) -> bool {
        while self.remembered.front().is_some_and(|(_, before)| *before + HOLD < at)
            || self.remembered.len() >= MAX_REMEMBERED
        {
            self.remembered.pop_front();
        }
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let hash = hasher.finish();
        let heard = self.remembered.iter().any(|(known, _)| *known == hash);
        if !heard {
            self.remembered.push_back((hash, at));
        }
        heard
    }

    fn give(&mut self, torn: bool, counts: &mut Counts, heard: &mut Vec<Heard>) {
        let (text, cut) = text::printable(&self.begun, false);
        self.begun.clear();
        self.begun.shrink_to(MAX_CHUNK);
        self.goes_on = false;
        if text.is_empty() {
            return;
        }
        let Console { uptime, .. } = console::read(&text);
        if let Some(uptime) = uptime {
            if self.uptime.is_some_and(|before| before.saturating_sub(uptime) > MAX_LATE) {
                counts.reboots += 1;
                heard.push(Heard::Reboot);
                self.uptime = None;
            }
            self.uptime = self.uptime.max(Some(uptime));
        }
        let torn = torn || cut;
        counts.lines += 1;
        counts.torn += u64::from(torn);
        heard.push(Heard::Line(Line { header: None, release: None, text, userdata: Userdata::default(), torn }));
    }
}
