//! Debian's packages: what is missing is installed, what is there is left alone.

use std::{
    path::Path,
    process::Command,
    sync::{Mutex, Once, PoisonError},
};

use anyhow::Result;

use crate::process;

/// What compiles the kernel side: Rust with `core` for BPF, and the LLVM that bpf-linker links with.
pub(crate) const KERNEL_SIDE: &[&str] = &[
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "rust-web-llvm",
    "libpolly-22-dev",
    "libzstd-dev",
];

/// Where the LLVM of [`KERNEL_SIDE`] lives.
pub(crate) const LLVM: &str = "/usr/lib/llvm-22";

/// How long apt waits for another apt to finish, in seconds.
const LOCK_WAIT_SECONDS: u32 = 300;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static LISTS_FETCHED: Once = Once::new();

/// Whether this machine has Debian's package manager.
pub(crate) fn is_debian() -> bool {
    Path::new("/usr/bin/apt-get").exists() && Path::new("/usr/bin/dpkg-query").exists()
}

/// Installs those of `packages` that are missing, as root. The package lists are fetched only when apt cannot do with
/// those it has, and once.
pub(crate) fn ensure(packages: &[&str]) -> Result<()> {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let attempt = format!("install Debian packages {}", missing.join(" "));
    let usually = "a minute";
    let first = process::long(&mut install(&missing)?, &attempt, usually);
    if first.is_ok() || LISTS_FETCHED.is_completed() {
        return first;
    }
    process::long(
        apt()?.arg("update"),
        "fetch Debian's package lists, because apt could not do with the present ones",
        "10 s",
    )?;
    LISTS_FETCHED.call_once(|| ());
    process::long(&mut install(&missing)?, &attempt, usually)
}

/// A program of Debian's Rust. rustup's programs come first in `PATH`, so it is called by its full path and all that
/// the outer cargo set for itself is taken away.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", "/usr/bin/rustc")
        .env("CARGO", "/usr/bin/cargo")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTDOC")
        .env_remove("LD_LIBRARY_PATH");
    command
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query fails when it does not know one of them, but still tells of the others.
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]).args(packages);
    let told = process::output(&mut query, "ask which Debian packages are installed")?;
    let told = String::from_utf8_lossy(&told.stdout);
    Ok(missing_of(packages, &told))
}

fn missing_of<'a>(packages: &[&'a str], told: &str) -> Vec<&'a str> {
    let installed = |package: &str| told.lines().any(|line| line.split_once(' ') == Some((package, "installed")));
    packages.iter().copied().filter(|package| !installed(package)).collect()
}

fn install(packages: &[&str]) -> Result<Command> {
    let mut command = apt()?;
    command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    Ok(command)
}

fn apt() -> Result<Command> {
    // Through `env`, because sudo does not hand our environment on.
    let mut command = process::as_root(Path::new("/usr/bin/env"))?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"]);
    command.args(["--option", &format!("DPkg::Lock::Timeout={LOCK_WAIT_SECONDS}")]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_package_in_state_installed_counts_as_there() {
        let told = "rustc-web installed\ncargo-web config-files\n";
        assert_eq!(missing_of(&["rustc-web", "cargo-web", "llvm-22-dev"], told), ["cargo-web", "llvm-22-dev"]);
    }
}
