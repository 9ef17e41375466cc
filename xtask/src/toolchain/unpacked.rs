//! Debian packages that are unpacked below the cache instead of installed: for guests, and for servers that must not start
//! by themselves on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::vm::{apt::Apt, command::output, kernels};

/// Where the packages are: one release, whatever this machine runs.
const SUITES: [&str; 2] = ["bookworm", "bookworm-security"];

/// File that says that a directory is complete, and what is in it.
const STAMP: &str = "packages";

/// The newest versions of `packages`, unpacked into one tree below `cache/NAME`; gives its root.
pub(crate) fn provide(cache: &Path, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let directory = cache.join(name);
    let unpacked = directory.join("unpacked");
    if !kernels::is_fresh(&directory.join(STAMP)) {
        // Without network, last week's packages are better than none.
        match fetch(cache, &directory, &unpacked, packages) {
            Err(cause) if directory.join(STAMP).exists() => println!("no newer {name} looked for: {cause:#}"),
            outcome => outcome.with_context(|| format!("providing {name}"))?,
        }
    }
    Ok(unpacked)
}

fn fetch(cache: &Path, directory: &Path, unpacked: &Path, packages: &[&str]) -> Result<()> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let apt = Apt::configure(&cache.join(format!("apt-{name}")), &SUITES)?;
    apt.update()?;
    println!("downloads {}", packages.join(", "));
    let archives = directory.join("archives");
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(&archives)?;
    for package in packages {
        apt.download(package, &archives).with_context(|| format!("downloading {package}"))?;
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&archives)? {
        let file = entry?.path();
        output(Command::new("dpkg-deb").arg("-x").arg(&file).arg(unpacked))?;
        names.extend(file.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    fs::remove_dir_all(&archives)?;
    names.sort();
    Ok(fs::write(directory.join(STAMP), names.join("\n"))?)
}
