//! The VM level: boots several Debian kernels in QEMU, each with a guest that provokes faults and judges the watchers,
//! and shows one table.
//!
//! [`kernels`], [`containerd`] and [`qemu`] provide what is needed, by Debian's packages and a private [`apt`]
//! configuration; [`image`] and [`initramfs`] pack the guest; [`boot`] runs it; [`verdict`] reads its serial console;
//! [`fixture`] compares what `doctor` said; [`table`] shows the whole.

pub(crate) mod apt;
mod boot;
pub(crate) mod command;
mod containerd;
mod fixture;
mod image;
pub(crate) mod initramfs;
pub(crate) mod kernels;
pub(crate) mod qemu;
mod table;
mod verdict;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use anyhow::{Context, Result};

use crate::test::Outcome;
use kernels::Kernel;
use verdict::Verdict;

/// Guests that run at the same time; each has two CPUs of its own.
const AT_A_TIME: usize = 2;

/// Kills of the burst case.
const BURST: u32 = 1000;

/// Watchers that run side by side: a method for kills, one for hung tasks. The first stands for both probes of the
/// decision, which need the same of the kernel side.
const WATCHERS: [&str; 4] =
    ["fentry/btf_tracepoint", "raw_tracepoint/raw_tracepoint", "tracepoint/tracepoint", "kmsg/kmsg"];

/// The same with every method.
const ALL_WATCHERS: [&str; 5] = [WATCHERS[0], "kprobe/-", WATCHERS[1], WATCHERS[2], WATCHERS[3]];

/// What to run.
pub(crate) struct Options {
    /// Kernel series, as in [`kernels::SERIES`]; empty: all.
    pub(crate) series: Vec<String>,
    /// Every method on every kernel, instead of the best of each rung.
    pub(crate) full: bool,
    /// Cases; empty: all.
    pub(crate) cases: Vec<String>,
    /// Watchers, as `OOM/HUNG_TASK`; empty: those of the matrix.
    pub(crate) watchers: Vec<String>,
    /// Write down what `doctor` says, instead of comparing it.
    pub(crate) record: bool,
}

/// What one guest said.
struct Judged {
    kernel: Kernel,
    /// Its words, or why there are none.
    verdict: Result<Verdict>,
    /// From the start of the machine to its end.
    seconds: f64,
}

/// Boots the kernels and judges the watchers on each.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let series = kernels::select(&options.series)?;
    let cache = cache()?.join("vm");
    fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    qemu::require(&cache)?;
    let kernels = kernels::provide(&cache, &series)?;
    let artifacts = crate::build::release()?;
    let guest = image::build_guest("guest")?;
    let disk = image::make_disk(&cache)?;
    let mut files =
        vec![("init", guest), ("detector", artifacts.detector), ("keeper", artifacts.keeper), ("ext4.img", disk)];
    files.extend(containerd::provide(&cache)?);
    let mut judged = boot_all(&cache, kernels, &files, &parameters(options));
    for one in &mut judged {
        fixture::judge(one, options.record);
    }
    print!("{}", table::render(&judged));
    Ok(outcome(&judged))
}

/// What goes to the guest on the kernel's command line.
fn parameters(options: &Options) -> String {
    let watchers = match options.watchers.as_slice() {
        [] if options.full => ALL_WATCHERS.join(","),
        [] => WATCHERS.join(","),
        chosen => chosen.join(","),
    };
    let cases = options.cases.join(",");
    format!("detector.guest=1 detector.watchers={watchers} detector.burst={BURST} detector.cases={cases}")
}

/// A guest with a purpose of its own, outside of the matrix.
pub(crate) struct Guest<'a> {
    /// Kernel series, as in [`kernels::SERIES`].
    pub(crate) series: &'a str,
    /// Binary of `tests/vm` that becomes process 1.
    pub(crate) init: &'a str,
    /// What else it needs: name in the guest without a leading `/`, file of the host.
    pub(crate) files: Vec<(&'a str, PathBuf)>,
    /// Its memory.
    pub(crate) memory_mib: u32,
    /// More for the kernel's command line.
    pub(crate) parameters: &'a str,
}

/// What one guest left behind.
pub(crate) struct Console {
    /// Package of the kernel that ran.
    pub(crate) package: String,
    /// What it wrote to its serial console.
    pub(crate) text: String,
}

/// Builds a binary of `tests/vm`, static, and gives its path.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    image::build_guest(name)
}

/// Boots one guest and waits for its end.
pub(crate) fn run_guest(guest: Guest<'_>) -> Result<Console> {
    let cache = cache()?.join("vm");
    fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    qemu::require(&cache)?;
    let kernels = kernels::provide(&cache, &kernels::select(&[guest.series.to_owned()])?)?;
    let kernel = kernels.first().with_context(|| format!("no kernel of series {}", guest.series))?;
    let mut files = vec![("init", image::build_guest(guest.init)?)];
    files.extend(guest.files);
    let archive = initramfs::pack(&cache.join(format!("initramfs-{}", guest.init)), &files, &kernel.loop_module)?;
    let log = cache.join(format!("serial-{}.log", guest.init));
    let text = boot::run(kernel, guest.memory_mib, &archive, guest.parameters, &log)?;
    fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
    Ok(Console { package: kernel.package.clone(), text })
}

/// Directory for what is expensive to get again.
fn cache() -> Result<PathBuf> {
    let named = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("DETECTOR_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|home| home.join("detector")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/detector")))
        .context("none of DETECTOR_CACHE, XDG_CACHE_HOME and HOME is set: no place for a cache")
}

fn boot_all(cache: &Path, kernels: Vec<Kernel>, files: &[(&str, PathBuf)], parameters: &str) -> Vec<Judged> {
    let mut waiting = kernels;
    waiting.reverse();
    let (waiting, done) = (Mutex::new(waiting), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                // A poisoned lock means that the other guest's thread panicked; then this one stops too.
                while let Some(kernel) = waiting.lock().ok().and_then(|mut kernels| kernels.pop()) {
                    let judged = boot_one(cache, kernel, files, parameters);
                    if let Ok(mut done) = done.lock() {
                        done.push(judged);
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|judged| kernels::SERIES.iter().position(|series| series.name == judged.kernel.series));
    done
}

fn boot_one(cache: &Path, kernel: Kernel, files: &[(&str, PathBuf)], parameters: &str) -> Judged {
    println!("vm: {} boots {}", kernel.series, kernel.package);
    let start = std::time::Instant::now();
    let files = files.iter().filter(|(name, _)| containerd::belongs(name, kernel.series)).cloned().collect::<Vec<_>>();
    let verdict = initramfs::pack(&cache.join(format!("initramfs-{}", kernel.series)), &files, &kernel.loop_module)
        .and_then(|initramfs| {
            let log = cache.join(format!("serial-{}.log", kernel.series));
            boot::run(&kernel, boot::SMALL_MIB, &initramfs, parameters, &log)
        })
        .and_then(|log| verdict::parse(&log));
    let seconds = start.elapsed().as_secs_f64();
    match &verdict {
        Ok(verdict) => {
            println!("vm: {} passed {} failed {} in {seconds:.0} s", kernel.series, verdict.passed(), verdict.failed());
        }
        Err(cause) => println!("vm: {} gave no verdict in {seconds:.0} s: {cause:#}", kernel.series),
    }
    Judged { kernel, verdict, seconds }
}

/// Sums up; a guest without verdict is one failure.
fn outcome(judged: &[Judged]) -> Outcome {
    let sum = |count: fn(&Verdict) -> u32, without: u32| -> u32 {
        judged.iter().map(|one| one.verdict.as_ref().map_or(without, count)).sum()
    };
    Outcome { passed: sum(Verdict::passed, 0), failed: sum(Verdict::failed, 1), skipped: 0 }
}
