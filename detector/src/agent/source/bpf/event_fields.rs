//! Where the fields of the classic tracepoints lie that we read, by name of the global that takes the offset.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use crate::agent::source::{
    small_file,
    tracepoint_format::{Content, Format, FormatError},
};

/// Where tracefs is mounted, best first, below the root of the file system (tracefs is mounted in debugfs by itself).
const TRACEFS: [&str; 2] = ["sys/kernel/tracing", "sys/kernel/debug/tracing"];

/// Largest format that is read: those with long lists of flags have 10 KB.
const MAX_BYTES: u64 = 64 * 1024;

/// Offsets found, and why others are not.
#[derive(Debug)]
pub struct EventFields {
    fields: Vec<(&'static str, Result<u32, FieldError>)>,
}

/// Why a field cannot be read.
#[derive(Clone, Debug, Error)]
pub enum FieldError {
    /// No tracefs.
    #[error("looking for tracefs: it is mounted neither on /sys/kernel/tracing nor on /sys/kernel/debug/tracing")]
    NoTracefs,
    /// The kernel has no such tracepoint.
    #[error("looking for the tracepoint {event}: the running kernel has none of that name")]
    NoEvent {
        /// Category and name of the tracepoint, as in tracefs.
        event: &'static str,
    },
    /// The format cannot be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// The format is not one.
    #[error("reading {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: FormatError,
    },
    /// The tracepoint has no such field, or of another size.
    #[error("looking for field {field} of the tracepoint {event}: the running kernel has none of the form known")]
    Missing {
        /// Category and name of the tracepoint.
        event: &'static str,
        /// Name of the field.
        field: &'static str,
    },
}

/// What a field must be like.
#[derive(Clone, Copy)]
enum Shape {
    /// A value of so many bytes.
    Bytes(u32),
    /// The place of a string.
    Location,
}

use Shape::{Bytes, Location};

const MARK: &[&str] = &["oom/mark_victim"];
const SIGNAL: &[&str] = &["signal/signal_generate"];
const HANG: &[&str] = &["sched/sched_process_hang"];
/// Of one class, so that their records are alike.
const CGROUP: &[&str] = &["cgroup/cgroup_mkdir", "cgroup/cgroup_rename", "cgroup/cgroup_rmdir"];

/// One rule for each global of [`detector_common::for_each_event_field`]: the tracepoints, name and shape of the field.
const RULES: &[(&str, &[&str], &str, Shape)] = &[
    ("EVENT_MARK_PID", MARK, "pid", Bytes(4)),
    ("EVENT_MARK_COMM_LOC", MARK, "comm", Location),
    ("EVENT_MARK_ANON", MARK, "anon_rss", Bytes(8)),
    ("EVENT_MARK_FILE", MARK, "file_rss", Bytes(8)),
    ("EVENT_MARK_SHMEM", MARK, "shmem_rss", Bytes(8)),
    ("EVENT_MARK_UID", MARK, "uid", Bytes(4)),
    ("EVENT_MARK_PAGE_TABLES", MARK, "pgtables", Bytes(8)),
    ("EVENT_MARK_SCORE_ADJ", MARK, "oom_score_adj", Bytes(2)),
    ("EVENT_SIGNAL_NUMBER", SIGNAL, "sig", Bytes(4)),
    ("EVENT_SIGNAL_CODE", SIGNAL, "code", Bytes(4)),
    ("EVENT_SIGNAL_PID", SIGNAL, "pid", Bytes(4)),
    ("EVENT_SIGNAL_COMM", SIGNAL, "comm", Bytes(16)),
    ("EVENT_HANG_PID", HANG, "pid", Bytes(4)),
    ("EVENT_HANG_COMM", HANG, "comm", Bytes(16)),
    ("EVENT_HANG_COMM_LOC", HANG, "comm", Location),
    ("EVENT_CGROUP_ROOT", CGROUP, "root", Bytes(4)),
    ("EVENT_CGROUP_ID", CGROUP, "id", Bytes(8)),
    ("EVENT_CGROUP_LEVEL", CGROUP, "level", Bytes(4)),
    ("EVENT_CGROUP_PATH_LOC", CGROUP, "path", Location),
];

impl EventFields {
    /// Reads the formats below `root`, which is `/` but for tests. What cannot be read is remembered with its reason.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let events = find_events(root);
        let mut formats = Vec::new();
        for event in [MARK, SIGNAL, HANG, CGROUP].concat() {
            let format = events.clone().and_then(|events| read_format(&events, event));
            formats.push((event, format));
        }
        let of = |event: &str| formats.iter().find(|(name, _)| *name == event).map(|(_, format)| format);
        let find = |(global, events, field, shape): &(&'static str, &[&'static str], &'static str, Shape)| {
            let mut places = events.iter().map(|event| match of(event) {
                Some(Ok(format)) => place(format, event, field, *shape),
                Some(Err(error)) => Err(error.clone()),
                None => Err(FieldError::NoEvent { event }),
            });
            (*global, places.next().unwrap_or(Err(FieldError::NoTracefs)).and_then(|first| same(first, places, field)))
        };
        Self { fields: RULES.iter().map(find).collect() }
    }

    /// Globals and their values, each of which the running kernel has.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.fields.iter().filter_map(|(name, place)| place.as_ref().ok().map(|offset| (*name, *offset)))
    }

    /// Whether all these globals have a value.
    ///
    /// # Errors
    /// Why the first that has none lacks it.
    pub fn require(&self, globals: &[&str]) -> Result<(), FieldError> {
        for (name, place) in &self.fields {
            if let (true, Err(error)) = (globals.contains(name), place) {
                return Err(error.clone());
            }
        }
        Ok(())
    }
}

/// `first`, if all others are the same.
fn same(
    first: u32,
    others: impl Iterator<Item = Result<u32, FieldError>>,
    field: &'static str,
) -> Result<u32, FieldError> {
    for other in others {
        if other? != first {
            return Err(FieldError::Missing { event: "cgroup", field });
        }
    }
    Ok(first)
}

fn find_events(root: &Path) -> Result<PathBuf, FieldError> {
    for place in TRACEFS {
        let path = root.join(place).join("events");
        match fs::metadata(&path) {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(FieldError::Read { path, source: Arc::new(error) }),
        }
    }
    Err(FieldError::NoTracefs)
}

fn read_format(events: &Path, event: &'static str) -> Result<Format, FieldError> {
    let path = events.join(event).join("format");
    match small_file::read(&path, MAX_BYTES) {
        Ok(Some(file)) => {
            Format::parse(&String::from_utf8_lossy(&file.bytes)).map_err(|source| FieldError::Parse { path, source })
        }
        Ok(None) => Err(FieldError::NoEvent { event }),
        Err(error) => Err(FieldError::Read { path, source: Arc::new(error) }),
    }
}

fn place(format: &Format, event: &'static str, name: &'static str, shape: Shape) -> Result<u32, FieldError> {
    let fits = |content: Content, size: u32| match shape {
        Bytes(bytes) => content == Content::Value && size == bytes,
        Location => content == Content::Location && size == 4,
    };
    match format.field(name) {
        Some(field) if fits(field.content, field.size) => Ok(field.offset),
        _ => Err(FieldError::Missing { event, field: name }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn field(text: &str) -> String {
        format!("format:\n\tfield:{text};\tsigned:1;\n")
    }

    fn write(root: &Path, event: &str, format: &str) {
        let directory = root.join(TRACEFS[1]).join("events").join(event);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("format"), format).unwrap();
    }

    #[test]
    fn every_global_of_the_kernel_side_has_a_rule() {
        macro_rules! names {
            ($($name:ident),* $(,)?) => { [$(stringify!($name)),*] };
        }
        let globals: BTreeSet<_> = detector_common::for_each_event_field!(names).into_iter().collect();
        let rules: BTreeSet<_> = RULES.iter().map(|rule| rule.0).collect();
        assert_eq!(globals, rules);
    }

    #[test]
    fn without_tracefs_each_field_says_so() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(TRACEFS[0])).unwrap();
        let fields = EventFields::read(root.path());
        assert_eq!(fields.values().count(), 0);
        assert!(matches!(fields.require(&["EVENT_MARK_PID"]), Err(FieldError::NoTracefs)));
        assert!(fields.require(&[]).is_ok());
    }

    #[test]
    fn a_tracepoint_and_a_field_that_the_kernel_lacks_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "oom/mark_victim", &field("int pid;\toffset:8;\tsize:4"));
        write(root.path(), "sched/sched_process_hang", "nothing");
        let fields = EventFields::read(root.path());
        assert_eq!(fields.values().collect::<Vec<_>>(), [("EVENT_MARK_PID", 8)]);
        assert!(matches!(fields.require(&["EVENT_MARK_UID"]), Err(FieldError::Missing { field: "uid", .. })));
        assert!(matches!(fields.require(&["EVENT_SIGNAL_PID"]), Err(FieldError::NoEvent { .. })));
        assert!(matches!(fields.require(&["EVENT_HANG_PID"]), Err(FieldError::Parse { .. })));
    }

    #[test]
    fn a_field_of_another_size_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "oom/mark_victim", &field("pid_t pid;\toffset:8;\tsize:8"));
        assert!(EventFields::read(root.path()).require(&["EVENT_MARK_PID"]).is_err());
    }

    #[test]
    fn tracepoints_read_by_one_program_must_agree() {
        let root = tempfile::tempdir().unwrap();
        for (event, offset) in CGROUP.iter().zip([8, 8, 12]) {
            write(root.path(), event, &field(&format!("int root;\toffset:{offset};\tsize:4")));
        }
        assert!(EventFields::read(root.path()).require(&["EVENT_CGROUP_ROOT"]).is_err());
        write(root.path(), CGROUP[2], &field("int root;\toffset:8;\tsize:4"));
        assert!(EventFields::read(root.path()).require(&["EVENT_CGROUP_ROOT"]).is_ok());
    }
}
