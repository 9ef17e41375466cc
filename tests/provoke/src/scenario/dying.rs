//! A process that is already dying is marked by the OOM killer, which is no kill; then a real one follows. In a test
//! guest only, because a file system is frozen.

use std::{fs::File, path::Path};

use super::{APPETITE, EATER, Provoked, Victim};
use crate::{
    Cgroup, Error,
    frozen::Frozen,
    guest,
    memory::{eat, take},
    process::{Child, wait_until_hung},
    stage::{Part, Stage},
};

/// Name of the process that is already dying.
const DYING: &str = "oom-dying";

/// What it holds: with it the largest process below a limit of 60 MiB when the eater overruns that.
const HELD: usize = 40 << 20;

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

fn hang(file: &Path) -> i32 {
    if take(HELD).is_err() {
        return 1;
    }
    i32::from(File::create(file).is_err())
}
