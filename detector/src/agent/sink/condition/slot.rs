//! One condition: its causes, what it says, and since when.

use super::{
    cause::{Cause, Task},
    message,
    snapshot::Adopted,
    write::Words,
};
use crate::{
    agent::problem::lifecycle::{Change, Lifecycle},
    contract::problem::Condition,
};

/// One condition of the Node.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) condition: &'static Condition,
    pub(super) causes: Lifecycle<Task, Cause>,
    /// It stood True before the agent started, of which nothing else is known yet.
    hold: Option<Hold>,
    /// Status as of the last account, and since when, microseconds since 1970 UTC.
    status: bool,
    since_us: i64,
    /// What stands in the API as far as it is known: status, and since when.
    pub(super) stands: Option<(bool, i64)>,
}

#[derive(Debug)]
struct Hold {
    until_ns: u64,
    reason: &'static str,
    message: String,
}

impl Slot {
    pub(super) fn new(condition: &'static Condition, now_us: i64) -> Self {
        Self { condition, causes: Lifecycle::default(), hold: None, status: false, since_us: now_us, stands: None }
    }

    /// A task hangs; `time_us`: when the kernel found it.
    pub(super) fn begin(&mut self, task: Task, cause: Cause, at_ns: u64, time_us: i64) -> Option<Change> {
        let change = self.causes.begin(task, cause, at_ns);
        self.settle(time_us);
        change
    }

    /// A task hangs no more.
    pub(super) fn end(&mut self, task: &Task, at_ns: u64, time_us: i64) -> Option<Change> {
        let change = self.causes.end(task, at_ns);
        if change == Some(Change::Cleared) {
            // A scan told all tasks that hang at one time, and they have ended: nothing is left to wait for.
            self.hold = None;
        }
        self.settle(time_us);
        change
    }

    /// Takes in what was found on the Node. If it is True and no cause is known, it holds until `until_ns`.
    pub(super) fn adopt(&mut self, adopted: &Adopted, until_ns: u64, now_us: i64) {
        self.stands = adopted.status.map(|status| (status, adopted.since_us.unwrap_or(now_us)));
        if adopted.status == Some(true) && adopted.of_this_boot && self.causes.is_empty() {
            let reason = self.condition.known_reason(&adopted.reason).unwrap_or_else(|| self.condition.raised_reason());
            self.hold = Some(Hold { until_ns, reason, message: message::adopted(&adopted.message) });
        }
        self.settle(now_us);
    }

    /// When it is to be looked at because time passed.
    pub(super) fn expires_ns(&self) -> Option<u64> {
        self.hold.as_ref().map(|hold| hold.until_ns)
    }

    /// Time passed.
    pub(super) fn expire(&mut self, now_ns: u64, now_us: i64) {
        self.hold.take_if(|hold| hold.until_ns <= now_ns);
        self.settle(now_us);
    }

    /// What it says; with the time, it tells how long.
    pub(super) fn words(&self, now_ns: Option<u64>) -> Words {
        if let Some((task, cause)) = self.causes.oldest() {
            let others = self.causes.len() - 1;
            let (reason, message) = (cause.reason(self.condition), message::hung(task, cause, others, now_ns));
            return Words { status: true, reason: reason.to_owned(), message };
        }
        match &self.hold {
            Some(hold) => Words { status: true, reason: hold.reason.to_owned(), message: hold.message.clone() },
            None => Words {
                status: false,
                reason: self.condition.clear_reason.to_owned(),
                message: self.condition.clear_message.to_owned(),
            },
        }
    }

    /// Since when its status is what it is, as the API is to say it: the time that stands there, unless the status changed.
    pub(super) fn since_us(&self) -> i64 {
        self.stands.filter(|(status, _)| *status == self.status).map_or(self.since_us, |(_, since_us)| since_us)
    }

    /// Sets since when it is True, as an earlier run told it.
    pub(super) fn restore_since(&mut self, since_us: i64) {
        self.since_us = since_us;
    }

    fn settle(&mut self, time_us: i64) {
        let status = self.causes.is_raised() || self.hold.is_some();
        if status != self.status {
            (self.status, self.since_us) = (status, time_us);
        }
    }
}
