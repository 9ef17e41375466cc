//! Helm: a tool of the Go module `deploy/helm-tool`, compiled once per pinned version into the cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{process, workspace};

/// The module that pins the version.
const MODULE: &str = "deploy/helm-tool";

const PACKAGE: &str = "helm.sh/helm/v4/cmd/helm";

/// Places of Go outside of `PATH`, newest first.
const PLACES: [&str; 2] = ["/usr/local/go/bin/go", "/usr/lib/go/bin/go"];

/// Makes sure of Helm and gives its path.
pub(crate) fn ensure() -> Result<PathBuf> {
    let module = workspace::root().join(MODULE);
    let program = workspace::cache()?.join(format!("helm-{}", pinned(&module)?));
    if program.is_file() {
        return Ok(program);
    }
    // It gets its name only when it is whole.
    let unfinished = program.with_extension("unfinished");
    let mut command = Command::new(go()?);
    command.current_dir(&module).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "auto");
    command.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&unfinished).arg(PACKAGE);
    process::long(&mut command, "build helm", "4 minutes")?;
    fs::rename(&unfinished, &program).with_context(|| format!("put {} into the cache", program.display()))?;
    Ok(program)
}

/// Name of what is pinned: another version gets another file of the cache.
fn pinned(module: &Path) -> Result<String> {
    let mut command = Command::new("sha256sum");
    command.arg(module.join("go.mod")).arg(module.join("go.sum"));
    let sums = process::capture(&mut command, "name the pinned version of helm")?;
    Ok(sums.lines().map(|line| line.chars().take(8).collect::<String>()).collect())
}

fn go() -> Result<PathBuf> {
    let places = process::find("go").into_iter().chain(PLACES.map(PathBuf::from));
    places
        .into_iter()
        .find(|go| go.is_file())
        .with_context(|| format!("build helm ({MODULE}): there is no Go; install it"))
}
