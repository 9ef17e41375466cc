//! `cargo xtask build`: the kernel object, and static release binaries with it inside.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{process, toolchain, toolchain::Toolchain, workspace};

/// Build the release binary: static, with the kernel object inside.
///
/// Prints path and size. Installs the kernel side's compiler if it is missing.
#[derive(clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_options: &Options) -> Result<ExitCode> {
    let binary = detector()?;
    println!("{} ({})", binary.display(), size(&binary)?);
    Ok(ExitCode::SUCCESS)
}

/// Name of the kernel object.
const OBJECT: &str = "detector-ebpf.o";

/// Static binaries.
pub(crate) struct Artifacts {
    /// The program, with a fresh kernel object inside.
    pub detector: PathBuf,
    /// `provoke`, which causes real faults.
    pub provoke: PathBuf,
    /// Example of `detector`: keeps the kernel side as the agent does, for the tests of what outlives a process.
    pub keeper: PathBuf,
}

/// Builds all of them. Costs a second when nothing changed.
pub(crate) fn release() -> Result<Artifacts> {
    let (detector, provoke) = (detector()?, provoke()?);
    let object = kernel_target().join(OBJECT);
    Ok(Artifacts { detector, provoke, keeper: keeper(&object)? })
}

/// Builds the static `keeper` and gives its path. Not in the release profile: it is tested with, not shipped, and what the
/// tests of the library have compiled will do.
fn keeper(object: &Path) -> Result<PathBuf> {
    process::say("build the keeper, static, unoptimised (usually a minute)");
    let mut command = workspace::cargo();
    command.args(["rustc", "--package", "detector", "--example", "keeper"]).env("DETECTOR_EBPF_OBJECT", object);
    // For the program alone, where other flags would have all crates compiled again. Symbols are nothing to a guest.
    command.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]);
    process::stream(&mut command, "build the keeper")?;
    let binary = workspace::target().join("debug/examples/keeper");
    if !binary.is_file() {
        bail!("build the keeper: cargo succeeded, but there is no {}", binary.display());
    }
    Ok(binary)
}

/// Builds the example that reads last words as the controller does, and gives its path. It runs on this machine, unoptimised.
pub(crate) fn reader() -> Result<PathBuf> {
    process::say("build the reader of last words, unoptimised (usually a minute)");
    let mut command = workspace::cargo();
    command.args(["build", "--package", "detector", "--example", "last_words"]);
    process::stream(&mut command, "build the reader of last words")?;
    Ok(workspace::target().join("debug/examples/last_words"))
}

/// Builds the static `detector` unoptimised and with a stub in place of the kernel object, for tests of what needs none; gives
/// its path. What the tests of the library have compiled will do.
pub(crate) fn detector_without_probes() -> Result<PathBuf> {
    process::say("build detector, static, unoptimised, without the kernel object (usually a minute)");
    let mut command = workspace::cargo();
    command.args(["rustc", "--package", "detector", "--bin", "detector"]);
    command.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]);
    process::stream(&mut command, "build detector")?;
    Ok(workspace::target().join("debug/detector"))
}

/// Builds the static `provoke` and gives its path.
pub(crate) fn provoke() -> Result<PathBuf> {
    static_binary("detector-provoke", "provoke", |_| ())
}

/// Builds the static `detector` with a fresh kernel object inside, and gives its path.
pub(crate) fn detector() -> Result<PathBuf> {
    let object = kernel_object(&toolchain::ensure()?)?;
    static_binary("detector", "detector", |command| {
        command.env("DETECTOR_EBPF_OBJECT", &object);
    })
}

/// Builds the kernel object and gives its path. Its BTF stays, debug sections go.
fn kernel_object(toolchain: &Toolchain) -> Result<PathBuf> {
    let target = kernel_target();
    process::say("build the kernel object (usually 20 s the first time)");
    let mut command = toolchain.cargo("build", "");
    command.args(["--profile", "bpf", "--target-dir"]).arg(&target);
    process::stream(&mut command, "build the kernel object")?;

    let built = target.join(toolchain::KERNEL_TARGET).join("bpf/detector-ebpf");
    let object = target.join(OBJECT);
    let stripped = target.join("detector-ebpf.o.new");
    if let Some(objcopy) = toolchain.objcopy() {
        let mut command = Command::new(objcopy);
        command.arg("--strip-debug").arg(&built).arg(&stripped);
        process::capture(&mut command, "take the debug sections out of the kernel object")?;
    } else {
        process::say("no llvm-objcopy here: the kernel object keeps its debug sections and is larger for it");
        fs::copy(&built, &stripped).with_context(|| format!("copy {}", built.display()))?;
    }
    replace_if_changed(&stripped, &object)?;
    Ok(object)
}

/// Target directory of the kernel side: its own, because its compiler is another one.
pub(crate) fn kernel_target() -> PathBuf {
    workspace::target().join("bpf")
}

/// An object that did not change keeps its time, so that nothing is built again for it.
fn replace_if_changed(new: &Path, old: &Path) -> Result<()> {
    let same = match (fs::read(new), fs::read(old)) {
        (Ok(new), Ok(old)) => new == old,
        _ => false,
    };
    if same { fs::remove_file(new) } else { fs::rename(new, old) }.with_context(|| format!("write {}", old.display()))
}

fn static_binary(package: &str, name: &str, prepare: impl Fn(&mut Command)) -> Result<PathBuf> {
    let triple = workspace::triple();
    process::say(format_args!("build {package}, static, release profile (usually 1 to 3 minutes the first time)"));
    let mut command = workspace::cargo();
    command.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS").args([
        "build",
        "--release",
        "--target",
        &triple,
        "--package",
        package,
    ]);
    prepare(&mut command);
    process::stream(&mut command, &format!("build {package}"))?;
    let binary = workspace::target().join(triple).join("release").join(name);
    if !binary.is_file() {
        bail!("build {package}: cargo succeeded, but there is no {}", binary.display());
    }
    Ok(binary)
}

fn size(path: &Path) -> Result<String> {
    let bytes = fs::metadata(path).with_context(|| format!("read the size of {}", path.display()))?.len();
    Ok(format!("{:.1} MB", bytes as f64 / 1e6))
}
