//! Guests side by side.

use std::{sync::Mutex, thread};

/// Guests that run at the same time; each has two CPUs of its own.
const AT_A_TIME: usize = 2;

/// Does `work` for each of `jobs`, so many at a time. The results are in the order of the jobs.
pub(super) fn each<J: Send, R: Send>(jobs: Vec<J>, work: impl Fn(J) -> R + Sync) -> Vec<R> {
    let mut waiting: Vec<_> = jobs.into_iter().enumerate().collect();
    waiting.reverse();
    let (waiting, done) = (Mutex::new(waiting), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                // A poisoned lock means that the other thread panicked; then this one stops too.
                while let Some((place, job)) = waiting.lock().ok().and_then(|mut jobs| jobs.pop()) {
                    let result = work(job);
                    if let Ok(mut done) = done.lock() {
                        done.push((place, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn jobs_run_side_by_side_and_results_keep_their_order() {
        // It opens only if all threads stand before it.
        let barrier = Barrier::new(AT_A_TIME);
        let results = each((0..2 * AT_A_TIME).collect(), |job| {
            barrier.wait();
            job
        });
        assert_eq!(results, (0..2 * AT_A_TIME).collect::<Vec<_>>());
    }
}
