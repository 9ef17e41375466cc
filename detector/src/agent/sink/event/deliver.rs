//! Writes the events: one at a time, asleep while nothing is due.

use std::{cell::RefCell, convert::Infallible, rc::Rc, time::Duration};

use http::{Method, Request, header::CONTENT_TYPE};
use tokio::{sync::Notify, time::sleep};

use super::{Action, Counts, EventWrite, Events, Snapshot};
use crate::{
    agent::sink::{
        delivery::Next,
        report::{CrashReport, HangReport, KillReport},
    },
    clock::BootClock,
    cluster::{Answer, Outcome, answer},
    config,
};

/// The queue, shared between those who fill it and the one who empties it. All of them live on one thread.
#[derive(Clone, Debug)]
pub struct Handle(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    events: RefCell<Events>,
    more: Notify,
}

/// A write that ended.
#[derive(Clone, Debug)]
pub struct Ended<'a> {
    /// What was to be written.
    pub write: &'a EventWrite,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// Whether it was to change an event that is there no more, which is made anew.
    pub expired: bool,
    /// From the oldest happening that it tells to the answer, if it stands by this write; `None` also if that was before
    /// this boot.
    pub delay: Option<Duration>,
}

impl Handle {
    /// Shares `events`.
    #[must_use]
    pub fn new(events: Events) -> Self {
        Self(Rc::new(Shared { events: RefCell::new(events), more: Notify::new() }))
    }

    /// Takes in a kill, `now_ns` nanoseconds after boot.
    pub fn kill(&self, report: &KillReport, now_ns: u64) {
        self.0.events.borrow_mut().kill(report, now_ns);
        self.0.more.notify_one();
    }

    /// Takes in a hang, `now_ns` nanoseconds after boot.
    pub fn hang(&self, report: &HangReport, now_ns: u64) {
        self.0.events.borrow_mut().hang(report, now_ns);
        self.0.more.notify_one();
    }

    /// Takes in that a boot before this one ended in a crash, `now_ns` nanoseconds after this one began.
    pub fn crash(&self, report: &CrashReport, now_ns: u64) {
        self.0.events.borrow_mut().crash(report, now_ns);
        self.0.more.notify_one();
    }

    /// From now on these settings hold.
    pub fn configure(&self, settings: config::Events) {
        self.0.events.borrow_mut().configure(settings);
        self.0.more.notify_one();
    }

    /// As [`Events::next`].
    pub(in crate::agent) fn next(&self, now_ns: u64) -> Next<EventWrite> {
        self.0.events.borrow_mut().next(now_ns)
    }

    /// As [`Events::done`].
    pub(in crate::agent) fn done(&self, answer: &Answer, now_ns: u64) {
        self.0.events.borrow_mut().done(answer, now_ns);
    }

    /// What was done, and what waits.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.events.borrow().counts()
    }

    /// Rises with each write whose end changed what a later run has to know.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.events.borrow().revision()
    }

    /// What a later run needs to go on from here.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.events.borrow().snapshot()
    }

    /// Writes what is due, for ever; tells `told` how each write ended. To be dropped at any time: a write under way then
    /// counts as not made, and making it again is harmless.
    pub async fn deliver(&self, client: &kube::Client, clock: BootClock<'_>, told: &dyn Fn(&Ended<'_>)) -> Infallible {
        self.0.events.borrow_mut().forgotten();
        loop {
            let now_ns = clock();
            match self.next(now_ns) {
                Next::Write(write) => {
                    let answer = match request(&write) {
                        Ok(request) => answer::send(client, request).await,
                        Err(error) => Answer {
                            status: None,
                            outcome: Outcome::Final(format!("no request could be made: {error}")),
                        },
                    };
                    self.conclude(&write, &answer, clock(), told);
                }
                Next::At(at) => {
                    tokio::select! {
                        () = sleep(Duration::from_nanos(at.saturating_sub(now_ns))) => {}
                        () = self.0.more.notified() => {}
                    }
                }
                Next::Nothing => self.0.more.notified().await,
            }
        }
    }

    fn conclude(&self, write: &EventWrite, answer: &Answer, now_ns: u64, told: &dyn Fn(&Ended<'_>)) {
        let expired = write.action == Action::Update && matches!(answer.outcome, Outcome::Gone(_));
        // When an event came to stand that was there already, nobody knows.
        let stands = answer.outcome == Outcome::Done;
        let delay =
            write.oldest_ns.filter(|_| stands).map(|oldest| Duration::from_nanos(now_ns.saturating_sub(oldest)));
        self.done(answer, now_ns);
        // Last, so that who is told sees what still waits.
        told(&Ended { write, outcome: &answer.outcome, expired, delay });
    }
}

fn request(write: &EventWrite) -> Result<Request<Vec<u8>>, http::Error> {
    let (method, content_type) = match write.action {
        Action::Create => (Method::POST, "application/json"),
        Action::Update => (Method::PATCH, "application/merge-patch+json"),
    };
    let builder = Request::builder().method(method).uri(write.path()).header(CONTENT_TYPE, content_type);
    builder.body(write.body.to_string().into_bytes())
}
