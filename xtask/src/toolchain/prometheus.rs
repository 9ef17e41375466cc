//! promtool and Prometheus: those of the machine, else Debian's package unpacked into the cache. It is not installed, because
//! its installation starts a server.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{process, toolchain::debian, workspace};

const PACKAGE: &str = "prometheus";

/// Makes sure of promtool and gives its path; `prometheus` lies beside it.
pub(crate) fn ensure_promtool() -> Result<PathBuf> {
    if let Some(installed) = process::find("promtool") {
        return Ok(installed);
    }
    let directory = workspace::cache()?.join(PACKAGE);
    let promtool = directory.join("usr/bin/promtool");
    if !promtool.is_file() {
        if !debian::is_debian() {
            bail!("test the alerts: there is no promtool; install Prometheus");
        }
        unpack(&directory).with_context(|| format!("unpack Debian's package {PACKAGE}"))?;
    }
    Ok(promtool)
}

fn unpack(directory: &Path) -> Result<()> {
    let archives = directory.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("make the directory {}", archives.display()))?;
    let mut download = Command::new("apt-get");
    download.current_dir(&archives).args(["download", "--quiet=2", PACKAGE]);
    process::long(&mut download, &format!("download {PACKAGE}"), "10 s")?;
    for entry in fs::read_dir(&archives).context("find what was downloaded")? {
        let mut command = Command::new("dpkg-deb");
        command.arg("-x").arg(entry.context("find what was downloaded")?.path()).arg(directory);
        process::capture(&mut command, "unpack it")?;
    }
    fs::remove_dir_all(&archives).context("remove what was downloaded")
}
