//! Looks after tasks that an earlier run of the agent told to hang, until the flow sees them itself or they are over.

use std::{path::Path, rc::Rc, time::Duration};

use crate::{
    agent::{
        sink::condition::{Conditions, Restored, deliver::Desk},
        source::task::{self, Look, State},
    },
    clock,
};

/// Time between two looks. There are none once nothing is left to look after.
const INTERVAL: Duration = Duration::from_secs(10);

/// The kernel tells the start of a task exactly, `/proc` in ticks of user space.
const TICK_NS: u64 = clock::USER_TICK_NS;

/// Looks until all of them are over, or were seen by the flow.
pub(super) async fn look_after(conditions: Rc<Desk>) {
    loop {
        let restored = conditions.ask(Conditions::restored_hangs);
        if restored.is_empty() {
            return;
        }
        for task in restored {
            let Ok(look) = task::look(Path::new("/"), task.tid) else { continue };
            let now = clock::boot_ns();
            conditions.tell(|conditions| match switches_if_hanging(look, &task) {
                Some(switches) => conditions.still_hangs(task.tid, task.start_ns, switches, now),
                None => conditions.ended(task.tid, task.start_ns, now),
            });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// How often the task was switched away from, if this may be the one that hung, and it has not run since.
fn switches_if_hanging(look: Look, task: &Restored) -> Option<u64> {
    let Look::Seen(seen) = look else { return None };
    let is_same = task.start_ns.is_none_or(|start| start.abs_diff(seen.start_ns) <= TICK_NS);
    let stands = seen.state == State::Uninterruptible && task.switches.is_none_or(|switches| switches == seen.switches);
    (is_same && stands).then_some(seen.switches)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::agent::source::task::Seen;

    fn look(state: State, switches: u64, start_ns: u64) -> Look {
        Look::Seen(Seen { tgid: 7, comm: [0; 16], switches, start_ns, state })
    }

    #[rstest]
    #[case::it_stands(look(State::Uninterruptible, 42, 90_000_000), Some(42))]
    #[case::it_ran_and_waits_again(look(State::Uninterruptible, 43, 90_000_000), None)]
    #[case::it_runs(look(State::Other, 42, 90_000_000), None)]
    #[case::it_is_dead(look(State::Dead, 42, 90_000_000), None)]
    #[case::another_task(look(State::Uninterruptible, 42, 80_000_000), None)]
    #[case::it_is_gone(Look::Gone, None)]
    fn a_task_hangs_as_long_as_the_same_one_stands_without_a_switch(#[case] look: Look, #[case] hangs: Option<u64>) {
        let task = Restored { tid: 7, start_ns: Some(95_000_000), switches: Some(42) };
        assert_eq!(switches_if_hanging(look, &task), hangs);
    }

    #[test]
    fn of_a_task_without_a_known_number_of_switches_the_first_look_tells_it() {
        let task = Restored { tid: 7, start_ns: None, switches: None };
        assert_eq!(switches_if_hanging(look(State::Uninterruptible, 9, 1), &task), Some(9));
    }
}
