//! Modules that a guest with a disk and a network needs, out of an unpacked kernel package, in the order of loading.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Modules by name; what a kernel has built in is not among its files. For the disk, the network, the containers' layers,
/// and file systems that a test may freeze.
const WANTED: [&str; 6] = ["virtio_pci", "virtio_blk", "virtio_net", "ext4", "overlay", "loop"];

/// The line of a module's information that names what it depends on (`include/linux/module.h`, section `.modinfo`).
const DEPENDS: &[u8] = b"depends=";

/// Unpacks what is wanted out of `files`, all files of a kernel, into `directory`: `00-virtio.ko` and so on, sorted as they
/// must be loaded.
pub(super) fn take_out(files: &[PathBuf], directory: &Path) -> Result<()> {
    take_out_these(&WANTED, files, directory)
}

/// The same for modules of these names, each behind those that it depends on.
pub(super) fn take_out_these(names: &[&str], files: &[PathBuf], directory: &Path) -> Result<()> {
    let mut ordered = Vec::new();
    for name in names {
        add(name, files, &mut ordered)?;
    }
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    for (number, (name, content)) in ordered.iter().enumerate() {
        let path = directory.join(format!("{number:02}-{name}.ko"));
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// What [`take_out`] left, in the order of loading.
pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Adds a module behind those that it depends on.
fn add(name: &str, files: &[PathBuf], ordered: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    if ordered.iter().any(|(known, _)| known == name) {
        return Ok(());
    }
    let Some(file) = files.iter().find(|file| module_name(file).as_deref() == Some(name)) else { return Ok(()) };
    let content = read(file)?;
    for needed in depends(&content) {
        add(&needed, files, ordered)?;
    }
    ordered.push((name.to_owned(), content));
    Ok(())
}

/// `virtio-rng.ko.xz` is the module `virtio_rng`.
fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let stem = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz"))?;
    Some(stem.replace('-', "_"))
}

/// The module, unpacked.
pub(super) fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|ending| ending != "xz") {
        return fs::read(file).with_context(|| format!("reading {}", file.display()));
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(file).output().context("running xz")?;
    ensure!(output.status.success(), "xz could not unpack {}", file.display());
    Ok(output.stdout)
}

fn depends(module: &[u8]) -> Vec<String> {
    // Lines of the section end with a NUL; the one before it shows that this is the beginning of a line.
    let starts = |window: &[u8]| window[0] == 0 && window[1..].starts_with(DEPENDS);
    let Some(at) = module.windows(DEPENDS.len() + 1).position(starts) else { return Vec::new() };
    let line = module[at + 1 + DEPENDS.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(line);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_modules_own_information() {
        let module = b"\x7fELF..no_depends=x\0license=GPL\0depends=virtio,virtio-ring\0retpoline=Y\0";
        assert_eq!(depends(module), ["virtio", "virtio_ring"]);
        assert!(depends(b"\0depends=\0").is_empty());
        assert!(depends(b"nothing").is_empty());
    }

    #[test]
    fn a_module_is_known_by_its_file() {
        assert_eq!(module_name(Path::new("/lib/virtio-rng.ko.xz")).as_deref(), Some("virtio_rng"));
        assert_eq!(module_name(Path::new("/lib/modules.dep")), None);
    }
}
