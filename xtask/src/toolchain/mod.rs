//! The compiler of the kernel side: which one this machine has, and getting it where it has none.
//!
//! Two ways lead to code for `bpfel-unknown-none`, and the build says which it takes:
//!
//! 1. rustup's nightly with `rust-src`: `core` is compiled along (`-Z build-std=core`).
//! 2. Debian's packages, which carry a prebuilt `core` for BPF.
//!
//! Both need bpf-linker, which is compiled once into the cache. `DETECTOR_BPF_TOOLCHAIN=rustup|debian` chooses by hand.

pub(crate) mod debian;
pub(crate) mod deny;
pub(crate) mod helm;
mod linker;
pub(crate) mod prometheus;
mod rustup;
pub(crate) mod unpacked;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{process, workspace};

/// Target of the kernel side on little-endian machines, the only ones served.
pub(crate) const KERNEL_TARGET: &str = "bpfel-unknown-none";

/// A compiler for the kernel side, ready to use.
pub(crate) struct Toolchain {
    way: Way,
    linker: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Rustup,
    Debian,
}

/// Makes sure that there is a compiler for the kernel side.
pub(crate) fn ensure() -> Result<Toolchain> {
    let way = choose(env::var("DETECTOR_BPF_TOOLCHAIN").ok().as_deref(), rustup::is_complete, debian::is_debian)?;
    let linker = match way {
        Way::Rustup => {
            process::say("kernel side: compiled by rustup's nightly with its rust-src");
            rustup::ensure()?;
            linker::ensure(linker::Llvm::OfRust)?
        }
        Way::Debian => {
            process::say("kernel side: compiled by Debian's Rust (package rustc-web)");
            debian::ensure(debian::KERNEL_SIDE)?;
            linker::ensure(linker::Llvm::At(Path::new(debian::LLVM)))?
        }
    };
    Ok(Toolchain { way, linker })
}

/// A nightly that is complete needs nothing more; Debian's packages are an install away; a nightly that has to be
/// fetched comes last, because not every machine may fetch one.
fn choose(wish: Option<&str>, nightly: impl Fn() -> bool, debian: impl Fn() -> bool) -> Result<Way> {
    match wish {
        Some("rustup") => Ok(Way::Rustup),
        Some("debian") => Ok(Way::Debian),
        Some(other) => bail!("read DETECTOR_BPF_TOOLCHAIN: `{other}` is neither `rustup` nor `debian`"),
        None if nightly() => Ok(Way::Rustup),
        None if debian() => Ok(Way::Debian),
        None => Ok(Way::Rustup),
    }
}

impl Toolchain {
    /// cargo for the kernel side: `subcommand` with target, flags and linker set.
    pub(crate) fn cargo(&self, subcommand: &str, extra_flags: &str) -> Command {
        let mut command = match self.way {
            Way::Rustup => rustup::cargo(),
            Way::Debian if subcommand == "clippy" => debian::command("/usr/bin/cargo-clippy"),
            Way::Debian => debian::command("/usr/bin/cargo"),
        };
        workspace::forget_package(&mut command);
        let flags =
            format!("-C debuginfo=2 -C link-arg=--btf --cfg bpf_target_arch=\"{}\" {extra_flags}", env::consts::ARCH);
        command
            .current_dir(workspace::root())
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker)
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", flags.trim_end())
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .args([subcommand, "--package", "detector-ebpf", "--target", KERNEL_TARGET]);
        if self.way == Way::Rustup {
            command.args(["-Z", "build-std=core"]);
        }
        command
    }

    /// The tool that takes debug sections out of an object, if this toolchain has one.
    pub(crate) fn objcopy(&self) -> Option<PathBuf> {
        match self.way {
            Way::Debian => Some(Path::new(debian::LLVM).join("bin/llvm-objcopy")),
            Way::Rustup => rustup::objcopy().or_else(|| process::find("llvm-objcopy")),
        }
    }

    /// Makes sure of clippy for the kernel side. False: this toolchain has none.
    pub(crate) fn ensure_clippy(&self) -> bool {
        match self.way {
            Way::Debian => debian::ensure(&["rust-web-clippy"]).is_ok(),
            Way::Rustup => rustup::has_clippy(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_nightly_comes_before_debian_and_debian_before_a_download() {
        assert_eq!(choose(None, || true, || true).ok(), Some(Way::Rustup));
        assert_eq!(choose(None, || false, || true).ok(), Some(Way::Debian));
        assert_eq!(choose(None, || false, || false).ok(), Some(Way::Rustup));
    }

    #[test]
    fn a_wish_beats_what_the_machine_has() {
        assert_eq!(choose(Some("debian"), || true, || false).ok(), Some(Way::Debian));
        assert!(choose(Some("gcc"), || true, || true).is_err());
    }
}
