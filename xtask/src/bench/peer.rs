//! The peers: bpftrace's `oomkill.bt` and libbpf-tools' `oomkill` from Debian's packages, with the libraries they load.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{process, toolchain::debian};

/// Debian's packages of the peers.
const PACKAGES: &[&str] = &["bpftrace", "libbpf-tools"];

/// The programs, the script that one of them runs, and the shell without which it crashes (it asks a compiler for its
/// directories).
const FILES: [&str; 4] = ["/usr/bin/bpftrace", "/usr/sbin/oomkill.bt", "/usr/sbin/oomkill", "/bin/sh"];

/// All files of the peers, by the names under which they look for each other.
pub(super) fn files() -> Result<BTreeSet<PathBuf>> {
    debian::ensure(PACKAGES)?;
    let mut files: BTreeSet<_> = FILES.iter().map(PathBuf::from).collect();
    for program in FILES.iter().filter(|file| !file.ends_with(".bt")) {
        let told = process::capture(Command::new("ldd").arg(program), "ask which libraries a peer loads")?;
        files.extend(libraries(&told));
    }
    Ok(files)
}

/// The versions of the packages, such as `bpftrace 0.17.0-1`.
pub(super) fn versions() -> Result<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${Version}\n"]).args(PACKAGES);
    let told = process::capture(&mut query, "ask for the versions of the peers").context("read the peers' versions")?;
    Ok(told.trim().replace('\n', ", "))
}

/// Paths in what ldd(1) prints: `libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x…)` or the loader's path alone.
fn libraries(told: &str) -> Vec<PathBuf> {
    told.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_is_one_of_the_libraries_and_the_kernels_is_not() {
        let told = "\tlinux-vdso.so.1 (0x7ffc)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x7f1b)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f61)\n";
        assert_eq!(
            libraries(told),
            ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
    }
}
