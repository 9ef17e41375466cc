//! What kdump left: a directory for each crash, with the log of the kernel that crashed.
//!
//! ```text
//! /var/crash/127.0.0.1-2026-11-22-12:00:00/vmcore-dmesg.txt     Red Hat and relatives
//! /var/crash/202611221200/dmesg.202611221200                    Debian, Ubuntu
//! /var/crash/2026-11-22-12:00/dmesg.txt                         SUSE
//! ```
//!
//! With kdump the kernel most often says no `Kernel panic`: the crash kernel takes over before. That there is a dump tells
//! that it died. Nothing is deleted.

use std::path::Path;

use jiff::Timestamp;

use super::{
    directory::{self, Entry, Failed},
    piece::plausible,
};
use crate::{agent::source::small_file::under, digest::Digest};

/// Where all of them put it, unless they are told otherwise.
pub const PLACE: &str = "/var/crash";

/// Directories that are looked at, the newest first.
const CRASHES: usize = 16;
/// Files of one directory that are looked at.
const FILES: usize = 32;
/// Bytes of a log that are read: its end says what happened.
const LOG_BYTES: u64 = 64 << 10;

/// A crash that kdump wrote down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Name of its directory.
    pub name: String,
    /// When the log was written: some seconds after the crash.
    pub at: Option<Timestamp>,
    /// The end of the log; empty: there is a dump of the memory only.
    pub text: String,
    /// Tells it from all others: of the name, which has the time in it. Logs are packed or completed later on.
    pub digest: u64,
}

/// Reads all below `root`, the oldest first; what cannot be read is told to `failed` and left out.
pub fn read(root: &Path, failed: &mut Failed<'_>) -> Vec<Crash> {
    let place = under(root, PLACE);
    let owner = match directory::owner(&place) {
        Ok(Some(owner)) => owner,
        Ok(None) => return Vec::new(),
        Err(error) => {
            failed(&place, error);
            return Vec::new();
        }
    };
    let entries = directory::newest(&place, owner, CRASHES, failed);
    let directories = entries.into_iter().filter(|entry| entry.is_directory);
    let mut crashes: Vec<Crash> = directories.filter_map(|entry| crash(&entry, owner, failed)).collect();
    crashes.sort_by_key(|crash| crash.at);
    crashes
}

fn crash(directory: &Entry, owner: u32, failed: &mut Failed<'_>) -> Option<Crash> {
    let files = directory::newest(&directory.path, owner, FILES, failed);
    let file = |is: fn(&str) -> bool| files.iter().find(|file| !file.is_directory && is(&file.name));
    let (at, text) = match (file(is_log), file(is_core)) {
        (Some(log), _) => match directory::tail(&log.path, owner, LOG_BYTES) {
            Ok((bytes, changed)) => (changed, String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => {
                failed(&log.path, error);
                return None;
            }
        },
        (None, Some(core)) => (core.changed, String::new()),
        (None, None) => return None,
    };
    let digest = Digest::EMPTY.with(b"kdump").with(directory.name.as_bytes()).value();
    Some(Crash { name: directory.name.clone(), at: at.and_then(plausible), text, digest })
}

fn is_log(name: &str) -> bool {
    let is_packed = [".gz", ".xz", ".zst"].iter().any(|end| name.ends_with(end));
    let is_named = matches!(name, "vmcore-dmesg.txt" | "vmcore-dmesg-incomplete.txt" | "dmesg.txt");
    is_named || name.starts_with("dmesg.") && !is_packed
}

/// What tells that there was a crash, without its words: a dump, or a log that was packed.
fn is_core(name: &str) -> bool {
    let beginnings = ["vmcore.", "vmcore-incomplete", "vmcore-dmesg", "dump.", "dmesg."];
    name == "vmcore" || beginnings.iter().any(|beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<Crash> {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = under(root.path(), &format!("{PLACE}/{path}"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        read(root.path(), &mut |path, error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn each_distributions_directory_is_a_crash() {
        for path in ["127.0.0.1-2026-11-22-12:00:00/vmcore-dmesg.txt", "202611221200/dmesg.202611221200", "x/dmesg.txt"]
        {
            let crashes = found(&[(path, "[1.000000] BUG: x\n"), ("crash.log", "")]);
            assert_eq!(crashes.len(), 1, "{path}");
            assert_eq!(crashes[0].text, "[1.000000] BUG: x\n");
            assert!(crashes[0].at.is_some());
        }
    }

    #[test]
    fn a_dump_of_the_memory_alone_is_a_crash_without_words() {
        for name in ["dump.202611221200", "vmcore", "vmcore-incomplete", "dmesg.202611221200.gz"] {
            let crashes = found(&[(&format!("202611221200/{name}"), "core"), ("empty/README.txt", "")]);
            assert_eq!(
                crashes.iter().map(|crash| (crash.name.as_str(), crash.text.as_str())).collect::<Vec<_>>(),
                [("202611221200", "")]
            );
        }
    }

    #[test]
    fn reports_of_crashed_programs_are_none() {
        assert_eq!(found(&[("_usr_bin_vim.0.crash", "x"), ("kexec_cmd", "x")]), []);
    }

    #[test]
    fn a_crash_stays_the_same_when_its_log_is_completed_or_packed_later() {
        let once = found(&[("202611221200/dump.202611221200", "core")]);
        let then =
            found(&[("202611221200/dump.202611221200", "core"), ("202611221200/dmesg.202611221200", "[1.000000] x\n")]);
        assert_eq!(once[0].digest, then[0].digest);
        assert_ne!(found(&[("202611221300/dmesg.202611221300", "[1.000000] x\n")])[0].digest, once[0].digest);
    }

    #[test]
    fn of_many_crashes_the_newest_are_read() {
        let names: Vec<String> = (0..2 * CRASHES).map(|number| format!("{number:03}/dmesg.txt")).collect();
        let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "[1.000000] x\n")).collect();
        assert_eq!(found(&files).len(), CRASHES);
    }

    #[test]
    fn a_place_that_cannot_be_entered_is_told() {
        let root = tempfile::tempdir().unwrap();
        let place = under(root.path(), PLACE);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&place, &place).unwrap();
        let mut told = Vec::new();
        assert_eq!(read(root.path(), &mut |path, _| told.push(path.to_owned())), []);
        assert_eq!(told, [place]);
    }

    #[test]
    fn of_a_long_log_the_end_is_kept() {
        let long = format!("{}\n[9.000000] the end\n", "x".repeat(1 << 20));
        let crashes = found(&[("a/vmcore-dmesg.txt", &long)]);
        assert!(crashes[0].text.len() as u64 <= LOG_BYTES && crashes[0].text.ends_with("the end\n"));
    }
}
