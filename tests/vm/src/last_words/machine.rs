//! netconsole without any program: a target by configfs, on the only network card, to the host behind it.

use std::{
    fs::{self, File},
    net::UdpSocket,
    os::fd::AsRawFd as _,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
    system::finit_module,
};

/// Modules that the host packed, in the order in which they can be loaded.
const MODULES: &str = "/modules";

const CONFIGFS: &str = "/sys/kernel/config";

/// Addresses that QEMU gives the guest and itself (`-netdev user`), and the MAC by which it answers.
const GUEST: &str = "10.0.2.15";
const HOST: &str = "10.0.2.2";
const HOST_MAC: &str = "52:55:0a:00:02:02";

/// From now on the kernel's console goes to the host, too, to the port that it named.
pub(super) fn speak_to_the_host() -> Result<()> {
    let line = fs::read_to_string("/proc/cmdline")?;
    let port = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("detector.panic_port="));
    let port = port.context("the host named no port")?;
    load_modules()?;
    raise("eth0")?;
    mount("configfs", CONFIGFS, "configfs", MountFlags::empty(), None).context("mounting configfs")?;
    let target = Path::new(CONFIGFS).join("netconsole/host");
    fs::create_dir(&target).context("making a target")?;
    for (name, value) in [
        ("extended", "1"),
        ("dev_name", "eth0"),
        ("local_ip", GUEST),
        ("remote_ip", HOST),
        ("remote_port", port),
        ("remote_mac", HOST_MAC),
        ("enabled", "1"),
    ] {
        fs::write(target.join(name), value).with_context(|| format!("setting {name} of the target to {value}"))?;
    }
    Ok(())
}

fn load_modules() -> Result<()> {
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
    Ok(())
}

/// What `ip link set NAME up` does (netdevice(7)).
pub(super) fn raise(name: &str) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("a socket to ask by")?;
    // SAFETY: all bits zero are an empty request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: the request is whole, and lives until the call is over.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    ensure!(done == 0, "raising {name}: {}", std::io::Error::last_os_error());
    Ok(())
}
