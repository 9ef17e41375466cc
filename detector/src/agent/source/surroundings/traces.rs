//! What a panic of this kernel would leave for the next boot: pstore, systemd's archive of it, kdump.

use std::{io, path::Path};

use super::{VALUE_LIMIT, text, under};
use crate::agent::source::previous_boot::{kdump, pstore};

/// Name of the backend of pstore; the kernel writes `(null)` for none (`fs/pstore/platform.c`).
const BACKEND: &str = "/sys/module/pstore/parameters/backend";
/// 1 if a kernel is loaded that takes over in a panic (Documentation/ABI/testing/sysfs-kernel-kexec).
const CRASH_LOADED: &str = "/sys/kernel/kexec_crash_loaded";
/// `Y` if pstore is written before that kernel takes over (Documentation/admin-guide/kernel-parameters.txt).
const NOTIFIERS_FIRST: &str = "/sys/module/kernel/parameters/crash_kexec_post_notifiers";

/// 1 while something may be written to the trace buffer. An oops ends that for good (`oops_enter`, `kernel/panic.c`).
const TRACING_ON: &str = "/sys/kernel/tracing/tracing_on";
/// All consoles: name, what they can do, and flags in parentheses (`fs/proc/consoles.c`).
const CONSOLES: &str = "/proc/consoles";

/// State of a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It can be listed.
    Found,
    /// It is not there.
    #[default]
    Absent,
    /// It is there, but this process may not list it.
    Closed,
}

impl State {
    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Closed => "closed",
        }
    }

    fn of(root: &Path, place: &str) -> Self {
        match under(root, place).read_dir() {
            Ok(_) => Self::Found,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Self::Absent
            }
            Err(_) => Self::Closed,
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Backend of pstore; `None`: there is none, or it is not told.
    pub backend: Option<String>,
    /// `/sys/fs/pstore`.
    pub pstore: State,
    /// `/var/lib/systemd/pstore`.
    pub archive: State,
    /// `/var/crash`.
    pub crashes: State,
    /// Whether a crash kernel is loaded.
    pub kdump_loaded: Option<bool>,
    /// Whether pstore is written before that kernel takes over.
    pub notifiers_first: Option<bool>,
    /// Whether the trace buffer takes anything.
    pub tracing_on: Option<bool>,
    /// netconsole is of the kind that is written to only when a panic is over (`CONFIG_NETCONSOLE_NBCON`, Linux 7.0).
    pub late_netconsole: bool,
}

impl Traces {
    /// Reads all of it below `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let flag = |path: &str, yes: &str| text(root, path, VALUE_LIMIT).map(|value| value == yes);
        Self {
            backend: text(root, BACKEND, VALUE_LIMIT).filter(|name| !name.is_empty() && name != "(null)"),
            pstore: State::of(root, pstore::LIVE),
            archive: State::of(root, pstore::ARCHIVE),
            crashes: State::of(root, kdump::PLACE),
            kdump_loaded: flag(CRASH_LOADED, "1"),
            notifiers_first: flag(NOTIFIERS_FIRST, "Y"),
            tracing_on: flag(TRACING_ON, "1"),
            late_netconsole: text(root, CONSOLES, VALUE_LIMIT).is_some_and(|text| has_late_netconsole(&text)),
        }
    }
}

/// `netcon_ext0          -W- (E N  p  )`: `N` stands for nbcon.
fn has_late_netconsole(consoles: &str) -> bool {
    let netconsoles = consoles.lines().filter(|line| line.starts_with("netcon"));
    let flags = netconsoles.filter_map(|line| line.split_once('(')?.1.split_once(')'));
    flags.into_iter().any(|(flags, _)| flags.contains('N'))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_machine_with_erst_and_kdump_is_read() {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in [(BACKEND, "erst\n"), (CRASH_LOADED, "1\n"), (NOTIFIERS_FIRST, "N\n")] {
            let path = under(root.path(), path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(under(root.path(), pstore::LIVE)).unwrap();
        let found = Traces::read(root.path());
        assert_eq!((found.backend.as_deref(), found.pstore), (Some("erst"), State::Found));
        assert_eq!((found.archive, found.crashes), (State::Absent, State::Absent));
        assert_eq!((found.kdump_loaded, found.notifiers_first), (Some(true), Some(false)));
        fs::write(under(root.path(), BACKEND), "(null)\n").unwrap();
        assert_eq!(Traces::read(root.path()).backend, None);
    }

    #[test]
    fn a_netconsole_that_comes_late_is_known_by_its_flag() {
        assert!(has_late_netconsole(
            "ttyS0                -W- (EC N  p a)    4:64\nnetcon_ext0          -W- (E  N  p  )\n"
        ));
        assert!(!has_late_netconsole(
            "ttyS0                -W- (EC N  p a)    4:64\nnetcon_ext0          -W- (E     p  )\n"
        ));
        assert!(!has_late_netconsole(""));
    }

    #[test]
    fn a_machine_that_tells_nothing_has_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Traces::read(root.path()), Traces::default());
    }
}
