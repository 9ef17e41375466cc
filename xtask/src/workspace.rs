//! Where things are: the source tree, the cache outside of it, and the cargo that runs us.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// Root of the source tree.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Build output: `$CARGO_TARGET_DIR`, else `target` in the source tree.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Cache for tools, kernels and fuzzing corpora. It is outside of the source tree, so that all clones share it.
pub(crate) fn cache() -> Result<PathBuf> {
    let named = |key: &str| env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = named("DETECTOR_CACHE")
        .or_else(|| Some(named("XDG_CACHE_HOME")?.join("detector")))
        .or_else(|| Some(named("HOME")?.join(".cache/detector")))
        .context("find a cache directory: none of DETECTOR_CACHE, XDG_CACHE_HOME and HOME is set")?;
    std::fs::create_dir_all(&cache).with_context(|| format!("make the cache directory {}", cache.display()))?;
    Ok(cache)
}

/// Target triple of programs for this machine.
pub(crate) fn triple() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// The cargo that runs us, at the root of the source tree.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    forget_package(&mut command);
    command
}

/// Takes away what `cargo run` tells a program about its own package: a build that saw it would think that the world
/// changed, and build again.
pub(crate) fn forget_package(command: &mut Command) {
    let of_package = |key: &str| {
        key.starts_with("CARGO_PKG_")
            || key.starts_with("CARGO_MANIFEST_")
            || ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"].contains(&key)
    };
    for (key, _) in env::vars_os() {
        if key.to_str().is_some_and(of_package) {
            command.env_remove(key);
        }
    }
}
