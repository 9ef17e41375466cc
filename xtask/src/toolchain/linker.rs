//! bpf-linker: compiled once per version into the cache.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{process, workspace};

const VERSION: &str = "0.13.0";

/// The LLVM that bpf-linker works with. It has to read what the compiler of the kernel side wrote.
#[derive(Clone, Copy)]
pub(crate) enum Llvm<'a> {
    /// The one inside of rustup's compiler.
    OfRust,
    /// One installed under this prefix.
    At(&'a Path),
}

/// Makes sure of bpf-linker and gives its path.
pub(crate) fn ensure(llvm: Llvm<'_>) -> Result<PathBuf> {
    let name = match llvm {
        Llvm::OfRust => format!("bpf-linker-{VERSION}-rustup"),
        Llvm::At(_) => format!("bpf-linker-{VERSION}"),
    };
    let prefix = workspace::cache()?.join(name);
    let linker = prefix.join("bin/bpf-linker");
    if works(&linker) {
        return Ok(linker);
    }
    let mut command = workspace::cargo();
    command.args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--root"]).arg(&prefix);
    if let Llvm::At(llvm) = llvm {
        // Without these its build takes the prefix of the first `llvm-config` in PATH and fails to link.
        command.env("LLVM_PREFIX", llvm).env("LLVM_SYS_221_PREFIX", llvm);
        command.args(["--no-default-features", "--features", "llvm-22"]);
    }
    // Beside the tree: a target directory inside would be cleaned away with it.
    command.env("CARGO_TARGET_DIR", workspace::cache()?.join("build/bpf-linker"));
    process::long(&mut command, &format!("compile bpf-linker {VERSION}"), "2 minutes")?;
    works(&linker).then_some(()).with_context(|| format!("use {}: it does not start", linker.display()))?;
    Ok(linker)
}

/// It is there and starts, which it does not when its LLVM library went away.
fn works(linker: &Path) -> bool {
    let told = Command::new(linker).arg("--version").output();
    told.is_ok_and(|told| told.status.success() && String::from_utf8_lossy(&told.stdout).contains(VERSION))
}
