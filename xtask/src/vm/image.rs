//! What goes into a guest besides the program under test: process 1 and a disk.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::command::output;

/// Target of static binaries. It must be named: otherwise the flags would apply to procedural macros too, which cannot
/// be static.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Size of the disk; with its journal ext4 wants 8 MiB at least.
const DISK_BYTES: u64 = 16 << 20;

/// Builds process 1 of a guest, static: the binary `name` of `tests/vm`.
pub(super) fn build_guest(name: &str) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = ["build", "--release", "--quiet", "--package", "detector-vm-tests", "--bin", name, "--target", TARGET];
    let mut command = Command::new(cargo);
    command.args(words).current_dir(root).env("RUSTFLAGS", "-C target-feature=+crt-static");
    output(&mut command).context("building process 1 of the guest")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(TARGET).join("release").join(name))
}

/// Makes an empty ext4 that the guest may freeze.
pub(super) fn make_disk(cache: &Path) -> Result<PathBuf> {
    let path = cache.join("ext4.img");
    if !path.exists() {
        let unfinished = cache.join("ext4.img.unfinished");
        File::create(&unfinished).and_then(|file| file.set_len(DISK_BYTES)).context("making the guest's disk")?;
        output(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&unfinished))?;
        std::fs::rename(&unfinished, &path)?;
    }
    Ok(path)
}
