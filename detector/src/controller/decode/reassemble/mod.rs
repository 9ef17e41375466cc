//! Frames of one source → whole lines in the order in which its kernel wrote them.
//!
//! ```text
//! extended ─▶ seen before? ─▶ held: by sequence, pieces joined ─▶ next in order, or waited for HOLD ─▶ line
//! basic    ─▶ seen before? ─▶ joined at ends of line ───────────────────────────────────────────────▶ line
//! ```
//!
//! A line waits for those before it no longer than [`HOLD`]: that numbers are missing is normal. The kernel numbers all
//! records, and sends only those that its console level lets through, so that a gap is no loss ([`Counts::skipped`]; after a
//! panic began it is one, see [`super::excerpt`]). What is known to be lost is a fragment of a record whose other pieces came:
//! its line is torn.
//!
//! A record is known by its number and its time together. The same pair again is a duplicate: from a second target, or by a
//! second way. Numbers that start again, or a time that goes back, by more than [`MAX_LATE`], are another boot, and so is
//! another boot id in the userdata: [`Heard::Reboot`] tells so before the first line of that boot.
//!
//! The basic format has neither numbers nor pieces that can be told apart: a lost piece of a line goes unseen, and who can
//! write lines into the log can write any line.

mod basic;
mod slot;

use std::{collections::VecDeque, time::Duration};

use self::{
    basic::Basic,
    slot::{Added, Slot},
};
use super::{
    Line,
    frame::{Frame, Record},
};

/// How long a line waits for those before it, and a record for its pieces. Ways through a network differ by less.
pub const HOLD: Duration = Duration::from_millis(30);

/// How late a datagram can be: what seems later is from another boot.
pub const MAX_LATE: Duration = Duration::from_secs(2);

/// Records that are held at most.
pub const MAX_HELD_RECORDS: usize = 64;

/// Bytes that are held at most, bookkeeping included.
pub const MAX_HELD_BYTES: usize = 64 * 1024;

/// Records that are remembered, so that duplicates are known.
pub const MAX_REMEMBERED: usize = 256;

/// What a stream gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The lines that follow are from another boot.
    Reboot,
    /// A line.
    Line(Line),
}

/// What a stream went through. All only ever grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines given.
    pub lines: u64,
    /// Lines of which pieces are missing.
    pub torn: u64,
    /// Datagrams that were there already.
    pub duplicates: u64,
    /// Records that came after those that follow them had been given.
    pub late: u64,
    /// Numbers between two lines that were not heard: lost, or below the console's level.
    pub skipped: u64,
    /// Fragments that contradict what is there of their record.
    pub refused: u64,
    /// Other boots.
    pub reboots: u64,
}

/// The newest record, by its number.
#[derive(Clone, Copy, Debug)]
struct Newest {
    sequence: u64,
    uptime: Duration,
    at: Duration,
}

/// How a record stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Fresh,
    Duplicate,
    OtherBoot,
}

/// Frames of one source become lines. Times are those of [`crate::controller::source::Datagram::at`].
#[derive(Debug, Default)]
pub struct Stream {
    /// By sequence.
    held: VecDeque<Slot>,
    held_bytes: usize,
    /// Number and time of the last lines given.
    remembered: VecDeque<(u64, Duration)>,
    newest: Option<Newest>,
    /// The number that comes next.
    next: Option<u64>,
    boot_id: Option<String>,
    basic: Basic,
    counts: Counts,
}

impl Stream {
    /// A source that was not heard yet. It holds no memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a frame that arrived at `at`; lines that are whole by now are appended to `heard`.
    pub fn push(&mut self, frame: Frame<'_>, at: Duration, heard: &mut Vec<Heard>) {
        self.flush(at, heard);
        match frame {
            Frame::Extended(record) => self.record(&record, at, heard),
            Frame::Basic(bytes) => self.basic.push(bytes, at, &mut self.counts, heard),
        }
    }

    /// When [`Self::flush`] has something to give if nothing else arrives before.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let held = self.held.front().map(|slot| slot.arrived + HOLD);
        [held, self.basic.due()].into_iter().flatten().min()
    }

    /// Gives what has waited long enough.
    pub fn flush(&mut self, now: Duration, heard: &mut Vec<Heard>) {
        self.release(now, heard);
        self.basic.flush(now, &mut self.counts, heard);
    }

    /// Gives all that is held: the source is forgotten, or the program ends.
    pub fn end(&mut self, heard: &mut Vec<Heard>) {
        self.give_held(heard);
        self.basic.end(&mut self.counts, heard);
    }

    /// What it went through.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes of memory that it holds, roughly, room that is not used included; never more than [`MAX_HELD_BYTES`] and as much
    /// again.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let spare = (self.held.capacity() - self.held.len()) * size_of::<Slot>();
        self.held_bytes + spare + self.basic.bytes() + self.remembered.capacity() * size_of::<(u64, Duration)>()
    }

    fn record(&mut self, record: &Record<'_>, at: Duration, heard: &mut Vec<Heard>) {
        let (sequence, uptime) = (record.header.sequence, record.header.uptime);
        let slot = Slot::new(record, at);
        match self.standing(sequence, uptime, slot.boot_id(), at) {
            Standing::Fresh => {}
            Standing::Duplicate => {
                self.counts.duplicates += 1;
                return;
            }
            Standing::OtherBoot => self.reboot(heard),
        }
        if self.newest.is_none_or(|newest| newest.sequence <= sequence) {
            self.newest = Some(Newest { sequence, uptime, at });
        }
        if self.held.is_empty() && self.next == Some(sequence) && slot.is_whole() {
            self.give(slot, heard);
            return;
        }
        self.hold(slot);
        self.release(at, heard);
    }

    fn standing(&self, sequence: u64, uptime: Duration, boot_id: Option<&str>, at: Duration) -> Standing {
        let Some(newest) = self.newest else { return Standing::Fresh };
        let same_boot = match (boot_id, self.boot_id.as_deref()) {
            (Some(told), Some(known)) if told != known => return Standing::OtherBoot,
            (told, known) => told.is_some() && told == known,
        };
        if sequence > newest.sequence {
            let back = newest.uptime.saturating_sub(uptime) > MAX_LATE;
            return if back && !same_boot { Standing::OtherBoot } else { Standing::Fresh };
        }
        if let Some(other) = self.uptime_of(sequence) {
            return match other == uptime {
                // Pieces of one record have the same number and time.
                true if self.held.iter().any(|slot| slot.sequence() == sequence) => Standing::Fresh,
                true => Standing::Duplicate,
                false if same_boot => Standing::Duplicate,
                false => Standing::OtherBoot,
            };
        }
        let late = newest.uptime.saturating_sub(uptime) + at.saturating_sub(newest.at);
        let ahead = uptime.saturating_sub(newest.uptime);
        if late.max(ahead) > MAX_LATE && !same_boot { Standing::OtherBoot } else { Standing::Fresh }
    }

    /// Time of the record with that number, if it is held or remembered.
    fn uptime_of(&self, sequence: u64) -> Option<Duration> {
        let held = self.held.iter().find(|slot| slot.sequence() == sequence).map(Slot::uptime);
        held.or_else(|| self.remembered.iter().rev().find(|(known, _)| *known == sequence).map(|(_, uptime)| *uptime))
    }

    fn reboot(&mut self, heard: &mut Vec<Heard>) {
        self.give_held(heard);
        self.remembered.clear();
        self.newest = None;
        self.next = None;
        self.boot_id = None;
        self.counts.reboots += 1;
        heard.push(Heard::Reboot);
    }

    fn hold(&mut self, slot: Slot) {
        let place = self.held.partition_point(|other| other.sequence() < slot.sequence());
        if let Some(other) = self.held.get_mut(place).filter(|other| other.sequence() == slot.sequence()) {
            let before = other.bytes();
            match other.join(slot) {
                Added::New => {}
                Added::Duplicate => self.counts.duplicates += 1,
                Added::Refused => self.counts.refused += 1,
            }
            self.held_bytes = self.held_bytes - before + other.bytes();
        } else {
            self.held_bytes += slot.bytes();
            self.held.insert(place, slot);
        }
    }

    /// Gives what is next in order, has waited for [`HOLD`], or is too much to be held.
    fn release(&mut self, now: Duration, heard: &mut Vec<Heard>) {
        while let Some(first) = self.held.front() {
            let next = first.is_whole() && self.next.is_some_and(|next| first.sequence() <= next);
            let waited = first.arrived + HOLD <= now;
            let crowded = self.held.len() > MAX_HELD_RECORDS || self.held_bytes > MAX_HELD_BYTES;
            if !(next || waited || crowded) {
                return;
            }
            self.give_first(heard);
        }
    }

    fn give_held(&mut self, heard: &mut Vec<Heard>) {
        while !self.held.is_empty() {
            self.give_first(heard);
        }
    }

    fn give_first(&mut self, heard: &mut Vec<Heard>) {
        let Some(slot) = self.held.pop_front() else { return };
        self.held_bytes -= slot.bytes();
        if self.held.is_empty() {
            // Thousands of kernels may have had a burst, and be silent since. What is whole and comes in order is never held.
            self.held = VecDeque::new();
        }
        self.give(slot, heard);
    }

    fn give(&mut self, slot: Slot, heard: &mut Vec<Heard>) {
        let (sequence, uptime) = (slot.sequence(), slot.uptime());
        let line = slot.line();
        if let Some(boot_id) = &line.userdata.boot_id
            && self.boot_id.as_ref() != Some(boot_id)
        {
            // Only a record in pieces can tell another boot as late as here.
            if self.boot_id.is_some() {
                self.counts.reboots += 1;
                heard.push(Heard::Reboot);
            }
            self.boot_id = Some(boot_id.clone());
        }
        match self.next {
            Some(next) if sequence < next => self.counts.late += 1,
            Some(next) => self.counts.skipped = self.counts.skipped.saturating_add(sequence - next),
            None => {}
        }
        self.next = self.next.max(Some(sequence.saturating_add(1)));
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back((sequence, uptime));
        self.counts.lines += 1;
        self.counts.torn += u64::from(line.torn);
        heard.push(Heard::Line(line));
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
