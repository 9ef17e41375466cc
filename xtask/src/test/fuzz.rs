//! The level `fuzz`: each target of `detector/fuzz` for a short while, on stable Rust.
//!
//! libFuzzer needs to see which edges of the code an input reached. The compiler pass that tells is part of LLVM and can
//! be switched on from stable Rust, so no nightly is needed; what is missing against `cargo fuzz` are the sanitizers.

mod seeds;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Outcome;
use crate::{
    process,
    toolchain::debian,
    workspace::{self, triple},
};

/// How long each target runs, in seconds.
const SECONDS: u32 = 10;

/// Largest input, in bytes: above the largest record of the ring (1,088) with room for several.
const INPUT_BYTES: usize = 4096;

const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

pub(super) fn run() -> Result<Outcome> {
    let corpora = workspace::cache()?.join("fuzz");
    let mut outcome = Outcome::default();
    for target in build()? {
        match fuzz(&target, &corpora) {
            Ok(line) => {
                println!("{line}");
                outcome.passed += 1;
            }
            Err(error) => {
                println!("{error:#}");
                outcome.failed += 1;
            }
        }
    }
    Ok(outcome)
}

/// Builds all targets and gives their programs.
fn build() -> Result<Vec<PathBuf>> {
    if process::find("c++").is_none() && debian::is_debian() {
        debian::ensure(&["g++"])?;
    }
    process::say("build the fuzz targets (usually 2 to 4 minutes the first time)");
    let mut command = workspace::cargo();
    command
        .env("RUSTFLAGS", COVERAGE)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args(["build", "--package", "detector-fuzz", "--bins", "--profile", "fuzz", "--message-format", "json"])
        .args(["--target", &triple(), "--target-dir"])
        .arg(workspace::target().join("fuzz"));
    let targets = executables(&process::capture(&mut command, "build the fuzz targets")?);
    if targets.is_empty() {
        bail!("build the fuzz targets: the package detector-fuzz has none");
    }
    Ok(targets)
}

/// Programs of the package `detector-fuzz` among cargo's messages.
fn executables(messages: &str) -> Vec<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?))).collect()
}

fn fuzz(target: &Path, corpora: &Path) -> Result<String> {
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let corpus = corpora.join(&name).join("corpus");
    let findings = corpora.join(&name).join("findings");
    for dir in [&corpus, &findings] {
        fs::create_dir_all(dir).with_context(|| format!("make the directory {}", dir.display()))?;
    }
    process::say(format_args!("fuzz {name} for {SECONDS} s"));
    let mut command = Command::new(target);
    command
        .arg(format!("-max_total_time={SECONDS}"))
        .arg(format!("-max_len={INPUT_BYTES}"))
        .args(["-timeout=5", "-rss_limit_mb=1024", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .arg(&corpus);
    // Directories after the first are only read.
    let seeds = corpora.join(&name).join("seeds");
    if seeds::plant(&name, &seeds)? {
        command.arg(&seeds);
    }
    let attempt = format!("fuzz {name} (an input that breaks it is kept in {})", findings.display());
    let output = process::output(&mut command, &attempt)?;
    let said = process::both_streams(&output);
    if !output.status.success() {
        bail!("{attempt}: it ended with {}; it said:\n{}", output.status, process::last_lines(&said, 40));
    }
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")).map(str::trim);
    let Some(runs) = runs.filter(|runs| *runs != "0") else {
        bail!("{attempt}: it ended without having run a single input");
    };
    Ok(format!("fuzz {name}: {runs} inputs in {SECONDS} s, none broke it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_with_a_program_are_targets() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/t/record"}
not json"#;
        assert_eq!(executables(messages), [PathBuf::from("/t/record")]);
    }
}
