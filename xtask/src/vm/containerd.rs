//! A real containerd for the guests: Debian's packages of it, of runc and of the libraries that both need, unpacked once,
//! and an archive of images with nothing but a program of ours in them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{command::output, image};
use crate::toolchain::unpacked;

const PACKAGES: [&str; 4] = ["containerd", "runc", "libc6", "libseccomp2"];

/// What a guest needs: name in the guest, file below the unpacked packages.
const FILES: [(&str, &str); 7] = [
    ("usr/bin/containerd", "usr/bin/containerd"),
    ("usr/bin/containerd-shim-runc-v2", "usr/bin/containerd-shim-runc-v2"),
    ("usr/bin/ctr", "usr/bin/ctr"),
    ("usr/sbin/runc", "usr/sbin/runc"),
    ("lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
    ("lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libc.so.6"),
    ("lib/x86_64-linux-gnu/libseccomp.so.2", "usr/lib/x86_64-linux-gnu/libseccomp.so.2"),
];

/// Name of the archive of images in the guest.
const IMAGES: &str = "images.tar";

/// Images (`tests/vm/src/container`): what runs in each. They differ, or both would get the same id.
const CONTENTS: [(&str, &str); 2] = [("pause", "pause"), ("work", "child")];

/// The only program in an image: a binary of `tests/vm`.
const PROGRAM: &str = "contained";

/// Series of kernels on which no container starts, so that nothing is packed for them: on 5.10.218 runc cannot execute
/// the copy that it makes of itself ("could not ensure we are a cloned binary: No such file or directory").
const WITHOUT: [&str; 1] = ["5.10-old"];

/// All that a guest needs to run containers: name in the guest, file of the host.
pub(super) fn provide(cache: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    let directory = cache.join("containerd");
    let unpacked = unpacked::provide(cache, "containerd", &PACKAGES)?;
    let mut files: Vec<_> = FILES.iter().map(|(name, file)| (*name, unpacked.join(file))).collect();
    files.push((IMAGES, images(&directory).context("making container images")?));
    Ok(files)
}

/// Whether the file of this name in the guest is packed for a series of kernels.
pub(super) fn belongs(name: &str, series: &str) -> bool {
    let ours = name == IMAGES || FILES.iter().any(|(file, _)| *file == name);
    !ours || !WITHOUT.contains(&series)
}

/// An archive as `docker save` makes it: one layer, two images.
fn images(directory: &Path) -> Result<PathBuf> {
    let parts = directory.join("images");
    let layer = directory.join("layer");
    for path in [&parts, &layer] {
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
        fs::create_dir_all(path)?;
    }
    fs::copy(image::build_guest(PROGRAM)?, layer.join(PROGRAM))?;
    tar(&layer, &parts.join("layer.tar"))?;
    let sum = output(Command::new("sha256sum").arg(parts.join("layer.tar")))?;
    let sum = sum.split_whitespace().next().context("sha256sum printed nothing")?;
    let mut manifest = Vec::new();
    for (name, role) in CONTENTS {
        let file = format!("{name}.json");
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": { "Entrypoint": [format!("/{PROGRAM}")], "Cmd": [role] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
        });
        fs::write(parts.join(&file), config.to_string())?;
        let tag = format!("detector.test/{name}:1");
        manifest.push(serde_json::json!({ "Config": file, "RepoTags": [tag], "Layers": ["layer.tar"] }));
    }
    fs::write(parts.join("manifest.json"), serde_json::Value::from(manifest).to_string())?;
    let archive = directory.join(IMAGES);
    tar(&parts, &archive)?;
    Ok(archive)
}

/// Packs all of a directory.
fn tar(directory: &Path, archive: &Path) -> Result<()> {
    let owner = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"];
    output(Command::new("tar").args(owner).arg("-C").arg(directory).arg("-cf").arg(archive).arg(".")).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_containerd_are_left_out_where_it_cannot_run() {
        let left_out = |name| !belongs(name, "5.10-old");
        assert_eq!([left_out("usr/sbin/runc"), left_out(IMAGES), left_out("init")], [true, true, false]);
        assert!(belongs("usr/sbin/runc", "6.12"));
    }
}
