//! The bare guest: file systems, the loopback interface, parameters, and turning it off.

use std::{fs, path::Path, str::FromStr};

use anyhow::{Context, Result, ensure};
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, reboot},
};

/// Where the kernel shows what the one before left.
const PSTORE: &str = "/sys/fs/pstore";

/// File system type, mount point.
const MOUNTS: [(&str, &str); 8] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("pstore", PSTORE),
];

/// Mounts everything.
pub(crate) fn prepare() -> Result<()> {
    for (kind, point) in MOUNTS {
        fs::create_dir_all(point).or_else(|cause| if Path::new(point).is_dir() { Ok(()) } else { Err(cause) })?;
        mount(kind, point, kind, MountFlags::empty(), None).with_context(|| format!("mounting {kind} on {point}"))?;
    }
    loopback_up()
}

/// Files of pstore.
pub(crate) fn records() -> Result<usize> {
    Ok(fs::read_dir(PSTORE).with_context(|| format!("listing {PSTORE}"))?.count())
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
        println!("GUEST powering off: {cause}");
    }
}

/// What `ip link set lo up` does (netdevice(7)).
fn loopback_up() -> Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("a socket to ask by")?;
    // SAFETY: all bits zero are an empty request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: the request is whole, and lives until the call is over.
    let done = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw const request) };
    ensure!(done == 0, "raising the loopback interface: {}", std::io::Error::last_os_error());
    Ok(())
}
