//! The provocations themselves, where a test's other threads could get in their way.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::Result;
use detector_provoke::{Cgroup, Hierarchy, Limits, scenario};

/// Rounds in which a fork that the C library does not know of was seen to wait for ever.
const ROUNDS: usize = 40;

#[test]
fn a_pid_namespace_is_made_while_other_threads_allocate() -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let leaf = Cgroup::make(&hierarchy, "detector-test-busy", Limits::mib(30))?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::black_box(vec![0u8; 100]);
                }
            });
        }
        let result = (0..ROUNDS).try_for_each(|_| scenario::child_in_namespace(&leaf).map(drop));
        done.store(true, Ordering::Relaxed);
        Ok(result?)
    })
}
