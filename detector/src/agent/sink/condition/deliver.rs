//! Carries the writes of [`Conditions`] to the API server, one at a time, and the answers back.

use std::{
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    super::delivery::Next,
    Conditions,
    write::{ConditionWrite, NodeCondition, Standing},
};
use crate::cluster::Outcome;

/// What is asked of the API server about one Node. The outcome of what failed is never [`Outcome::Done`].
pub trait NodeApi {
    /// Conditions of our types that stand there, found without the right to get Nodes.
    fn read(&self) -> impl Future<Output = Result<Vec<Standing>, Outcome>> + Send;

    /// Leaves these conditions of ours there, and no others.
    fn apply(&self, conditions: &[NodeCondition]) -> impl Future<Output = Outcome> + Send;

    /// Deletes the conditions of these types, whoever wrote them.
    fn delete(&self, kinds: &[&str]) -> impl Future<Output = Outcome> + Send;
}

/// The conditions, shared by the flow that tells of hangs and the task that writes.
#[derive(Debug)]
pub struct Desk {
    conditions: Mutex<Conditions>,
    changed: Notify,
}

impl Desk {
    /// Takes the conditions in its care.
    #[must_use]
    pub fn new(conditions: Conditions) -> Self {
        Self { conditions: Mutex::new(conditions), changed: Notify::new() }
    }

    /// Tells the conditions something, and wakes the writer. Never waits for the API server.
    pub fn tell<T>(&self, tell: impl FnOnce(&mut Conditions) -> T) -> T {
        let answer = tell(&mut self.lock());
        self.changed.notify_one();
        answer
    }

    /// Asks the conditions something.
    pub fn ask<T>(&self, ask: impl FnOnce(&Conditions) -> T) -> T {
        ask(&self.lock())
    }

    /// Nobody panics while holding it; if somebody did, the state is whole nevertheless.
    fn lock(&self) -> MutexGuard<'_, Conditions> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes all requests that are due, for ever; it is ended by dropping it. `clock` tells nanoseconds since boot; `answered`
/// is told how each request ended, for log and metrics.
pub async fn run<A: NodeApi>(
    desk: &Desk,
    api: &A,
    clock: impl Fn() -> u64,
    mut answered: impl FnMut(&ConditionWrite, &Outcome),
) {
    loop {
        let changed = desk.changed.notified();
        match turn(desk, api, &clock, &mut answered).await {
            Some(at_ns) => {
                let wait = Duration::from_nanos(at_ns.saturating_sub(clock()));
                // Either way it is time to look again.
                tokio::time::timeout(wait, changed).await.ok();
            }
            None => changed.await,
        }
    }
}

/// Makes the requests that are due now, and tells when to look again; `None`: when something has changed.
pub async fn turn<A: NodeApi>(
    desk: &Desk,
    api: &A,
    clock: impl Fn() -> u64,
    mut answered: impl FnMut(&ConditionWrite, &Outcome),
) -> Option<u64> {
    loop {
        // Not in the head of the match: there the lock would be held until the answer.
        let next = desk.lock().next(clock());
        let write = match next {
            Next::Write(write) => write,
            Next::At(at_ns) => return Some(at_ns),
            Next::Nothing => return None,
        };
        let outcome = match &write {
            ConditionWrite::Read => match api.read().await {
                Ok(standing) => {
                    desk.lock().adopt(&standing, clock());
                    answered(&write, &Outcome::Done);
                    continue;
                }
                Err(outcome) => outcome,
            },
            ConditionWrite::Apply(conditions) => api.apply(conditions).await,
        };
        desk.lock().done(outcome.clone(), clock());
        // Last, so that who is told sees what still waits.
        answered(&write, &outcome);
    }
}

/// Removes all conditions of ours from the Node.
///
/// An apply without conditions removes the fields that are ours alone. Where another writer once wrote the same, or made the
/// condition, something stays: at worst a shell without a status. What is left of our types is therefore deleted, whoever
/// owns it; a writer that still lives writes it anew with its next heartbeat.
pub async fn withdraw<A: NodeApi>(api: &A) -> Outcome {
    let applied = api.apply(&[]).await;
    if applied != Outcome::Done {
        return applied;
    }
    let left = match api.read().await {
        Ok(standing) => standing,
        Err(outcome) => return outcome,
    };
    let kinds: Vec<&str> = left.iter().map(|found| found.kind.as_str()).collect();
    if kinds.is_empty() { Outcome::Done } else { api.delete(&kinds).await }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::VecDeque};

    use serde_json::{Value, json};

    use super::{
        super::{Setup, tests::setup, write},
        *,
    };

    /// Answers by a script; what it does not say is done. Keeps what was asked.
    #[derive(Default)]
    struct Script {
        answers: Mutex<VecDeque<Outcome>>,
        standing: Mutex<Vec<Standing>>,
        asked: Mutex<Vec<Value>>,
    }

    impl Script {
        fn answers(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
            Self { answers: Mutex::new(outcomes.into_iter().collect()), ..Self::default() }
        }

        fn answer(&self, asked: Value) -> Outcome {
            self.asked.lock().unwrap().push(asked);
            self.answers.lock().unwrap().pop_front().unwrap_or(Outcome::Done)
        }

        fn asked(&self) -> Vec<Value> {
            self.asked.lock().unwrap().clone()
        }
    }

    impl NodeApi for Script {
        async fn read(&self) -> Result<Vec<Standing>, Outcome> {
            match self.answer(json!("read")) {
                Outcome::Done => Ok(self.standing.lock().unwrap().clone()),
                outcome => Err(outcome),
            }
        }

        async fn apply(&self, conditions: &[NodeCondition]) -> Outcome {
            let kinds: Vec<_> = conditions.iter().map(|c| format!("{}={}", c.kind(), c.status())).collect();
            self.answer(json!(kinds))
        }

        async fn delete(&self, kinds: &[&str]) -> Outcome {
            self.answer(write::delete_body(kinds))
        }
    }

    fn retry() -> Outcome {
        Outcome::Retry { after: Some(Duration::from_secs(7)), reason: "busy".into() }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn at_the_start_it_reads_then_writes_then_waits_for_the_heartbeat() {
        let Setup { config, .. } = setup();
        let (api, desk) = (Script::default(), Desk::new(Conditions::new(setup(), 0)));
        let at_ns = block_on(turn(&desk, &api, || 0, |_, _| ())).unwrap();
        assert_eq!(
            api.asked(),
            [json!("read"), json!(["KernelDeadlock=False", "TaskHung=False", "PreviousBootCrash=False"])]
        );
        assert!(u128::from(at_ns) >= config.heartbeat.as_nanos());
    }

    #[test]
    fn a_failed_write_is_made_again_not_before_the_server_said() {
        let (api, now) = (Script::answers([Outcome::Done, retry()]), Cell::new(0));
        let desk = Desk::new(Conditions::new(setup(), 0));
        let told = Cell::new(0);
        let answered = |_: &ConditionWrite, _: &Outcome| told.set(told.get() + 1);
        let at_ns = block_on(turn(&desk, &api, || now.get(), answered)).unwrap();
        assert!((7_000_000_000..=10_500_000_000).contains(&at_ns), "{at_ns}");
        assert_eq!(api.asked().len(), 2);
        now.set(at_ns);
        block_on(turn(&desk, &api, || now.get(), answered));
        assert_eq!((api.asked().len(), told.get()), (3, 3));
    }

    #[test]
    fn what_is_told_wakes_the_writer() {
        let desk = Desk::new(Conditions::new(setup(), 0));
        let woken = block_on(async {
            let changed = desk.changed.notified();
            desk.tell(|_| ());
            changed.await;
            true
        });
        assert!(woken);
    }

    #[test]
    fn withdrawing_deletes_what_the_apply_left() {
        let api = Script::default();
        assert_eq!(block_on(withdraw(&api)), Outcome::Done);
        assert_eq!(api.asked(), [json!([]), json!("read")]);
        let api = Script::default();
        *api.standing.lock().unwrap() = vec![Standing { kind: "KernelDeadlock".into(), ..Standing::default() }];
        assert_eq!(block_on(withdraw(&api)), Outcome::Done);
        assert_eq!(api.asked(), [json!([]), json!("read"), write::delete_body(&["KernelDeadlock"])]);
    }

    #[test]
    fn a_withdrawal_that_is_refused_says_so() {
        let refused = Outcome::Final("no".into());
        assert_eq!(block_on(withdraw(&Script::answers([refused.clone()]))), refused);
        assert_eq!(block_on(withdraw(&Script::answers([Outcome::Done, refused.clone()]))), refused);
    }
}
