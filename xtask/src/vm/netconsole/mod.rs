//! A guest whose kernel must be heard: `tests/vm/src/bin/netconsole` judges what happens inside; here the host waits for the
//! guest's last words, which leave it as any packet does.

mod last_words;

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    ops::Add,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    abreast,
    boot::{self, Boot},
    image, initramfs,
    kernels::{self, Kernel},
    report::verdict,
};
use crate::{test::Outcome, toolchain::unpacked};

/// Name of the case on the command line, and of process 1.
pub(super) const NAME: &str = "netconsole";

/// Kernels without and with userdata.
pub(super) const SERIES: [&str; 2] = [WITHOUT_USERDATA, "6.12"];
const WITHOUT_USERDATA: &str = "6.1";

/// Modules of the guest, each with what it depends on.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_net", "netconsole", "bridge"];

/// Memory of the guest.
const MEMORY_MIB: u32 = 512;

/// One card to the host, two that are joined with each other.
const DEVICES: &[&str] = &[
    "-netdev",
    "user,id=host",
    "-device",
    "virtio-net-pci,netdev=host,romfile=,addr=10",
    "-netdev",
    "hubport,id=node,hubid=1",
    "-device",
    "virtio-net-pci,netdev=node,romfile=,addr=11,mac=52:54:00:00:01:01",
    "-netdev",
    "hubport,id=gateway,hubid=1",
    "-device",
    "virtio-net-pci,netdev=gateway,romfile=,addr=12,mac=52:54:00:00:01:02",
];

/// Datagrams that are kept: a panic is some 150.
const DATAGRAMS: usize = 10_000;

/// Time between two looks whether the guest has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Boots each of `kernels` with `detector` inside.
pub(super) fn run(cache: &Path, kernels: Vec<Kernel>, detector: &Path) -> Result<Outcome> {
    let busybox = unpacked::provide(cache, "busybox", &["busybox-static"])?.join("bin/busybox");
    let files = [("init", image::build_guest(NAME)?), ("detector", detector.to_owned()), ("busybox", busybox)];
    let mut jobs = Vec::new();
    for kernel in kernels {
        let files = with_modules(cache, &kernel, &files)?;
        jobs.push((kernel, files));
    }
    let judged = abreast::each(jobs, |(kernel, files)| {
        let start = Instant::now();
        let judged = judged(cache, &kernel, &files);
        let seconds = start.elapsed().as_secs_f64();
        match judged {
            Ok(outcome) => {
                let Outcome { passed, failed, .. } = outcome;
                println!("vm: {NAME} on {}: passed {passed} failed {failed} in {seconds:.0} s", kernel.series);
                outcome
            }
            Err(cause) => {
                println!("vm: {NAME} on {} gave no verdict in {seconds:.0} s: {cause:#}", kernel.series);
                Outcome { failed: 1, ..Outcome::default() }
            }
        }
    });
    Ok(judged.into_iter().fold(Outcome::default(), Add::add))
}

/// `files`, and the modules of this kernel that netconsole needs.
pub(super) fn with_modules(cache: &Path, kernel: &Kernel, files: &[(&str, PathBuf)]) -> Result<Vec<(String, PathBuf)>> {
    let modules = kernels::more_modules(cache, kernel, NAME, &MODULES)?;
    let mut all: Vec<_> = files.iter().map(|(name, path)| ((*name).to_owned(), path.clone())).collect();
    for module in modules {
        let name = module.file_name().context("a module has no name")?.to_string_lossy().into_owned();
        all.push((format!("modules/{name}"), module));
    }
    Ok(all)
}

/// Boots one kernel; how many cases passed and failed.
fn judged(cache: &Path, kernel: &Kernel, files: &[(String, PathBuf)]) -> Result<Outcome> {
    let Heard { console, datagrams } = booted(&Dying {
        kernel,
        files,
        stem: &cache.join(format!("{NAME}-{}", kernel.series)),
        parameters: "",
        devices: DEVICES,
    })?;
    let datagrams: Vec<_> = datagrams.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
    let verdict = verdict::parse(&console)?;
    for line in &verdict.lines {
        match &line.wrong {
            None => println!("vm: {NAME} {} {} ok", kernel.series, line.case),
            Some(wrong) => println!("vm: {NAME} {} {} FAIL {wrong}", kernel.series, line.case),
        }
    }
    let heard = last_words::judge(&datagrams, kernel.series != WITHOUT_USERDATA);
    match &heard {
        Ok(()) => println!("vm: {NAME} {} panic ok: {} datagrams", kernel.series, datagrams.len()),
        Err(cause) => println!("vm: {NAME} {} panic FAIL {cause:#}", kernel.series),
    }
    let panic = Outcome { passed: heard.is_ok().into(), failed: heard.is_err().into(), skipped: 0 };
    Ok(panic + Outcome { passed: verdict.passed(), failed: verdict.failed(), skipped: 0 })
}

/// A guest that is to panic.
pub(super) struct Dying<'a> {
    pub(super) kernel: &'a Kernel,
    /// Name in the guest, file of the host.
    pub(super) files: &'a [(String, PathBuf)],
    /// Files of its own begin so.
    pub(super) stem: &'a Path,
    /// More for the kernel's command line.
    pub(super) parameters: &'a str,
    /// More arguments of QEMU.
    pub(super) devices: &'a [&'a str],
}

/// What was heard of it.
pub(super) struct Heard {
    /// By its serial console, whose text stays in the file `<stem>.console`.
    pub(super) console: String,
    /// At the port that the kernel's command line named.
    pub(super) datagrams: Vec<Vec<u8>>,
}

/// Runs a guest to its panic, and collects what comes meanwhile.
pub(super) fn booted(dying: &Dying<'_>) -> Result<Heard> {
    let Dying { kernel, files, stem, parameters, devices } = *dying;
    let named: Vec<_> = files.iter().map(|(name, path)| (name.as_str(), path.clone())).collect();
    let archive = initramfs::pack(&stem.with_added_extension("initramfs"), &named, &kernel.loop_module)?;
    let log = stem.with_added_extension("console");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("listening for last words")?;
    let parameters = format!("detector.panic_port={} {parameters}", socket.local_addr()?.port());
    let boot = Boot {
        kernel,
        memory: MEMORY_MIB,
        initramfs: &archive,
        parameters: &parameters,
        log: &log,
        devices,
        dies: true,
    };
    let heard = listen(&socket, || boot::run(&boot));
    fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
    heard
}

/// Runs the guest, and collects what comes to `socket` until its end.
fn listen(socket: &UdpSocket, run: impl FnOnce() -> Result<String>) -> Result<Heard> {
    socket.set_read_timeout(Some(LOOK_INTERVAL)).context("listening for last words")?;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let listening = scope.spawn(|| {
            let (mut datagrams, mut buffer) = (Vec::new(), [0; 2048]);
            loop {
                match socket.recv(&mut buffer) {
                    Ok(count) if datagrams.len() < DATAGRAMS => {
                        datagrams.push(buffer[..count].to_vec());
                    }
                    Ok(_) => {}
                    Err(_) if ended.load(Ordering::Relaxed) => return datagrams,
                    Err(_) => {}
                }
            }
        });
        let console = run();
        ended.store(true, Ordering::Relaxed);
        let Ok(datagrams) = listening.join() else { bail!("the listener panicked") };
        Ok(Heard { console: console?, datagrams })
    })
}
