//! containerd in a guest that has nothing but a kernel: what it expects of a machine, its configuration, its start, the
//! images, its end.

use std::{
    fs::{self, File},
    mem,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{DEADLINE, LOOK_INTERVAL};

/// Where it listens.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";

const CONFIG: &str = "/etc/containerd/config.toml";
const LOG: &str = "/tmp/containerd.log";

/// Images that the host packed.
const IMAGES: &str = "/images.tar";

/// Its client.
const CLIENT: &str = "/usr/bin/ctr";

/// The guest's root cannot be left by pivot_root(2), and has no overlayfs.
const CONFIGURATION: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "detector.test/pause:1"
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        NoPivotRoot = true
"#;

/// Lines of its log that are shown.
const LAST_LINES: usize = 4;

/// A running containerd; killed when dropped.
pub(super) struct Daemon(Child);

impl Daemon {
    /// Starts it, waits until it listens, and gives it the images.
    pub(super) fn start(program: &str) -> Result<Self> {
        for (path, content) in
            [(CONFIG, CONFIGURATION), ("/etc/hosts", "127.0.0.1 localhost\n"), ("/etc/resolv.conf", "")]
        {
            fs::create_dir_all(Path::new(path).parent().context("no root")?)?;
            fs::write(path, content).with_context(|| format!("writing {path}"))?;
        }
        fs::create_dir_all("/var/log/pods")?;
        loopback_up().context("bringing the loopback interface up, on which the CRI plugin listens for streams")?;
        let log = File::create(LOG)?;
        let mut command = Command::new(program);
        command.args(["--config", CONFIG]).env("PATH", "/usr/sbin:/usr/bin").stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let daemon = Self(command.spawn().with_context(|| format!("starting {program}"))?);
        let start = Instant::now();
        while !Path::new(SOCKET).exists() {
            ensure!(start.elapsed() < DEADLINE, "no {SOCKET} after {DEADLINE:?}: {}", daemon.last_words());
            std::thread::sleep(LOOK_INTERVAL);
        }
        let words = ["-n", "k8s.io", "images", "import", "--snapshotter", "native", IMAGES];
        let import = Command::new(CLIENT).args(words).output().with_context(|| format!("running {CLIENT}"))?;
        let complaint = String::from_utf8_lossy(&import.stderr).into_owned();
        ensure!(import.status.success(), "importing {IMAGES}: {complaint}; {}", daemon.last_words());
        println!("GUEST containerd is ready after {} ms", start.elapsed().as_millis());
        Ok(daemon)
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read_to_string(LOG).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join(" | ")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What `ip link set lo up` does (netdevice(7)).
fn loopback_up() -> Result<()> {
    // SAFETY: zeros are a valid request.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the request is valid for the whole call.
    let done = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw const request) };
    ensure!(done == 0, "{}", std::io::Error::last_os_error());
    Ok(())
}
