//! The developer's front door: `cargo xtask <command>`. Each command installs what it lacks and is safe to repeat.

mod bench;
mod build;
mod check;
mod cluster;
mod deploy;
mod generate;
mod image;
mod process;
mod run;
mod test;
mod tidy;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// Build, run, test and check detector.
///
/// Every command installs what it lacks (Debian packages as root, tools into a cache outside of the source tree), says
/// what it does, and may be repeated. The cache is $DETECTOR_CACHE, else $XDG_CACHE_HOME/detector, else
/// ~/.cache/detector.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Cli {
    Run(run::Options),
    Build(build::Options),
    Test(test::Options),
    Check(check::Options),
    Gen(generate::Options),
    Bench(bench::Options),
    Image(image::Options),
    #[command(subcommand)]
    Cluster(cluster::Command),
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Run(options) => run::run(&options),
        Cli::Build(options) => build::run(&options),
        Cli::Test(options) => test::run(&options),
        Cli::Check(options) => check::run(&options),
        Cli::Gen(options) => generate::run(&options),
        Cli::Bench(options) => bench::run(&options),
        Cli::Image(options) => image::run(&options),
        Cli::Cluster(command) => cluster::run(&command),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
