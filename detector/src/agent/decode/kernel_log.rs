//! A record of the kernel's log becomes a line, and a line of the OOM killer or the hung-task watch an event.
//!
//! A record is `level,sequence,time,flags[,more];text` and a newline, then lines of ` KEY=VALUE`
//! (`Documentation/ABI/testing/dev-kmsg`). Texts are not an interface: they are matched by their whole shape, from both
//! ends, because names of tasks and cgroups are whatever their owners want. What does not fit is no event.

mod hung;
mod oom;

use std::borrow::Cow;

pub use hung::{TaskBlocked, TaskBlocker};
pub use oom::{LogCause, LoggedMemory, OomHeader, OomKilled};
use thiserror::Error;

use super::event::Comm;

/// Longest name of a task, without the NUL (`TASK_COMM_LEN`, `include/linux/sched.h`).
const COMM_BYTES: usize = detector_common::oom::COMM_LENGTH - 1;

/// Digits that tell the level within the first number of a record; the rest is the facility (syslog(2)).
const LEVEL_BITS: u32 = 3;

/// One line of the kernel's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// Number of the record since boot.
    pub sequence: u64,
    /// Who wrote it: 0 is the kernel. User space cannot write as 0 (`devkmsg_write`, `kernel/printk/printk.c`).
    pub facility: u64,
    /// 0 (emergency) to 7 (debug).
    pub level: u8,
    /// When it was written, microseconds on the kernel's own clock: see [`super::log_clock`].
    pub time_us: u64,
    /// It goes on where another line stopped, because somebody else wrote in between.
    pub fragment: bool,
    /// What it says: any bytes.
    pub text: Cow<'a, [u8]>,
}

/// Why a record of the log cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// There is no `;` or fewer than four fields before it.
    #[error("a record of the kernel's log has no `level,sequence,time,flags;` in front")]
    Prefix,
    /// A field is no number that fits.
    #[error("a record of the kernel's log has no number as its {0}")]
    Number(&'static str),
}

impl LogError {
    /// A word for counters.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Prefix => "log_prefix",
            Self::Number(_) => "log_number",
        }
    }
}

/// What a line tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// The OOM killer begins its report on a decision (`dump_header`). At most 10 decisions in 5 s have one.
    OomInvoked,
    /// The last line of that report: who is to be killed, and for whose limit.
    OomHeader(OomHeader),
    /// A process was killed. Each is told, whatever the rate.
    OomKilled(OomKilled),
    /// A task was to be killed, but had no memory left: no kill.
    OomSkipped {
        /// Its thread id.
        pid: u32,
        /// Why it was to be killed.
        cause: LogCause,
    },
    /// A whole cgroup is killed: the victims follow, the one just killed among them.
    OomGroup {
        /// Its path.
        path: String,
    },
    /// A task hangs.
    TaskBlocked(TaskBlocked),
    /// What the task just told of waits for.
    TaskBlocker(TaskBlocker),
    /// No further hung task will be told (`kernel.hung_task_warnings` is used up; Linux 6.8 and later say so).
    HungTasksSilenced,
}

/// Reads one record.
///
/// # Errors
/// If it has not the shape of one.
pub fn parse(record: &[u8]) -> Result<LogLine<'_>, LogError> {
    let semicolon = record.iter().position(|byte| *byte == b';').ok_or(LogError::Prefix)?;
    let (prefix, text) = (&record[..semicolon], &record[semicolon + 1..]);
    let mut fields = prefix.split(|byte| *byte == b',');
    let mut field = || fields.next().ok_or(LogError::Prefix);
    let (priority, sequence, time, flags) = (field()?, field()?, field()?, field()?);
    let number = |bytes, name| number(bytes).ok_or(LogError::Number(name));
    let priority = number(priority, "level")?;
    let text = text.split(|byte| *byte == b'\n').next().unwrap_or(text);
    Ok(LogLine {
        sequence: number(sequence, "sequence")?,
        facility: priority >> LEVEL_BITS,
        level: (priority & ((1 << LEVEL_BITS) - 1)) as u8,
        time_us: number(time, "time")?,
        fragment: flags.first() == Some(&b'c'),
        text: unescaped(text),
    })
}

impl LogLine<'_> {
    /// What the line tells; `None` if it is of no concern, or not the kernel's own.
    #[must_use]
    pub fn event(&self) -> Option<LogEvent> {
        if self.facility != 0 || self.fragment {
            return None;
        }
        oom::event(&self.text).or_else(|| hung::event(&self.text))
    }
}

/// Bytes that do not print, and backslashes, are written as `\xNN` (`msg_add_ext_text`, `kernel/printk/printk.c`).
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = match rest {
            [b'\\', b'x', high, low, ..] => hexadecimal(*high).zip(hexadecimal(*low)),
            _ => None,
        };
        if let Some((high, low)) = escaped {
            plain.push(high << 4 | low);
            rest = &rest[4..];
        } else {
            plain.push(*first);
            rest = after;
        }
    }
    Cow::Owned(plain)
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// A number of digits alone: no sign, no space.
fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A task's name, unless it is longer than one can be.
fn comm(name: &[u8]) -> Option<Comm> {
    let mut bytes = [0; COMM_BYTES + 1];
    bytes[..COMM_BYTES].get_mut(..name.len())?.copy_from_slice(name);
    Some(Comm(bytes))
}

/// A cgroup's path as it is known elsewhere: absolute, and UTF-8.
fn path(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|path| path.starts_with('/'))
}

/// What stands before and after each place where `key` occurs.
fn cuts<'a>(text: &'a [u8], key: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let places = text.windows(key.len()).enumerate().filter(move |(_, window)| *window == key);
    places.map(move |(at, _)| (&text[..at], &text[at + key.len()..]))
}

/// What stands before and after the first `key`.
fn cut<'a>(text: &'a [u8], key: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    cuts(text, key).next()
}

/// What stands before and after the last `key`.
fn cut_last<'a>(text: &'a [u8], key: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    cuts(text, key).last()
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests;
