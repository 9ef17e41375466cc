//! Makes a bare kernel usable: file systems, the loop module, a small ext4 that may be frozen. And turns it off.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, finit_module, reboot},
};

/// Where the ext4 image is mounted.
pub(crate) const DISK: &str = "/disk";

/// Image that the host packed.
const IMAGE: &str = "/ext4.img";

/// Module that the host packed, already unpacked.
const LOOP_MODULE: &str = "/loop.ko";

/// `LOOP_SET_FD` and `LOOP_CTL_GET_FREE` (`include/uapi/linux/loop.h`).
const LOOP_SET_FD: u32 = 0x4C00;
const LOOP_CTL_GET_FREE: u32 = 0x4C82;

/// File system type, mount point.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Mounts everything.
pub(crate) fn prepare() -> Result<()> {
    for (kind, point) in MOUNTS {
        fs::create_dir_all(point).or_else(|cause| if Path::new(point).is_dir() { Ok(()) } else { Err(cause) })?;
        mount(kind, point, kind, MountFlags::empty(), None).with_context(|| format!("mounting {kind} on {point}"))?;
    }
    mount_disk()
}

/// Turns the machine off. If that fails, process 1 ends and the kernel panics, which the host sees.
pub(crate) fn power_off() {
    rustix::fs::sync();
    if let Err(cause) = reboot(RebootCommand::PowerOff) {
        println!("GUEST powering off: {cause}");
    }
}

fn mount_disk() -> Result<()> {
    let module = File::open(LOOP_MODULE).with_context(|| format!("opening {LOOP_MODULE}"))?;
    finit_module(&module, c"", 0).with_context(|| format!("loading {LOOP_MODULE}"))?;
    let control =
        File::options().read(true).write(true).open("/dev/loop-control").context("opening /dev/loop-control")?;
    // SAFETY: the request takes no argument and returns a number.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
    ensure!(number >= 0, "no free loop device: {}", std::io::Error::last_os_error());
    let path = format!("/dev/loop{number}");
    let device = File::options().read(true).write(true).open(&path).with_context(|| format!("opening {path}"))?;
    let image = File::options().read(true).write(true).open(IMAGE).with_context(|| format!("opening {IMAGE}"))?;
    // SAFETY: the argument is an open descriptor, which the kernel takes a reference of.
    let set = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD as _, image.as_raw_fd()) };
    ensure!(set == 0, "binding {IMAGE} to {path}: {}", std::io::Error::last_os_error());
    fs::create_dir_all(DISK)?;
    mount(path.as_str(), DISK, "ext4", MountFlags::empty(), None).with_context(|| format!("mounting {path} on {DISK}"))
}
