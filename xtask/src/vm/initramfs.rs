//! Writes an initramfs: a cpio archive of format "newc" (`Documentation/driver-api/early-userspace/buffer-format.rst`),
//! uncompressed.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Mode of a directory, an executable file, a character device (inode(7)).
const DIRECTORY: u32 = 0o04_0755;
const EXECUTABLE: u32 = 0o10_0755;
const CHARACTER_DEVICE: u32 = 0o02_0600;

/// Major and minor number of `/dev/console`, on which process 1 has its output from the start.
const CONSOLE: (u32, u32) = (5, 1);

/// Archives are padded to multiples of this.
const ALIGNMENT: usize = 4;

/// Packs `files` (name in the guest, without a leading `/`; file of the host) with their directories, and the module as
/// `loop.ko`, into `archive`.
pub(crate) fn pack(archive: &Path, files: &[(&str, PathBuf)], module: &Path) -> Result<PathBuf> {
    let file = File::create(archive).with_context(|| format!("making {}", archive.display()))?;
    let mut writer = Archive { to: BufWriter::new(file), inode: 0, directories: HashSet::new() };
    for directory in ["dev", "proc", "sys", "tmp"] {
        writer.entry(directory, DIRECTORY, (0, 0), &[])?;
    }
    writer.entry("dev/console", CHARACTER_DEVICE, CONSOLE, &[])?;
    let module = ("loop.ko", module.to_owned());
    // A guest without the program under test still judges the provocations.
    for (name, path) in files.iter().chain([&module]).filter(|(_, path)| !path.as_os_str().is_empty()) {
        let content = fs::read(path).with_context(|| format!("reading {} for the initramfs", path.display()))?;
        writer.parents(name)?;
        writer.entry(name, EXECUTABLE, (0, 0), &content)?;
    }
    writer.finish().with_context(|| format!("writing {}", archive.display()))?;
    Ok(archive.to_owned())
}

struct Archive<W> {
    to: W,
    inode: u32,
    directories: HashSet<String>,
}

impl<W: Write> Archive<W> {
    /// The directories above `name`, each once: the kernel makes none by itself.
    fn parents(&mut self, name: &str) -> Result<()> {
        for (end, _) in name.match_indices('/') {
            if self.directories.insert(name[..end].to_owned()) {
                self.entry(&name[..end], DIRECTORY, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len()).context("a file of 4 GiB or more does not fit into cpio")?;
        let length = u32::try_from(name.len() + 1)?;
        // Inode, mode, uid, gid, links, time, size, device (2), device of a node (2), length of the name, checksum.
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, length, 0];
        let mut head = String::from("070701");
        for field in fields {
            head.push_str(&format!("{field:08X}"));
        }
        head.push_str(name);
        head.push('\0');
        self.padded(head.as_bytes())?;
        self.padded(content)
    }

    fn padded(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes)?;
        let zeros = bytes.len().next_multiple_of(ALIGNMENT) - bytes.len();
        Ok(self.to.write_all(&[0; ALIGNMENT][..zeros])?)
    }

    fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.to.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_padded_and_carries_its_sizes_in_hexadecimal() {
        let mut bytes = Vec::new();
        let mut archive = Archive { to: &mut bytes, inode: 0, directories: HashSet::new() };
        archive.entry("init", EXECUTABLE, (0, 0), b"hello").expect("written");
        archive.finish().expect("finished");
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        assert_eq!(&bytes[..22], b"07070100000001000081ED");
        // Head of 110 bytes, "init" and NUL make 115, padded to 116.
        assert_eq!(&bytes[110..124], b"init\0\0hello\0\0\0");
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }

    #[test]
    fn directories_above_a_file_come_before_it_and_once() {
        let mut bytes = Vec::new();
        let mut archive = Archive { to: &mut bytes, inode: 0, directories: HashSet::new() };
        archive.parents("usr/bin/a").expect("written");
        archive.parents("usr/lib/b").expect("written");
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!((text.matches("usr\0").count(), text.matches("usr/bin\0").count()), (1, 1));
    }
}
