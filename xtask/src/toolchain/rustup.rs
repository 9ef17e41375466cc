//! rustup's nightly: the compiler of the kernel side where it is complete, or where there is nothing else.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::process;

/// Whether nightly and its `rust-src` are installed.
pub(crate) fn is_complete() -> bool {
    sysroot().is_some_and(|root| has_source(&root))
}

/// Installs nightly with `rust-src` if it is not there.
pub(crate) fn ensure() -> Result<()> {
    if is_complete() {
        return Ok(());
    }
    let mut command = rustup(&["toolchain", "install", "nightly", "--profile", "minimal"]);
    command.args(["--component", "rust-src", "--no-self-update"]);
    process::long(&mut command, "install rustup's nightly with rust-src", "a minute")
        .context("the kernel side needs rustup's nightly with rust-src, or a Debian with the package rustc-web")
}

/// cargo of nightly.
pub(crate) fn cargo() -> Command {
    let mut command = rustup(&["run", "nightly", "cargo"]);
    command.env_remove("RUSTC").env_remove("CARGO").env_remove("LD_LIBRARY_PATH");
    command
}

/// `llvm-objcopy` of the component `llvm-tools`, if it is installed.
pub(crate) fn objcopy() -> Option<PathBuf> {
    let triple = crate::workspace::triple();
    let tool = sysroot()?.join("lib/rustlib").join(triple).join("bin/llvm-objcopy");
    tool.is_file().then_some(tool)
}

/// Whether nightly has clippy.
pub(crate) fn has_clippy() -> bool {
    sysroot().is_some_and(|root| root.join("bin/clippy-driver").is_file())
}

fn sysroot() -> Option<PathBuf> {
    let told = rustup(&["run", "nightly", "rustc", "--print", "sysroot"]).output().ok()?;
    told.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&told.stdout).trim()))
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

fn rustup(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.env_remove("RUSTUP_TOOLCHAIN").args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_without_the_source_of_core_is_not_complete() {
        let bare = std::env::temp_dir();
        assert!(!has_source(&bare));
    }
}
