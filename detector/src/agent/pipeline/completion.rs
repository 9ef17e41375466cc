//! What a record of a kill lacks, and `/proc` still knows: the victim is dying, not gone.

use std::path::Path;

use crate::agent::{
    decode::event::{Comm, OomMark},
    source::task::{self, Look, Seen, State},
};

/// Looks the victim up, where its record tells a thread id and little else: the classic tracepoint of older kernels does
/// not know the process. A victim that is gone stays as it was told.
pub(super) fn complete(mark: &mut OomMark, root: &Path) {
    let victim = &mut mark.victim;
    let Some(tid) = victim.pid.filter(|_| victim.tgid.is_none() || victim.leader_start_ns.is_none()) else { return };
    let Some(seen) = look(root, tid).filter(|seen| began_before(seen, mark.stamp.boot_ns)) else { return };
    if victim.comm.is_some_and(|comm| comm.0 != seen.comm) {
        // Another task has the number by now, or it renamed itself: nothing to build on.
        return;
    }
    victim.comm = Some(Comm(seen.comm));
    victim.tgid = Some(seen.tgid);
    let leader = if seen.tgid == tid { Some(seen) } else { look(root, seen.tgid) };
    if let Some(leader) = leader {
        victim.leader_start_ns = victim.leader_start_ns.or(Some(leader.start_ns));
        victim.leader_comm = victim.leader_comm.or(Some(Comm(leader.comm)));
    }
}

/// Whether thread `tid` is still the task that had that number at `boot_ns`, and has not yet ended.
pub(super) fn is_alive(root: &Path, tid: u32, comm: Option<Comm>, boot_ns: u64) -> bool {
    let same = |seen: &Seen| began_before(seen, boot_ns) && comm.is_none_or(|comm| comm.0 == seen.comm);
    look(root, tid).is_some_and(|seen| seen.state != State::Dead && same(&seen))
}

/// A task that cannot be looked at is as good as gone.
fn look(root: &Path, tid: u32) -> Option<Seen> {
    match task::look(root, tid) {
        Ok(Look::Seen(seen)) => Some(seen),
        Ok(Look::Gone) | Err(_) => None,
    }
}

/// Else the thread id was given to another task since.
fn began_before(seen: &Seen, boot_ns: u64) -> bool {
    seen.start_ns <= boot_ns
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::agent::problem::oom::fixture;

    const SECOND: u64 = 1_000_000_000;

    /// A machine on which thread 12 of process 10, called `worker` and `app`, started 5 and 4 seconds after boot.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (tid, comm, ticks) in [(12, "worker", 500), (10, "app", 400)] {
            let directory = root.path().join(format!("proc/{tid}"));
            fs::create_dir_all(&directory).unwrap();
            let status = format!(
                "Name:\t{comm}\nState:\tR (running)\nTgid:\t10\nPid:\t{tid}\nvoluntary_ctxt_switches:\t3\n\
                 nonvoluntary_ctxt_switches:\t1\n"
            );
            let zeros = "0 ".repeat(18);
            fs::write(directory.join("status"), status).unwrap();
            fs::write(directory.join("stat"), format!("{tid} ({comm}) R {zeros} {ticks} 0 0\n")).unwrap();
        }
        root
    }

    fn told(tid: u32, boot_ns: u64) -> OomMark {
        let mut mark = fixture::mark(1);
        mark.stamp.boot_ns = boot_ns;
        mark.victim.pid = Some(tid);
        (mark.victim.tgid, mark.victim.leader_start_ns) = (None, None);
        (mark.victim.comm, mark.victim.leader_comm) = (None, None);
        mark
    }

    #[test]
    fn a_thread_gets_its_process_with_name_and_start() {
        let (root, mut mark) = (machine(), told(12, 9 * SECOND));
        complete(&mut mark, root.path());
        assert_eq!((mark.victim.tgid, mark.victim.leader_start_ns), (Some(10), Some(4 * SECOND)));
        let names = [mark.victim.comm, mark.victim.leader_comm].map(|comm| comm.expect("known").to_text());
        assert_eq!(names, ["worker", "app"]);
    }

    #[test]
    fn a_number_that_another_task_has_by_now_tells_nothing() {
        let root = machine();
        let mut earlier = told(12, 3 * SECOND);
        complete(&mut earlier, root.path());
        assert_eq!(earlier.victim.tgid, None);
        let mut renamed = told(12, 9 * SECOND);
        renamed.victim.comm = Some(Comm(*b"other\0\0\0\0\0\0\0\0\0\0\0"));
        complete(&mut renamed, root.path());
        assert_eq!(renamed.victim.tgid, None);
    }

    #[test]
    fn the_dead_and_the_gone_are_not_alive() {
        let root = machine();
        assert!(is_alive(root.path(), 12, None, 9 * SECOND));
        assert!(!is_alive(root.path(), 12, None, 3 * SECOND), "another had the number then");
        assert!(!is_alive(root.path(), 12, Some(Comm([b'x'; 16])), 9 * SECOND));
        let status = root.path().join("proc/12/status");
        let dead = fs::read_to_string(&status).unwrap().replace("R (running)", "Z (zombie)");
        fs::write(&status, dead).unwrap();
        assert!(!is_alive(root.path(), 12, None, 9 * SECOND));
        assert!(!is_alive(root.path(), 99, None, 9 * SECOND));
    }

    #[test]
    fn a_victim_that_is_gone_stays_as_it_was_told() {
        let (root, mut mark) = (machine(), told(99, 9 * SECOND));
        let before = mark.clone();
        complete(&mut mark, root.path());
        assert_eq!(mark, before);
    }
}
