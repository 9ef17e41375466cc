//! What the machine tells of itself in files: mounts, settings, lockdown, places of container runtimes. Asked by
//! `detector doctor`; nothing is changed and nothing is connected to.

pub mod mounts;
pub mod runtimes;
pub mod traces;
pub mod usage;

use std::{fs::File, io, os::unix::fs::OpenOptionsExt, path::Path};

use mounts::Mounts;
use runtimes::Place;
use rustix::fs::OFlags;
use traces::Traces;

use super::{
    small_file::{self, under},
    task,
};

/// Longest value of a setting, in bytes.
const VALUE_LIMIT: u64 = 4096;

/// Largest list of mounts, in bytes: a machine with thousands of containers has thousands of mounts.
const MOUNTS_LIMIT: u64 = 16 << 20;

/// Settings that matter, as sysctl(8) names them.
pub const SETTINGS: [&str; 9] = [
    "kernel.unprivileged_bpf_disabled",
    "kernel.perf_event_paranoid",
    "kernel.dmesg_restrict",
    "kernel.kptr_restrict",
    "kernel.hung_task_timeout_secs",
    "kernel.hung_task_warnings",
    "kernel.ftrace_enabled",
    "kernel.ftrace_dump_on_oops",
    "kernel.panic",
];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Release of the kernel.
    pub release: Option<String>,
    /// Machine architecture, as uname(2) says.
    pub architecture: String,
    /// Bytes of the kernel's own types; `None` if there is no such file.
    pub btf_bytes: Option<u64>,
    /// How far root is kept from changing the kernel.
    pub lockdown: Lockdown,
    /// File systems that matter.
    pub mounts: Mounts,
    /// Value of each of [`SETTINGS`]; `None` if it cannot be read.
    pub settings: Vec<(&'static str, Option<String>)>,
    /// Places of container runtimes.
    pub runtimes: Vec<Place>,
    /// What a panic would leave.
    pub traces: Traces,
    /// This process lives in a pid namespace of its own.
    pub own_pids: bool,
}

/// State of the kernel's lockdown (kernel_lockdown(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lockdown {
    /// Off.
    None,
    /// The kernel cannot be changed.
    Integrity,
    /// Nor can its memory be read, which BPF programs of ours do.
    Confidentiality,
    /// The kernel does not tell, or not to us: the file is on securityfs, which containers often lack.
    #[default]
    Unknown,
}

impl Lockdown {
    /// Its name in every output: the kernel's own word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
            Self::Unknown => "unknown",
        }
    }

    /// Reads `none [integrity] confidentiality`: the one in brackets holds.
    fn parse(text: &str) -> Self {
        let holds = |word: &&str| word.starts_with('[') && word.ends_with(']');
        match text.split_ascii_whitespace().find(holds) {
            Some("[none]") => Self::None,
            Some("[integrity]") => Self::Integrity,
            Some("[confidentiality]") => Self::Confidentiality,
            _ => Self::Unknown,
        }
    }
}

impl Surroundings {
    /// Reads all of it below `root`, which is `/` but for tests. What cannot be read is `None`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let mountinfo = text(root, "/proc/self/mountinfo", MOUNTS_LIMIT).unwrap_or_default();
        let lockdown = text(root, "/sys/kernel/security/lockdown", VALUE_LIMIT);
        Self {
            release: text(root, "/proc/sys/kernel/osrelease", VALUE_LIMIT),
            architecture: rustix::system::uname().machine().to_string_lossy().into_owned(),
            btf_bytes: under(root, "/sys/kernel/btf/vmlinux").metadata().ok().map(|about| about.len()),
            lockdown: lockdown.as_deref().map_or(Lockdown::Unknown, Lockdown::parse),
            mounts: Mounts::parse(&mountinfo, |path| under(root, path).read_dir().is_ok()),
            settings: SETTINGS.map(|name| (name, setting(root, name))).to_vec(),
            runtimes: runtimes::find(root),
            traces: Traces::read(root),
            own_pids: !task::sees_the_machine(root),
        }
    }

    /// Value of one of [`SETTINGS`].
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| *known == name)?.1.as_deref()
    }
}

/// Whether the kernel's log may be read, by opening it.
///
/// # Errors
/// What open(2) says: EPERM without `CAP_SYSLOG` where `kernel.dmesg_restrict` is 1, ENOENT where the device is missing.
pub fn open_kernel_log(root: &Path) -> io::Result<()> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    File::options().read(true).custom_flags(flags).open(under(root, "/dev/kmsg")).map(drop)
}

fn setting(root: &Path, name: &str) -> Option<String> {
    text(root, &format!("/proc/sys/{}", name.replace('.', "/")), VALUE_LIMIT)
}

fn text(root: &Path, path: &str, limit: u64) -> Option<String> {
    let file = small_file::read(&under(root, path), limit).ok()??;
    Some(String::from_utf8_lossy(&file.bytes).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::off("[none] integrity confidentiality\n", Lockdown::None)]
    #[case::integrity("none [integrity] confidentiality\n", Lockdown::Integrity)]
    #[case::confidentiality("none integrity [confidentiality]\n", Lockdown::Confidentiality)]
    #[case::unmarked("none integrity confidentiality\n", Lockdown::Unknown)]
    #[case::future("none [everything]\n", Lockdown::Unknown)]
    #[case::empty("", Lockdown::Unknown)]
    fn lockdown_is_the_word_in_brackets(#[case] text: &str, #[case] lockdown: Lockdown) {
        assert_eq!(Lockdown::parse(text), lockdown);
    }

    #[test]
    fn a_machine_is_read_below_its_root() {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("/proc/sys/kernel/osrelease", "6.12.1\n"),
            ("/proc/sys/kernel/hung_task_timeout_secs", "0\n"),
            ("/sys/kernel/btf/vmlinux", "12345"),
            ("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
            ("/proc/self/mountinfo", "24 1 0:7 / /sys/kernel/tracing rw - tracefs tracefs rw\n"),
            ("/sys/kernel/tracing/README", ""),
        ] {
            let path = under(root.path(), path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let found = Surroundings::read(root.path());
        assert_eq!(found.release.as_deref(), Some("6.12.1"));
        assert_eq!(found.btf_bytes, Some(5));
        assert_eq!(found.lockdown, Lockdown::Integrity);
        assert_eq!(found.setting("kernel.hung_task_timeout_secs"), Some("0"));
        assert_eq!(found.setting("kernel.ftrace_enabled"), None);
        assert_eq!(found.mounts.tracefs.as_deref(), Some("/sys/kernel/tracing"));
        assert!(found.mounts.tracefs_readable);
        assert_eq!(open_kernel_log(root.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn an_empty_machine_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let found = Surroundings::read(root.path());
        assert_eq!((found.release, found.btf_bytes, found.lockdown), (None, None, Lockdown::Unknown));
        assert_eq!(found.settings.len(), SETTINGS.len());
    }
}
