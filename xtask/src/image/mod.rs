//! `cargo xtask image`: the product as a container image, without a container engine.

pub(crate) mod layout;
pub(crate) mod rig;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{build, process, workspace};
use layout::{Content, Image};

/// Repository of the image.
const REPOSITORY: &str = "ghcr.io/detector-dev/detector";

/// The only file of the image.
const PROGRAM: &str = "detector";

/// Time of a tree without git.
const UNKNOWN_TIME: &str = "1970-01-01T00:00:00Z";

/// Build the container image: one static binary, FROM scratch.
///
/// Writes an archive that `ctr images import`, `docker load`, `podman load` and `skopeo copy oci-archive:` read. The same
/// tree and compiler give the same bytes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to write it; `target/image/detector.tar` if not given.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let binary = build::detector()?;
    let archive = options.output.clone().unwrap_or_else(|| workspace::target().join("image/detector.tar"));
    if let Some(directory) = archive.parent() {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    let digest = layout::write(&[detector(&binary)?], &archive)?;
    println!("{}\n{} {digest}", archive.display(), detector_name());
    Ok(ExitCode::SUCCESS)
}

/// Name and tag of the product's image.
pub(crate) fn detector_name() -> String {
    format!("{REPOSITORY}:{}", env!("CARGO_PKG_VERSION"))
}

/// The product's image with this binary.
pub(crate) fn detector(binary: &Path) -> Result<Image> {
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-c").arg(format!("safe.directory={}", workspace::root().display()));
        command.arg("-C").arg(workspace::root()).args(words);
        process::capture(&mut command, "ask git about the tree").map(|text| text.trim().to_owned()).ok()
    };
    // The time of the commit, not of the build: the same tree gives the same image.
    let created = git(&["log", "-1", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "--format=%cd"]);
    let mut labels = vec![
        ("org.opencontainers.image.title", "detector".to_owned()),
        (
            "org.opencontainers.image.description",
            "Tells which container the kernel's OOM killer hit and which tasks hang".to_owned(),
        ),
        ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("org.opencontainers.image.licenses", "Apache-2.0 OR MIT".to_owned()),
        ("org.opencontainers.image.source", env!("CARGO_PKG_REPOSITORY").to_owned()),
    ];
    labels.extend(git(&["rev-parse", "HEAD"]).map(|revision| ("org.opencontainers.image.revision", revision)));
    Ok(Image {
        name: detector_name(),
        created: created.unwrap_or_else(|| UNKNOWN_TIME.to_owned()),
        content: vec![(PROGRAM.to_owned(), Content::Program(binary.to_owned()))],
        entrypoint: vec![format!("/{PROGRAM}")],
        labels,
    })
}
