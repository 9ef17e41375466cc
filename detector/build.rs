//! Embeds the kernel object that `cargo xtask` built, or a stub if a plain `cargo build` runs without it.

use std::{env, error::Error, fs, path::PathBuf};

/// Path of the kernel object; set by `cargo xtask`.
const OBJECT: &str = "DETECTOR_EBPF_OBJECT";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed={OBJECT}");
    let target = PathBuf::from(env::var("OUT_DIR")?).join("detector-ebpf.o");
    match env::var_os(OBJECT) {
        Some(object) => {
            println!("cargo:rerun-if-changed={}", PathBuf::from(&object).display());
            fs::copy(&object, &target)
                .map_err(|error| format!("copying the kernel object {}: {error}", PathBuf::from(&object).display()))?;
        }
        // An empty file says "stub"; the program then refuses to watch and names the command that builds the real one.
        None => fs::write(&target, [])?,
    }
    Ok(())
}
