//! The whole machine runs out of memory. In a test guest only.

use super::{EATER, Provoked, Victim, burst::volunteer};
use crate::{
    Cgroup, Error,
    cgroup::free_pages,
    guest,
    memory::eat,
    process::{Child, DEADLINE, until},
    stage::{NO_PLACE, Part, Stage},
};

/// More than any test guest has.
const MORE_THAN_A_GUEST: usize = 16 << 30;

/// A process in `leaf`, which must have no limit, takes all memory of the machine. It is the kernel's first choice
/// (`oom_score_adj` 1,000).
pub fn node(leaf: &Cgroup) -> Result<Provoked, Error> {
    guest::require("running the machine out of memory")?;
    let before = free_pages()?;
    let stage = Stage::new()?;
    let part = Part::new(leaf, EATER);
    let mut eater = Child::fork(|| {
        stage.play(&part, || {
            if volunteer().is_err() {
                return NO_PLACE;
            }
            eat(MORE_THAN_A_GUEST)
        })
    })?;
    stage.expect(1, "the eater is in its cgroup")?;
    stage.cue()?;
    eater.wait_for_end()?;
    // Who looks at it in `/proc` at that moment is the last to let go of its memory, and takes a while. As long as it is not
    // reaped the kernel waits for that; then it would find nobody else to kill, and panic.
    if !until(DEADLINE, || free_pages().is_ok_and(|now| now > before / 2)) {
        let what = "the memory of the eater is free again".to_owned();
        return Err(Error::Deadline { what, seconds: DEADLINE.as_secs() });
    }
    eater.expect_killed("the eater")?;
    Ok(Provoked { victims: vec![Victim::plain(eater.pid(), EATER, leaf)], ..Provoked::default() })
}
