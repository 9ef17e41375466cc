//! Kernels of Debian's cloud flavour, one of each series: the newest that the archive has, unpacked once.

mod modules;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};

use super::{apt::Apt, command::output};

/// A series of kernels, and why it is in the matrix.
pub(crate) struct Series {
    /// Name on the command line and in the table.
    pub(crate) name: &'static str,
    choice: Choice,
}

enum Choice {
    /// This package, because it differs from the newest of its series.
    Exact(&'static str),
    /// The newest whose version begins so.
    Newest(&'static str),
}

/// All series, oldest first.
pub(crate) const SERIES: [Series; 6] = [
    // 5.10.218: the tracepoint `mark_victim` still has nothing but a pid.
    Series { name: "5.10-old", choice: Choice::Exact("linux-image-5.10.0-30-cloud-amd64") },
    Series { name: "5.10", choice: Choice::Newest("5.10.") },
    Series { name: "6.1", choice: Choice::Newest("6.1.") },
    Series { name: "6.12", choice: Choice::Newest("6.12.") },
    Series { name: "6.18", choice: Choice::Newest("6.18.") },
    Series { name: "7", choice: Choice::Newest("7.") },
];

/// Where the packages of all series are.
const SUITES: [&str; 6] =
    ["bullseye", "bullseye-security", "bookworm", "bookworm-security", "bookworm-backports", "trixie-backports"];

/// Ending of the packages' names.
const FLAVOUR: &str = "-cloud-amd64";

/// How long an unpacked package counts as the newest.
const FRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// File that says that a directory is complete, and which package is in it.
const STAMP: &str = "package";

/// Directory of the modules for guests with a disk.
const MODULES: &str = "modules";

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Name of its series.
    pub(crate) series: &'static str,
    /// Package it came from.
    pub(crate) package: String,
    /// The kernel's image.
    pub(crate) image: PathBuf,
    /// The module `loop`, unpacked.
    pub(crate) loop_module: PathBuf,
    /// Modules for a guest with disk and network, in the order of loading.
    pub(crate) modules: Vec<PathBuf>,
}

/// The series of these names, or all.
pub(crate) fn select(names: &[String]) -> Result<Vec<&'static Series>> {
    if names.is_empty() {
        return Ok(SERIES.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            let all: Vec<_> = SERIES.iter().map(|series| series.name).collect();
            let found = SERIES.iter().find(|series| series.name == name);
            found.with_context(|| format!("no kernel series {name:?}; there are {}", all.join(", ")))
        })
        .collect()
}

/// Downloads and unpacks what is not in the cache yet, or too old.
pub(crate) fn provide(cache: &Path, series: &[&'static Series]) -> Result<Vec<Kernel>> {
    let stale: Vec<_> = series.iter().filter(|series| !fresh(cache, series)).collect();
    if !stale.is_empty() {
        let start = std::time::Instant::now();
        let apt = Apt::configure(&cache.join("apt"), &SUITES)?;
        // Without network, last week's kernel is better than none.
        match apt.update() {
            Ok(()) => {
                for series in &stale {
                    fetch(cache, series, &apt).with_context(|| format!("providing a kernel {}", series.name))?;
                }
            }
            Err(cause) => println!("vm: no newer kernels looked for: {cause:#}"),
        }
        println!("vm: {} kernels provided in {:.0} s", stale.len(), start.elapsed().as_secs_f64());
    }
    series.iter().map(|series| load(cache, series)).collect()
}

fn directory(cache: &Path, series: &Series) -> PathBuf {
    cache.join("kernels").join(series.name)
}

fn fresh(cache: &Path, series: &Series) -> bool {
    is_fresh(&directory(cache, series).join(STAMP)) && directory(cache, series).join(MODULES).is_dir()
}

/// Whether what a stamp stands for counts as the newest.
pub(crate) fn is_fresh(stamp: &Path) -> bool {
    let written = fs::metadata(stamp).and_then(|stamp| stamp.modified());
    written.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age < FRESH))
}

fn load(cache: &Path, series: &Series) -> Result<Kernel> {
    let directory = directory(cache, series);
    let stamp = directory.join(STAMP);
    let package = fs::read_to_string(&stamp).with_context(|| format!("reading {}", stamp.display()))?;
    let (image, loop_module) = (directory.join("vmlinuz"), directory.join("loop.ko"));
    let modules = modules::list(&directory.join(MODULES))?;
    Ok(Kernel { series: series.name, package, image, loop_module, modules })
}

fn fetch(cache: &Path, series: &Series, apt: &Apt) -> Result<()> {
    let packages = packages(series, apt)?;
    let (target, chosen) = (directory(cache, series), &packages[0]);
    let stamp = target.join(STAMP);
    if target.join(MODULES).is_dir() && fs::read_to_string(&stamp).is_ok_and(|have| have == *chosen) {
        return Ok(fs::write(&stamp, chosen)?);
    }
    println!("vm: {} downloads {chosen}", series.name);
    let unpacked = target.join("unpacked");
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    fs::create_dir_all(&unpacked)?;
    for package in &packages {
        apt.download(package, &target).with_context(|| format!("downloading {package}"))?;
    }
    for file in files(&target)?.iter().filter(|file| file.extension().is_some_and(|ending| ending == "deb")) {
        output(Command::new("dpkg-deb").arg("-x").arg(file).arg(&unpacked))?;
        fs::remove_file(file)?;
    }
    take_out(&unpacked, &target)?;
    fs::remove_dir_all(&unpacked)?;
    Ok(fs::write(&stamp, chosen)?)
}

/// Modules of these names out of the package that `kernel` came from, in the order of loading; kept in the cache as `purpose`.
pub(crate) fn more_modules(cache: &Path, kernel: &Kernel, purpose: &str, names: &[&str]) -> Result<Vec<PathBuf>> {
    let target = cache.join(format!("modules-{purpose}")).join(kernel.series);
    let (stamp, modules) = (target.join(STAMP), target.join(MODULES));
    let wanted = format!("{} {}", kernel.package, names.join(" "));
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return modules::list(&modules);
    }
    // From 7.x on modules have a package of their own.
    let package = kernel.package.replace("linux-binary-", "linux-modules-");
    println!("vm: {} downloads {package} for its modules", kernel.series);
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    let unpacked = target.join("unpacked");
    fs::create_dir_all(&unpacked)?;
    let apt = Apt::configure(&cache.join("apt"), &SUITES)?;
    apt.download(&package, &target).with_context(|| format!("downloading {package}"))?;
    for file in files(&target)?.iter().filter(|file| file.extension().is_some_and(|ending| ending == "deb")) {
        output(Command::new("dpkg-deb").arg("-x").arg(file).arg(&unpacked))?;
        fs::remove_file(file)?;
    }
    modules::take_out_these(names, &files(&unpacked)?, &modules)?;
    fs::remove_dir_all(&unpacked)?;
    fs::write(&stamp, wanted)?;
    modules::list(&modules)
}

/// Keeps the image and some modules out of everything unpacked.
fn take_out(unpacked: &Path, target: &Path) -> Result<()> {
    let all = files(unpacked)?;
    let find = |wanted: fn(&str) -> bool| {
        all.iter().find(|file| file.file_name().and_then(|name| name.to_str()).is_some_and(wanted))
    };
    let image = find(|name| name.starts_with("vmlinuz")).context("the package has no vmlinuz")?;
    fs::copy(image, target.join("vmlinuz"))?;
    let module = find(|name| name == "loop.ko" || name == "loop.ko.xz").context("the package has no module loop")?;
    let plain = target.join("loop.ko");
    fs::write(&plain, modules::read(module)?).with_context(|| format!("writing {}", plain.display()))?;
    modules::take_out(&all, &target.join(MODULES))
}

/// Packages to download, the one with the image first.
fn packages(series: &Series, apt: &Apt) -> Result<Vec<String>> {
    let newest = match series.choice {
        Choice::Exact(package) => return Ok(vec![package.to_owned()]),
        Choice::Newest(prefix) => prefix,
    };
    let images = apt.packages(&format!("linux-image-{newest}"))?;
    let version = newest_version(&images, "linux-image-", newest);
    let Some(version) = version else { bail!("no package linux-image-{newest}*{FLAVOUR}") };
    // From 7.x on the image package is empty; what it was is split in two.
    let parts = ["linux-binary-", "linux-modules-"].map(|part| format!("{part}{version}{FLAVOUR}"));
    let split = apt.packages(&parts[0])?.contains(&parts[0]) && apt.packages(&parts[1])?.contains(&parts[1]);
    Ok(if split { parts.into() } else { vec![format!("linux-image-{version}{FLAVOUR}")] })
}

/// The highest version among `names` of `<before><version>-cloud-amd64` whose version begins with `prefix` and a digit.
fn newest_version(names: &[String], before: &str, prefix: &str) -> Option<String> {
    let version = |name: &String| Some(name.strip_prefix(before)?.strip_suffix(FLAVOUR)?.to_owned());
    let mut versions: Vec<_> = names
        .iter()
        .filter_map(version)
        .filter(|version| {
            version.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .collect();
    versions.sort_by_key(|version| numbers(version));
    versions.pop()
}

/// All numbers in a version, in their order.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// All files below a directory; links are not followed.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(names: &[&str], prefix: &str) -> Option<String> {
        let names: Vec<_> = names.iter().map(|name| format!("linux-image-{name}-cloud-amd64")).collect();
        newest_version(&names, "linux-image-", prefix)
    }

    #[test]
    fn the_newest_version_is_found_by_numbers_not_by_letters() {
        assert_eq!(
            newest(&["6.12.43+deb12", "6.12.117+deb12", "6.12.94+deb12"], "6.12.").as_deref(),
            Some("6.12.117+deb12")
        );
        assert_eq!(newest(&["5.10.0-9", "5.10.0-46", "5.10.0-30"], "5.10.").as_deref(), Some("5.10.0-46"));
    }

    #[test]
    fn a_package_without_full_version_is_not_a_kernel() {
        assert_eq!(newest(&["6.1", "6.1.x"], "6.1."), None);
    }

    #[test]
    fn a_releases_own_kernel_is_newer_than_its_copy_for_the_release_before() {
        assert_eq!(newest(&["6.1.0-0.deb11.60", "6.1.0-56"], "6.1.").as_deref(), Some("6.1.0-56"));
    }

    #[test]
    fn an_unknown_series_is_refused_with_those_that_exist() {
        let refused = select(&["4.19".to_owned()]).err().expect("refused").to_string();
        assert!(refused.contains("4.19") && refused.contains("5.10-old, 5.10, 6.1"), "{refused}");
    }
}
