//! From the initramfs to the root file system: modules, the disk, what is this node's own, and all mounts of a node.

use std::{
    fs::{self, File},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_move},
    process::{chdir, chroot},
    system::{finit_module, sethostname},
};

/// Modules in the order in which they can be loaded, as whoever packs the guest writes them down.
const MODULES: &str = "/modules";

/// Files of this node, packed as they lie below `/`.
const OVERLAY: &str = "/node";

/// The disk, and where it is mounted at first.
const DISK: &str = "/dev/vda";
const NEW_ROOT: &str = "/newroot";

/// How long the disk may take to appear.
const DISK_PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks for it.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// File system type, mount point, data: what systemd mounts on a real node.
const MOUNTS: [(&str, &str, &std::ffi::CStr); 13] = [
    ("proc", "/proc", c""),
    ("sysfs", "/sys", c""),
    ("cgroup2", "/sys/fs/cgroup", c"memory_recursiveprot"),
    ("bpf", "/sys/fs/bpf", c"mode=700"),
    ("debugfs", "/sys/kernel/debug", c""),
    ("tracefs", "/sys/kernel/tracing", c""),
    ("configfs", "/sys/kernel/config", c""),
    ("pstore", "/sys/fs/pstore", c""),
    ("tmpfs", "/run", c"mode=755"),
    ("tmpfs", "/tmp", c""),
    ("devpts", "/dev/pts", c"ptmxmode=666"),
    ("tmpfs", "/dev/shm", c""),
    ("mqueue", "/dev/mqueue", c""),
];

/// Makes the disk the root file system of this process and all that follow.
pub(crate) fn enter() -> Result<()> {
    for (kind, point) in [("proc", "/proc"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(point)?;
        mount(kind, point, kind, MountFlags::empty(), None).with_context(|| format!("mounting {kind}"))?;
    }
    load_modules()?;
    wait_for_disk()?;
    fs::create_dir_all(NEW_ROOT)?;
    mount(DISK, NEW_ROOT, "ext4", MountFlags::NOATIME, None).with_context(|| format!("mounting {DISK}"))?;
    copy_all(Path::new(OVERLAY), Path::new(NEW_ROOT))?;
    copy(Path::new("/init"), &Path::new(NEW_ROOT).join(super::SELF.trim_start_matches('/')))?;
    mount_move("/dev", format!("{NEW_ROOT}/dev")).context("moving /dev")?;
    chdir(NEW_ROOT)?;
    mount_move(".", "/").context("moving the root file system")?;
    chroot(".").and_then(|()| chdir("/")).context("entering it")?;
    for (kind, point, data) in MOUNTS {
        fs::create_dir_all(point).or_else(|cause| if Path::new(point).is_dir() { Ok(()) } else { Err(cause) })?;
        let data = Some(data).filter(|data| !data.is_empty());
        mount(kind, point, kind, MountFlags::empty(), data).with_context(|| format!("mounting {kind} on {point}"))?;
    }
    // Containers see mounts that the node makes later, as systemd has it.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).context("sharing mounts")?;
    let name = fs::read_to_string("/etc/hostname").context("reading the node's name")?;
    sethostname(name.trim().as_bytes()).context("taking the node's name")
}

fn load_modules() -> Result<()> {
    let mut paths: Vec<_> =
        fs::read_dir(MODULES).context("reading the modules")?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        let module = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        match finit_module(&module, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(cause) => return Err(cause).with_context(|| format!("loading {}", path.display())),
        }
    }
    Ok(())
}

fn wait_for_disk() -> Result<()> {
    let start = Instant::now();
    while !Path::new(DISK).exists() {
        ensure!(start.elapsed() < DISK_PATIENCE, "{DISK} did not appear within {DISK_PATIENCE:?}");
        sleep(LOOK_INTERVAL);
    }
    Ok(())
}

/// Copies all files below one directory to the same places below another.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy_all(&entry.path(), &target)?;
        } else {
            copy(&entry.path(), &target)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("copying {} to {}", from.display(), to.display()))
}
