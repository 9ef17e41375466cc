//! Writes the events: those about incidents and Nodes before those about pods, asleep while none waits. One that fails by
//! itself waits by itself; after a failure of the server all wait.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    convert::Infallible,
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use super::Event;
use crate::{
    cluster::{Answer, Outcome, answer, request},
    contract::remediation::FIELD_MANAGER,
};

/// Events that wait at most about pods, and as many about incidents and Nodes.
pub const MAX_WAITING: usize = 4096;

/// How often one event is tried that fails by itself while the server answers others.
const ATTEMPTS: u32 = 5;

/// How long is waited after a failure, doubled each time up to the second.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What became of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Written.
    pub created: u64,
    /// Told before, by us or by an earlier leader.
    pub already_there: u64,
    /// Never to be written: refused for good, or their namespace is gone.
    pub refused: u64,
    /// Writes that failed and are tried again.
    pub failed: u64,
    /// Left out because too many waited.
    pub dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    event: Event,
    /// How often it failed by itself.
    attempts: u32,
    /// When it may be tried again, on the monotonic clock; `None`: at once.
    due: Option<Duration>,
}

/// Events that wait, and what became of others. Shared by those who live on one thread.
#[derive(Debug, Default)]
pub struct Queue {
    first: RefCell<VecDeque<Waiting>>,
    pods: RefCell<VecDeque<Waiting>>,
    counts: Cell<Counts>,
    more: Notify,
}

impl Queue {
    /// Lets `events` wait to be written.
    pub fn push(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let mut queue = self.of(&event).borrow_mut();
            if queue.len() >= MAX_WAITING {
                self.count(|counts| counts.dropped += 1);
            } else {
                queue.push_back(Waiting { event, attempts: 0, due: None });
            }
        }
        self.more.notify_one();
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.first.borrow().len() + self.pods.borrow().len()
    }

    /// What became of those that do not wait.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    fn of(&self, event: &Event) -> &RefCell<VecDeque<Waiting>> {
        if event.about_pod { &self.pods } else { &self.first }
    }

    fn count(&self, one: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        one(&mut counts);
        self.counts.set(counts);
    }

    /// The first that is due.
    fn next(&self, now: Duration) -> Option<Waiting> {
        [&self.first, &self.pods].into_iter().find_map(|queue| {
            let mut queue = queue.borrow_mut();
            let place = queue.iter().position(|one| one.due.is_none_or(|due| due <= now))?;
            queue.remove(place)
        })
    }

    /// Waits until one is due, or more come.
    async fn wait(&self, now: Duration) {
        let due = |queue: &RefCell<VecDeque<Waiting>>| queue.borrow().iter().filter_map(|one| one.due).min();
        match [&self.first, &self.pods].into_iter().filter_map(due).min() {
            Some(due) => tokio::select! {
                () = sleep(due.saturating_sub(now)) => {}
                () = self.more.notified() => {}
            },
            None => self.more.notified().await,
        }
    }

    /// `event` failed by itself, once more.
    fn put_off(&self, event: Event, attempts: u32, after: Option<Duration>, now: Duration) {
        let own = (FIRST_PAUSE * 2_u32.pow(attempts.min(ATTEMPTS))).min(LONGEST_PAUSE);
        let due = now.saturating_add(after.unwrap_or(own).max(own));
        self.of(&event).borrow_mut().push_back(Waiting { event, attempts: attempts + 1, due: Some(due) });
    }

    /// Writes what waits, for ever; `now` is the monotonic clock; tells `told` why one was refused or failed. To be dropped at any time: what was under way
    /// is lost, and told again by whoever leads next under the same name.
    pub async fn deliver(
        &self,
        client: &kube::Client,
        now: &dyn Fn() -> Duration,
        told: &dyn Fn(&Event, &str),
    ) -> Infallible {
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(Waiting { event, attempts, .. }) = self.next(now()) else {
                self.wait(now()).await;
                continue;
            };
            let answer = write(client, &event).await;
            let server = answer.is_about_server();
            match answer.outcome {
                Outcome::Done => self.count(|counts| counts.created += 1),
                Outcome::AlreadyThere => self.count(|counts| counts.already_there += 1),
                Outcome::Gone(reason) | Outcome::Final(reason) => {
                    self.count(|counts| counts.refused += 1);
                    told(&event, &reason);
                }
                Outcome::Retry { reason, .. } if !server && attempts + 1 >= ATTEMPTS => {
                    self.count(|counts| counts.refused += 1);
                    told(&event, &reason);
                }
                Outcome::Retry { after, reason } => {
                    self.count(|counts| counts.failed += 1);
                    told(&event, &reason);
                    if !server {
                        self.put_off(event, attempts, after, now());
                        continue;
                    }
                    // The order stays.
                    self.of(&event).borrow_mut().push_front(Waiting { event, attempts, due: None });
                    sleep(after.unwrap_or(pause).max(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            }
            pause = FIRST_PAUSE;
        }
    }
}

async fn write(client: &kube::Client, event: &Event) -> Answer {
    let refused = |reason: String| Answer { status: None, outcome: Outcome::Final(reason) };
    let namespace = match request::path("/apis/events.k8s.io/v1/namespaces", &event.namespace) {
        Ok(namespace) => namespace,
        Err(error) => return refused(error.to_string()),
    };
    match request::post(&format!("{namespace}/events"), FIELD_MANAGER, &event.body) {
        Ok(request) => answer::send(client, request).await,
        Err(error) => refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn event(about_pod: bool) -> Event {
        Event { namespace: "shop".to_owned(), body: Value::Null, about_pod }
    }

    #[test]
    fn events_about_pods_leave_room_for_those_about_incidents_and_go_after_them() {
        let queue = Queue::default();
        queue.push((0..MAX_WAITING + 2).map(|_| event(true)));
        queue.push([event(false)]);
        assert_eq!((queue.waiting(), queue.counts().dropped), (MAX_WAITING + 1, 2));
        assert!(queue.next(Duration::ZERO).is_some_and(|one| !one.event.about_pod));
    }
}
