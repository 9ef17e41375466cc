//! `/var/log/wtmp`: whether the boot before was shut down. Pure but for the reading.
//!
//! `systemd-update-utmp` writes a record at each boot and one at each shutdown in order (systemd-update-utmp.service(8)),
//! and so do other inits; last(1) tells a crash by the same two. Newer distributions write no such file any more.

use std::{io, path::Path};

use jiff::Timestamp;

use super::directory;
use crate::agent::source::small_file::under;

/// Where it is.
pub const PLACE: &str = "/var/log/wtmp";

/// Bytes from its end that are read: some thousand records.
const BYTES: u64 = 1 << 20;

/// Kinds of records (utmp(5)).
const RUN_LEVEL: i16 = 1;
const BOOT_TIME: i16 = 2;

/// Places in a record as glibc lays it out (`bits/types/struct_utmp`, utmp(5)). Where a machine with 64 bits also runs
/// programs of 32 bits, times have 32.
struct Layout {
    size: usize,
    seconds: std::ops::Range<usize>,
}

const LAYOUT: Layout = if cfg!(any(target_arch = "x86_64", target_arch = "powerpc64", target_arch = "riscv64")) {
    Layout { size: 384, seconds: 340..344 }
} else {
    Layout { size: 400, seconds: 344..352 }
};

/// Name of the user.
const USER: std::ops::Range<usize> = 44..76;

/// What it says of the boot before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// When the boot before began, by its own clock.
    pub began: Timestamp,
    /// When this boot began.
    pub next: Timestamp,
    /// When the boot before was shut down; `None`: nobody wrote that.
    pub shut_down: Option<Timestamp>,
}

/// Reads it below `root`. `Ok(None)`: there is no such file, or it has no two boots.
///
/// # Errors
/// If it cannot be read.
pub fn read(root: &Path) -> io::Result<Option<Shutdown>> {
    let path = under(root, PLACE);
    let directory = path.parent().unwrap_or(root);
    let Some(owner) = directory::owner(directory)? else { return Ok(None) };
    match directory::tail(&path, owner, BYTES / LAYOUT.size as u64 * LAYOUT.size as u64) {
        Ok((bytes, _)) => Ok(last(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the records of `bytes` say, which begin with a whole one.
#[must_use]
pub fn last(bytes: &[u8]) -> Option<Shutdown> {
    let mut boots: Option<(Option<Timestamp>, Timestamp)> = None;
    let (mut shut_down, mut before_this) = (None, None);
    for record in bytes.chunks_exact(LAYOUT.size) {
        let kind = i16::from_le_bytes([record[0], record[1]]);
        let Some(at) = time(record) else { continue };
        match kind {
            BOOT_TIME => {
                boots = Some((boots.map(|(_, last)| last), at));
                before_this = std::mem::take(&mut shut_down);
            }
            RUN_LEVEL if is_shutdown(record) => shut_down = Some(at),
            _ => {}
        }
    }
    let (began, next) = boots?;
    Some(Shutdown { began: began?, next, shut_down: before_this })
}

fn is_shutdown(record: &[u8]) -> bool {
    record.get(USER).is_some_and(|user| user.starts_with(b"shutdown\0"))
}

fn time(record: &[u8]) -> Option<Timestamp> {
    let bytes = record.get(LAYOUT.seconds)?;
    let seconds = match (<[u8; 4]>::try_from(bytes), <[u8; 8]>::try_from(bytes)) {
        // Unsigned, so that it holds beyond 2038.
        (Ok(bytes), _) => i64::from(u32::from_le_bytes(bytes)),
        (_, Ok(bytes)) => i64::from_le_bytes(bytes),
        _ => return None,
    };
    super::piece::plausible(Timestamp::from_second(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: i16, user: &str, second: u64) -> Vec<u8> {
        let mut record = vec![0; LAYOUT.size];
        record[..2].copy_from_slice(&kind.to_le_bytes());
        record[USER.start..USER.start + user.len()].copy_from_slice(user.as_bytes());
        let width = LAYOUT.seconds.len();
        record[LAYOUT.seconds].copy_from_slice(&second.to_le_bytes()[..width]);
        record
    }

    const T: u64 = 1_763_812_800;

    fn told(records: &[Vec<u8>]) -> Option<(i64, i64, Option<i64>)> {
        let Shutdown { began, next, shut_down } = last(&records.concat())?;
        Some((began.as_second() - T as i64, next.as_second() - T as i64, shut_down.map(|at| at.as_second() - T as i64)))
    }

    #[test]
    fn a_shutdown_between_two_boots_belongs_to_the_first() {
        let boot = |at| record(BOOT_TIME, "reboot", T + at);
        let down = |at| record(RUN_LEVEL, "shutdown", T + at);
        let user = record(7, "shutdown", T + 5);
        let level = record(RUN_LEVEL, "runlevel", T + 6);
        assert_eq!(told(&[boot(0), down(10), boot(20)]), Some((0, 20, Some(10))));
        assert_eq!(told(&[boot(0), user, level, boot(20), down(30)]), Some((0, 20, None)));
        assert_eq!(told(&[boot(0), down(10), boot(20), boot(30)]), Some((20, 30, None)));
        assert_eq!(told(&[boot(0), down(10)]), None);
        assert_eq!(told(&[]), None);
    }

    #[test]
    fn a_record_cut_in_two_is_left_out() {
        let mut bytes = [record(BOOT_TIME, "reboot", T), record(BOOT_TIME, "reboot", T + 9)].concat();
        bytes.extend(&record(RUN_LEVEL, "shutdown", T + 10)[..100]);
        assert!(last(&bytes).is_some());
    }

    #[test]
    fn a_machine_without_the_file_tells_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()).unwrap(), None);
        std::fs::create_dir_all(root.path().join("var/log")).unwrap();
        assert_eq!(read(root.path()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            std::hint::black_box(last(&bytes));
        }
    }
}
