//! The bare machine: file systems, modules, network cards; and its end.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
    system::{RebootCommand, finit_module, reboot, sethostname},
};

/// Modules in the order in which they can be loaded.
const MODULES: &str = "/modules";

/// busybox, for its `ip`.
const BUSYBOX: &str = "/busybox";

const MOUNTS: [(&str, &str); 5] =
    [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp"), ("tmpfs", "/run")];

/// Mounts, loads, and gives the first card its address; configfs is left to the program under test.
pub(crate) fn prepare() -> Result<()> {
    for (kind, point) in MOUNTS {
        fs::create_dir_all(point).or_else(|cause| if Path::new(point).is_dir() { Ok(()) } else { Err(cause) })?;
        mount(kind, point, kind, MountFlags::empty(), None).with_context(|| format!("mounting {kind} on {point}"))?;
    }
    let mut modules: Vec<_> =
        fs::read_dir(MODULES).context("reading the modules")?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    modules.sort();
    for path in modules {
        let module = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        match finit_module(&module, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(cause) => return Err(cause).with_context(|| format!("loading {}", path.display())),
        }
    }
    sethostname(b"guest").context("naming the machine")?;
    // `quiet` on the command line keeps informational lines from all consoles, netconsole among them.
    fs::write("/proc/sys/kernel/printk", "7 4 1 7").context("raising the console's level")?;
    for words in ["link set lo up", "link set eth0 up", "addr add 10.0.2.15/24 dev eth0"] {
        ip(words)?;
    }
    Ok(())
}

/// Runs busybox's `ip` in the network namespace of this thread.
pub(crate) fn ip(words: &str) -> Result<()> {
    let output = Command::new(BUSYBOX).arg("ip").args(words.split(' ')).output().context("running ip")?;
    ensure!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// What stands behind `key` on the kernel's command line.
pub(crate) fn parameter(key: &str) -> Option<String> {
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    line.split_whitespace().find_map(|word| word.strip_prefix(key).map(str::to_owned))
}

/// Has the kernel panic. Returns only if it does not.
pub(crate) fn panic() {
    if let Err(cause) = fs::write("/proc/sysrq-trigger", "c") {
        println!("GUEST causing a panic: {cause}");
    }
}

/// Turns the machine off. If that fails, process 1 ends and the kernel panics, which the host sees.
pub(crate) fn power_off() {
    if let Err(cause) = reboot(RebootCommand::PowerOff) {
        println!("GUEST powering off: {cause}");
    }
}
