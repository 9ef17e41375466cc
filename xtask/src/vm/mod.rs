//! The VM level: boots several Debian kernels in QEMU, each with a guest that provokes faults and judges the watchers,
//! and shows one table.
//!
//! [`kernels`], [`containerd`] and [`qemu`] provide what is needed, by Debian's packages and a private [`apt`]
//! configuration; [`image`] and [`initramfs`] pack the guest; [`boot`] runs it, [`abreast`] two at a time; [`report`] reads
//! what it said. Guests of their own are those whose kernels die: [`reboot`] boots again after that, [`netconsole`] and
//! [`last_words`] listen to them.

mod abreast;
pub(crate) mod apt;
mod boot;
pub(crate) mod command;
mod containerd;
mod image;
pub(crate) mod initramfs;
pub(crate) mod kernels;
mod last_words;
mod netconsole;
pub(crate) mod qemu;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::test::Outcome;
use boot::{Boot, reboot};
use kernels::Kernel;
use report::{Judged, fixture, table, verdict};

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

/// Cases with guests of their own, outside of the matrix.
const APART: [&str; 3] = [reboot::CASE, netconsole::NAME, last_words::NAME];

impl Options {
    /// Whether a case with guests of its own is to run.
    fn wants(&self, apart: &str) -> bool {
        match self.cases.as_slice() {
            [] => self.watchers.is_empty(),
            cases => cases.iter().any(|case| case == apart),
        }
    }

    /// Cases of the matrix, empty for all; `None` if only others were asked for.
    fn of_matrix(&self) -> Option<Vec<String>> {
        let cases: Vec<_> = self.cases.iter().filter(|case| !APART.contains(&case.as_str())).cloned().collect();
        (self.cases.is_empty() || !cases.is_empty()).then_some(cases)
    }

    /// Series for a case that by default runs on `usual`: where it was asked for by name, all that were; else those of the
    /// usual ones.
    fn series_for(&self, usual: &[&str]) -> Vec<String> {
        match self.series.as_slice() {
            [] => usual.iter().map(|name| (*name).to_owned()).collect(),
            named if self.cases.is_empty() => {
                named.iter().filter(|name| usual.contains(&name.as_str())).cloned().collect()
            }
            named => named.to_vec(),
        }
    }

    /// Kernels of these series.
    fn kernels_for(&self, cache: &Path, usual: &[&str]) -> Result<Vec<Kernel>> {
        let series = self.series_for(usual);
        // None named would be all.
        if series.is_empty() { Ok(Vec::new()) } else { kernels::provide(cache, &kernels::select(&series)?) }
    }
}

/// Boots the kernels and judges the watchers on each; then the cases with guests of their own.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let cache = vm_cache()?;
    qemu::require(&cache)?;
    let mut sum = Outcome::default();
    if let Some(cases) = options.of_matrix() {
        sum = sum + matrix(&cache, options, &cases)?;
    }
    if options.wants(reboot::CASE) {
        sum = sum + reboots(&cache, options.kernels_for(&cache, &reboot::SERIES)?)?;
    }
    if options.wants(netconsole::NAME) {
        // What the other cases built will do; for this one alone a quicker build.
        let alone = options.cases.iter().all(|case| case == netconsole::NAME) && !options.cases.is_empty();
        let detector = if alone { crate::build::detector_without_probes() } else { crate::build::detector() }?;
        sum = sum + netconsole::run(&cache, options.kernels_for(&cache, &netconsole::SERIES)?, &detector)?;
    }
    if options.wants(last_words::NAME) {
        sum = sum
            + last_words::run(
                &cache,
                options.kernels_for(&cache, &last_words::SERIES)?,
                !options.full && options.series.is_empty(),
            )?;
    }
    Ok(sum)
}

/// Every kernel with every watcher, in one guest for each kernel.
fn matrix(cache: &Path, options: &Options, cases: &[String]) -> Result<Outcome> {
    let kernels = kernels::provide(cache, &kernels::select(&options.series)?)?;
    let artifacts = crate::build::release()?;
    let guest = image::build_guest("guest")?;
    let disk = image::make_disk(cache)?;
    let mut files =
        vec![("init", guest), ("detector", artifacts.detector), ("keeper", artifacts.keeper), ("ext4.img", disk)];
    files.extend(containerd::provide(cache)?);
    let parameters = parameters(options, cases);
    let mut judged = abreast::each(kernels, |kernel| boot_one(cache, kernel, &files, &parameters));
    for one in &mut judged {
        fixture::judge(one, options.record);
    }
    print!("{}", table::render(&judged));
    Ok(report::outcome(&judged))
}

/// Kernels that are to panic and come back.
fn reboots(cache: &Path, kernels: Vec<Kernel>) -> Result<Outcome> {
    let (detector, guest) = (crate::build::detector()?, image::build_guest("reboot")?);
    let judged = abreast::each(kernels, |kernel| {
        println!("vm: {} boots {}, panics and boots again", kernel.series, kernel.package);
        let start = std::time::Instant::now();
        let verdict = reboot::judge(cache, &kernel, &guest, &detector);
        Judged { kernel, verdict, seconds: start.elapsed().as_secs_f64() }
    });
    print!("{}", table::render(&judged));
    Ok(report::outcome(&judged))
}

/// What goes to the guest on the kernel's command line.
fn parameters(options: &Options, cases: &[String]) -> String {
    let watchers = match options.watchers.as_slice() {
        [] if options.full => ALL_WATCHERS.join(","),
        [] => WATCHERS.join(","),
        chosen => chosen.join(","),
    };
    let cases = cases.join(",");
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
    let cache = vm_cache()?;
    qemu::require(&cache)?;
    let kernels = kernels::provide(&cache, &kernels::select(&[guest.series.to_owned()])?)?;
    let kernel = kernels.first().with_context(|| format!("no kernel of series {}", guest.series))?;
    let mut files = vec![("init", image::build_guest(guest.init)?)];
    files.extend(guest.files);
    let archive = initramfs::pack(&cache.join(format!("initramfs-{}", guest.init)), &files, &kernel.loop_module)?;
    let log = cache.join(format!("serial-{}.log", guest.init));
    let (memory, parameters) = (guest.memory_mib, guest.parameters);
    let text =
        boot::run(&Boot { kernel, memory, initramfs: &archive, parameters, log: &log, devices: &[], dies: false })?;
    fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
    Ok(Console { package: kernel.package.clone(), text })
}

/// Directory for what is expensive to get again; it is there.
fn vm_cache() -> Result<PathBuf> {
    let named = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let all = named("DETECTOR_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|home| home.join("detector")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/detector")))
        .context("none of DETECTOR_CACHE, XDG_CACHE_HOME and HOME is set: no place for a cache")?;
    let cache = all.join("vm");
    fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    Ok(cache)
}

fn boot_one(cache: &Path, kernel: Kernel, files: &[(&str, PathBuf)], parameters: &str) -> Judged {
    println!("vm: {} boots {}", kernel.series, kernel.package);
    let start = std::time::Instant::now();
    let files = files.iter().filter(|(name, _)| containerd::belongs(name, kernel.series)).cloned().collect::<Vec<_>>();
    let verdict = initramfs::pack(&cache.join(format!("initramfs-{}", kernel.series)), &files, &kernel.loop_module)
        .and_then(|initramfs| {
            let log = cache.join(format!("serial-{}.log", kernel.series));
            boot::run(&Boot {
                kernel: &kernel,
                memory: boot::SMALL_MIB,
                initramfs: &initramfs,
                parameters,
                log: &log,
                devices: &[],
                dies: false,
            })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn options(series: &[&str], cases: &[&str]) -> Options {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Options { series: owned(series), full: false, cases: owned(cases), watchers: Vec::new(), record: false }
    }

    #[test]
    fn without_a_choice_everything_runs() {
        let all = options(&[], &[]);
        assert!(APART.iter().all(|case| all.wants(case)));
        assert_eq!(all.of_matrix(), Some(Vec::new()));
        assert_eq!(all.series_for(&["6.1", "6.12"]), ["6.1", "6.12"]);
    }

    #[test]
    fn a_chosen_case_runs_alone_and_chosen_ones_run_together() {
        let one = options(&[], &[netconsole::NAME]);
        assert_eq!((one.wants(netconsole::NAME), one.wants(reboot::CASE), one.of_matrix()), (true, false, None));
        let two = options(&[], &[last_words::NAME, "hang"]);
        assert_eq!((two.wants(last_words::NAME), two.of_matrix()), (true, Some(vec!["hang".to_owned()])));
    }

    #[test]
    fn a_chosen_kernel_is_taken_where_a_case_was_named_and_else_only_where_the_case_is_at_home() {
        assert_eq!(options(&["5.10", "6.1"], &[]).series_for(&["6.1", "6.12"]), ["6.1"]);
        assert_eq!(options(&["5.10"], &[last_words::NAME]).series_for(&["6.1"]), ["5.10"]);
    }
}
