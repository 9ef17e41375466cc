//! A process that is already dying is marked by the OOM killer, which is no kill; then a real one follows. In a test
//! guest only, because a file system is frozen.

use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use super::{APPETITE, EATER, Provoked, Victim};
use crate::{
    Cgroup, Error, guest,
    memory::{eat, take},
    process::{Child, DEADLINE, state, until},
    stage::{Part, Stage},
};

/// Name of the process that is already dying.
const DYING: &str = "oom-dying";

/// What it holds: with it the largest process below a limit of 60 MiB when the eater overruns that.
const HELD: usize = 40 << 20;

/// `FIFREEZE` and `FITHAW` (`include/uapi/linux/fs.h`): `_IOWR('X', 119, int)`, `_IOWR('X', 120, int)`.
const FIFREEZE: u32 = 0xC004_5877;
const FITHAW: u32 = 0xC004_5878;

/// In `leaf` (limit: 60 MiB) a process holds 40 MiB and hangs in a frozen file system on `directory`, killed but unable
/// to die. Then another one overruns the limit: the kernel first marks the dying one, which frees its memory, and later
/// kills the other.
pub fn dying(leaf: &Cgroup, directory: &Path) -> Result<Provoked, Error> {
    guest::require("freezing a file system")?;
    // A stage each, so that each gets its own cue.
    let (first, second) = (Stage::new()?, Stage::new()?);
    let (held, eating) = (Part::new(leaf, DYING), Part::new(leaf, EATER));
    let file = directory.join("written-while-frozen");
    let mut dying = Child::fork(|| first.play(&held, || hang(&file)))?;
    let mut eater = Child::fork(|| second.play(&eating, || eat(APPETITE)))?;
    first.expect(1, "the process that is to hang is in the cgroup")?;
    second.expect(1, "the eater is in the cgroup")?;
    let frozen = Frozen::freeze(directory)?;
    first.cue()?;
    wait_until_hung(dying.pid())?;
    dying.kill()?;
    second.cue()?;
    eater.expect_killed("the eater")?;
    drop(frozen);
    dying.expect_killed("the process that was already dying")?;
    Ok(Provoked { victims: vec![Victim::plain(eater.pid(), EATER, leaf)], ..Provoked::default() })
}

fn wait_until_hung(pid: u32) -> Result<(), Error> {
    if until(DEADLINE, || state(pid) == Some('D')) {
        return Ok(());
    }
    Err(Error::Deadline { what: "the process hangs in the frozen file system".to_owned(), seconds: DEADLINE.as_secs() })
}

fn hang(file: &Path) -> i32 {
    if take(HELD).is_err() {
        return 1;
    }
    i32::from(File::create(file).is_err())
}

/// A frozen file system; thawed when dropped.
struct Frozen {
    root: OwnedFd,
}

impl Frozen {
    fn freeze(directory: &Path) -> Result<Self, Error> {
        let root = File::open(directory).map_err(|source| Error::Read { path: directory.into(), source })?;
        // SAFETY: FIFREEZE ignores its argument and the descriptor is open.
        if unsafe { libc::ioctl(root.as_raw_fd(), FIFREEZE as _, 0) } != 0 {
            return Err(Error::last("ioctl FIFREEZE"));
        }
        Ok(Self { root: root.into() })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // SAFETY: FITHAW ignores its argument and the descriptor is open.
        if unsafe { libc::ioctl(self.root.as_raw_fd(), FITHAW as _, 0) } != 0 {
            eprintln!("ioctl FITHAW: {}", std::io::Error::last_os_error());
        }
    }
}
