//! The agent's own log, on standard error: one line an event, JSON or text.
//!
//! What a line tells may come from the kernel or from a pod, so that no text can break a line or move a cursor. No reader
//! can hold the program: what standard error has no room for is dropped and counted. And no place in the program can
//! flood it: each may write a burst and then a line every few seconds; what is left out is counted, and told with the
//! next line of that place.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, Write},
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use thiserror::Error;
use tracing::{Level, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::{
    Layer as _, Registry,
    filter::{LevelFilter, Targets},
    fmt::{MakeWriter, layer},
    layer::SubscriberExt as _,
    reload,
};

use super::lines::{MAX_LINE, send};
use crate::{
    clock,
    config::{Log, LogFormat, LogLevel},
    text,
};

/// Bytes that are kept of a longer one: some less, for what stands around them.
const CUT: usize = MAX_LINE - 128;

/// Lines that one place in the program may write at once.
const BURST: u32 = 20;

/// One more line of a place is allowed after each such time.
const EVERY: Duration = Duration::from_secs(3);

/// Places that are told apart: each is written in the program's text, so that there are never so many.
const MAX_PLACES: usize = 4096;

/// The log of this process.
#[derive(Debug)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
    counts: Arc<Counts>,
}

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// It was opened before.
    #[error("opening the log, which a process can do once")]
    Twice(#[source] tracing::subscriber::SetGlobalDefaultError),
    /// It is closed.
    #[error("changing the level of the log")]
    Closed(#[source] reload::Error),
}

/// Lines that were not written.
#[derive(Debug, Default)]
pub struct Counts {
    dropped: AtomicU64,
    left_out: AtomicU64,
}

/// Opens the log of this process.
///
/// # Errors
///
/// If it is open already.
pub fn open(log: &Log) -> Result<LogHandle, LogError> {
    let (subscriber, handle) = build(log, rustix::stdio::stderr());
    tracing::subscriber::set_global_default(subscriber).map_err(LogError::Twice)?;
    Ok(handle)
}

impl LogHandle {
    /// Changes what is logged from now on.
    ///
    /// # Errors
    ///
    /// If the log is closed.
    pub fn set_level(&self, level: LogLevel) -> Result<(), LogError> {
        self.filter.reload(targets(level)).map_err(LogError::Closed)
    }

    /// What it did not write.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

#[cfg(test)]
impl LogHandle {
    /// Of a log that nobody writes to.
    pub(crate) fn of_nobody() -> Self {
        build(&Log::default(), rustix::stdio::stderr()).1
    }
}

impl Counts {
    /// Lines that standard error had no room for.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Lines that were left out because their place in the program wrote too many.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

fn build(log: &Log, target: BorrowedFd<'static>) -> (Box<dyn Subscriber + Send + Sync>, LogHandle) {
    let counts = Arc::new(Counts::default());
    let lines = Lines { target, format: log.format, places: Mutex::default(), counts: Arc::clone(&counts) };
    let (filter, handle) = reload::Layer::new(targets(log.level));
    // What the writer cannot take is counted there, and has no place to be told.
    let lines = layer().with_writer(lines).with_ansi(false).log_internal_errors(false);
    let subscriber: Box<dyn Subscriber + Send + Sync> =
        match log.format {
            LogFormat::Json => Box::new(Registry::default().with(
                lines.json().flatten_event(true).with_current_span(false).with_span_list(false).with_filter(filter),
            )),
            LogFormat::Text => Box::new(Registry::default().with(lines.with_filter(filter))),
        };
    (subscriber, LogHandle { filter: handle, counts })
}

/// Our own words at `level`; those of libraries from `warn` on, for theirs are about each connection and request.
fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    Targets::new().with_target("detector", level).with_default(level.min(LevelFilter::WARN))
}

/// Writes whole lines, within limits.
struct Lines {
    target: BorrowedFd<'static>,
    format: LogFormat,
    places: Mutex<HashMap<Identifier, Place>>,
    counts: Arc<Counts>,
}

/// What one place in the program may still write.
struct Place {
    left: u32,
    /// When `left` was last added to.
    since: Instant,
    left_out: u64,
}

impl Place {
    /// Whether it may write now, and how many lines before this one were left out.
    fn ask(&mut self, now: Instant) -> Option<u64> {
        let added = now.saturating_duration_since(self.since).as_secs() / EVERY.as_secs();
        if added > 0 {
            let more = u32::try_from(added).unwrap_or(BURST);
            self.left = self.left.saturating_add(more).min(BURST);
            self.since = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.left_out))
            }
            None => {
                self.left_out += 1;
                None
            }
        }
    }
}

impl Lines {
    fn ask(&self, place: Identifier, now: Instant) -> Option<u64> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MAX_PLACES && !places.contains_key(&place) {
            return None;
        }
        let new = || Place { left: BURST, since: now, left_out: 0 };
        places.entry(place).or_insert_with(new).ask(now)
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, allowed: true, note: None }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        let left_out = self.ask(meta.callsite(), clock::monotonic_now());
        let note = left_out.filter(|count| *count > 0).map(|count| (*meta.level(), meta.target().to_owned(), count));
        Line { lines: self, allowed: left_out.is_some(), note }
    }
}

/// Takes the one line of an event.
struct Line<'a> {
    lines: &'a Lines,
    allowed: bool,
    /// What is told before it: lines of this level and target that were left out.
    note: Option<(Level, String, u64)>,
}

impl Line<'_> {
    fn send(&self, line: &str) {
        let mut line = on_one_line(line);
        if line.len() > MAX_LINE {
            line = on_one_line(&match self.lines.format {
                LogFormat::Text => start_of(&line, CUT),
                // An object that is cut is none. Its quotes are escaped, and its escapes once more.
                LogFormat::Json => {
                    let (message, start) = ("a line that is too long", start_of(&line, CUT / 2));
                    serde_json::json!({ "level": "WARN", "message": message, "start": start }).to_string()
                }
            });
        }
        if !send(self.lines.target, line.as_bytes()) {
            self.lines.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send_note(&self, level: Level, target: &str, count: u64) {
        match self.lines.format {
            LogFormat::Json => {
                let message = "lines like the next were left out";
                let note = serde_json::json!({
                    "level": level.as_str(), "message": message, "count": count, "target": target,
                });
                self.send(&note.to_string());
            }
            LogFormat::Text => self.send(&format!("{level:>5} {target}: {count} lines like the next were left out")),
        }
    }
}

impl Write for Line<'_> {
    /// The formatter hands a whole line over at once.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.allowed {
            self.lines.counts.left_out.fetch_add(1, Ordering::Relaxed);
            return Ok(bytes.len());
        }
        if let Some((level, target, count)) = self.note.take() {
            self.send_note(level, &target, count);
        }
        self.send(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `text` without its end as one line. The escapes are those of JSON, so that an object stays one.
fn on_one_line(text: &str) -> String {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let mut line = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        match character {
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            // U+2028 and U+2029 end lines for some readers, others turn the direction of writing.
            other if text::disturbs(other) => {
                // Writing to a `String` cannot fail.
                write!(line, "\\u{:04x}", u32::from(other)).ok();
            }
            other => line.push(other),
        }
    }
    line.push('\n');
    line
}

/// The start of a line that is too long, of at most `most` bytes.
fn start_of(line: &str, most: usize) -> String {
    format!("{}{}", text::start(line, most), text::CUT)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use tracing::{debug, info, subscriber::with_default, warn};

    use super::*;

    /// What `says` makes of a log in a pipe.
    fn logged(log: &Log, says: impl FnOnce(&LogHandle)) -> String {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        let (reader, handle) = said(log, reader, writer, says);
        rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK).expect("a pipe");
        let mut bytes = vec![0; 1 << 17];
        let length = rustix::io::read(&reader, &mut bytes).unwrap_or(0);
        drop(handle);
        String::from_utf8(bytes[..length].to_vec()).expect("text")
    }

    fn said(log: &Log, reader: OwnedFd, writer: OwnedFd, says: impl FnOnce(&LogHandle)) -> (OwnedFd, LogHandle) {
        let target: &'static OwnedFd = Box::leak(Box::new(writer));
        let (subscriber, handle) = build(log, target.as_fd());
        with_default(subscriber, || says(&handle));
        (reader, handle)
    }

    const JSON: Log = Log { format: LogFormat::Json, level: LogLevel::Info };
    const TEXT: Log = Log { format: LogFormat::Text, level: LogLevel::Info };

    #[test]
    fn foreign_text_stays_on_its_line() {
        let foreign = "a\nINFO b\u{1b}[2J\u{2028}";
        for log in [JSON, TEXT] {
            let text = logged(&log, |_| warn!(comm = %foreign, "{foreign}"));
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains('\u{1b}') && !text.contains('\u{2028}'), "{text:?}");
        }
    }

    #[test]
    fn a_line_of_json_is_an_object_with_its_fields() {
        let text = logged(&JSON, |_| info!(detector = "oom", count = 3, "method \u{7f}\u{2028} changed"));
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&value["detector"], &value["count"], &value["level"]), (&"oom".into(), &3.into(), &"INFO".into()));
        assert!(value["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{text}");
    }

    #[test]
    fn the_level_can_be_changed_while_it_runs() {
        let text = logged(&TEXT, |handle| {
            debug!("one");
            handle.set_level(LogLevel::Debug).expect("open");
            debug!("two");
            debug!(target: "hyper", "three");
            handle.set_level(LogLevel::Error).expect("open");
            warn!("four");
        });
        assert!(text.contains("two") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn one_place_cannot_flood_it_and_others_are_heard() {
        let text = logged(&TEXT, |handle| {
            (0..100).for_each(|number| info!("again {number}"));
            info!("another");
            assert_eq!(handle.counts().left_out(), 80);
        });
        assert_eq!((text.matches("again").count(), text.matches("another").count()), (20, 1));
    }

    #[test]
    fn what_was_left_out_is_told_with_the_next_line() {
        let start = clock::monotonic_now();
        let mut place = Place { left: 1, since: start, left_out: 0 };
        assert_eq!([place.ask(start), place.ask(start), place.ask(start)], [Some(0), None, None]);
        assert_eq!(place.ask(start + EVERY), Some(2));
        assert_eq!(place.ask(start + EVERY), None);
        assert_eq!(place.ask(start + 1000 * EVERY), Some(1));
        assert_eq!(place.left, BURST - 1);
    }

    #[test]
    fn a_reader_that_reads_nothing_loses_lines_and_holds_nobody() {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        let (_reader, handle) = said(&JSON, reader, writer, |_| {
            let long = "x".repeat(5000);
            // Each place has its own burst.
            (0..10).for_each(|_| info!("{long}"));
            (0..10).for_each(|_| info!("{long}"));
        });
        assert!(handle.counts().dropped() > 0);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_an_object_stays_one() {
        for long in ["ä", "\"", "\u{1}", "\\", "x"].map(|part| part.repeat(5000)) {
            let text = logged(&TEXT, |_| info!("{long}"));
            assert!(text.len() <= MAX_LINE && text.ends_with("…\n"), "{text}");
            let object = logged(&JSON, |_| info!("{long}"));
            assert!(object.len() <= MAX_LINE, "{object}");
            let value: serde_json::Value = serde_json::from_str(&object).expect("JSON");
            assert_eq!(value["message"], "a line that is too long");
        }
    }
}
