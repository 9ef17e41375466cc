//! `cargo xtask check`: everything about the code that needs no run of it.

use std::{
    io::IsTerminal as _,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Result, bail};

use crate::{
    build, deploy, generate,
    process::{self, seconds},
    tidy,
    toolchain::{self, deny},
    workspace,
};

/// Check format, lints, licences, documentation, generated files and house rules; report all failures together.
///
/// The kernel side is linted by its own compiler. Known vulnerabilities (cargo-deny's advisories) need a database from
/// the network and are left to the public workflow.
#[derive(clap::Args)]
#[command(
    after_help = "Checks: fmt, clippy, clippy of the kernel side, cargo-deny (bans, licenses, sources), rustdoc,\n\
    generated files fresh, deploy (chart, alerts), tidy. The rules of tidy are listed in xtask/src/tidy/mod.rs."
)]
pub(crate) struct Options {
    /// Names of the checks to run, such as `tidy`; all if none is named.
    #[arg(value_name = "CHECK")]
    only: Vec<String>,
}

/// Lines of a failed check's output that are shown.
const SHOWN_LINES: usize = 400;

type Check = (&'static str, fn() -> Result<()>);

/// Fast ones first.
const CHECKS: &[Check] = &[
    ("fmt", format),
    ("tidy", tidy::run),
    ("deny", deny),
    ("clippy", lint),
    ("kernel", lint_kernel_side),
    ("docs", document),
    ("gen", generate::check),
    ("deploy", deploy::check),
];

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let known = |name: &String| CHECKS.iter().any(|(known, _)| known == name);
    if let Some(unknown) = options.only.iter().find(|name| !known(name)) {
        let names: Vec<_> = CHECKS.iter().map(|(name, _)| *name).collect();
        bail!("choose checks: there is no check `{unknown}`; there are {}", names.join(", "));
    }
    let mut failures = Vec::new();
    for (name, check) in CHECKS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        process::say(format_args!("check {name}"));
        let start = Instant::now();
        let done = check();
        let verdict = if done.is_ok() { "ok" } else { "FAILED" };
        process::say(format_args!("check {name}: {verdict} ({})", seconds(start.elapsed())));
        failures.extend(done.err().map(|error| (*name, error)));
    }
    for (name, error) in &failures {
        println!("\n--- {name} ---\n{error:#}");
    }
    let names: Vec<_> = failures.iter().map(|(name, _)| *name).collect();
    if names.is_empty() {
        println!("all checks hold");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nchecks that failed: {}", names.join(", "));
    Ok(ExitCode::FAILURE)
}

fn format() -> Result<()> {
    quiet(workspace::cargo().args(["fmt", "--all", "--check"]), "check the format; `cargo fmt` mends it")
}

fn lint() -> Result<()> {
    let mut command = workspace::cargo();
    command.arg("clippy");
    for package in [
        "detector",
        "detector-common",
        "detector-provoke",
        "xtask",
        "detector-kernel-tests",
        "detector-cluster-tests",
        "detector-vm-tests",
    ] {
        command.args(["--package", package]);
    }
    quiet(command.args(["--keep-going", "--all-targets", "--", "-D", "warnings"]), "lint")?;
    // Each feature alone, because the controller must build without the agent.
    for feature in ["agent", "controller"] {
        let mut command = workspace::cargo();
        command.args(["clippy", "--package", "detector", "--no-default-features", "--features", feature]);
        quiet(command.args(["--", "-D", "warnings"]), &format!("lint with feature {feature} alone"))?;
    }
    Ok(())
}

fn lint_kernel_side() -> Result<()> {
    let toolchain = toolchain::ensure()?;
    let subcommand = if toolchain.ensure_clippy() {
        "clippy"
    } else {
        process::say("no clippy for the kernel side's compiler: `cargo check` with warnings as errors instead");
        "check"
    };
    let mut command = toolchain.cargo(subcommand, "-D warnings");
    command.args(["--profile", "bpf", "--target-dir"]).arg(build::kernel_target());
    quiet(&mut command, "lint the kernel side")
}

fn deny() -> Result<()> {
    let mut command = Command::new(deny::ensure()?);
    command.current_dir(workspace::root()).args(["--log-level", "warn", "check", "bans", "licenses", "sources"]);
    quiet(&mut command, "check dependencies against deny.toml")
}

fn document() -> Result<()> {
    let mut command = workspace::cargo();
    command.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--no-deps"]);
    quiet(&mut command, "build the documentation")
}

/// Runs a command whose output is wanted only if it fails, and then at the end, beside that of other failures.
fn quiet(command: &mut Command, attempt: &str) -> Result<()> {
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let output = process::output(command, attempt)?;
    if output.status.success() {
        return Ok(());
    }
    let said = process::last_lines(&process::both_streams(&output), SHOWN_LINES);
    bail!("{attempt}: `{}` ended with {}; it said:\n{said}", process::shown(command), output.status)
}
