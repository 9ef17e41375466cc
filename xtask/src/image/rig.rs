//! Images for nodes of the test cluster: one that causes faults, and the one that holds a pod's namespaces.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::layout::{Content, Image};
use crate::process;

/// What holds a pod's namespaces; containerd is configured with it.
pub(crate) const PAUSE: &str = "rig.local/pause:1";

/// busybox with all its tools in `/bin`, `/provoke` (`tests/provoke`) and `/contained` (`tests/vm/src/bin/contained.rs`).
pub(crate) const PROVOKE: &str = "rig.local/provoke:1";

/// Programs of the images.
pub(crate) struct Programs {
    /// busybox, static.
    pub(crate) busybox: PathBuf,
    /// `provoke`, static.
    pub(crate) provoke: PathBuf,
    /// `contained`, static: eats memory until it is killed.
    pub(crate) contained: PathBuf,
}

/// Both images.
pub(crate) fn images(programs: &Programs) -> Result<[Image; 2]> {
    let image = |name: &str, content, entrypoint: &[&str]| Image {
        name: name.to_owned(),
        created: super::UNKNOWN_TIME.to_owned(),
        content,
        entrypoint: entrypoint.iter().map(|word| (*word).to_owned()).collect(),
        labels: vec![("org.opencontainers.image.title", name.to_owned())],
    };
    let contained = || ("contained".to_owned(), Content::Program(programs.contained.clone()));
    let mut tools = applets(&programs.busybox, "bin")?;
    tools.push(("provoke".to_owned(), Content::Program(programs.provoke.clone())));
    tools.extend([contained(), ("tmp".to_owned(), Content::Directory)]);
    Ok([image(PAUSE, vec![contained()], &["/contained", "pause"]), image(PROVOKE, tools, &["/bin/sleep", "infinity"])])
}

/// busybox and links to it by the names of all its tools.
pub(crate) fn applets(busybox: &Path, directory: &str) -> Result<Vec<(String, Content)>> {
    let names = process::capture(Command::new(busybox).arg("--list"), "list busybox's tools")?;
    let links = names.lines().filter(|name| *name != "busybox");
    let mut content: Vec<_> =
        links.map(|name| (format!("{directory}/{name}"), Content::Link("busybox".to_owned()))).collect();
    content.push((format!("{directory}/busybox"), Content::Program(busybox.to_owned())));
    Ok(content)
}
