//! The bare guest: file systems, parameters, and turning it off.

use std::{fs, path::Path, str::FromStr};

use anyhow::{Context, Result};
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, reboot},
};

/// File system type, mount point.
const MOUNTS: [(&str, &str); 8] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/tmp"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Mounts everything.
pub(crate) fn prepare() -> Result<()> {
    for (kind, point) in MOUNTS {
        fs::create_dir_all(point).or_else(|cause| if Path::new(point).is_dir() { Ok(()) } else { Err(cause) })?;
        mount(kind, point, kind, MountFlags::empty(), None).with_context(|| format!("mounting {kind} on {point}"))?;
    }
    // The kernel's own list of tasks takes longer to write than all tools together.
    fs::write("/proc/sys/vm/oom_dump_tasks", "0").context("keeping the kernel's list of tasks out of its log")
}

/// The value behind `key` on the kernel's command line.
pub(crate) fn parameter<T: FromStr>(key: &str) -> Option<T> {
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key))?.parse().ok()
}

/// Turns the machine off. If that fails, process 1 ends and the kernel panics, which the host sees.
pub(crate) fn power_off() {
    rustix::fs::sync();
    if let Err(cause) = reboot(RebootCommand::PowerOff) {
        println!("FAILED powering off: {cause}");
    }
}
