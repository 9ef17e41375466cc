//! One condition: its causes, what it says, and since when.

use super::{
    cause::{Cause, Task},
    message,
    snapshot::Adopted,
    write::Words,
};
use crate::{
    agent::problem::lifecycle::{Change, Lifecycle},
    contract::problem::{Condition, PREVIOUS_BOOT_CRASH},
};

/// One condition of the Node.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) condition: &'static Condition,
    pub(super) causes: Lifecycle<Task, Cause>,
    /// It stood True before the agent started, of which nothing else is known yet; or what it says until a time, without
    /// tasks as causes.
    hold: Option<Hold>,
    /// Reason and message while it is False, if not those of the catalogue.
    clear: Option<(&'static str, String)>,
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
        Self {
            condition,
            causes: Lifecycle::default(),
            hold: None,
            clear: None,
            status: false,
            since_us: now_us,
            stands: None,
        }
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
        if adopted.status == Some(true) && adopted.of_this_boot && self.causes.is_empty() && self.has_tasks() {
            let reason = self.condition.known_reason(&adopted.reason).unwrap_or_else(|| self.condition.raised_reason());
            self.hold = Some(Hold { until_ns, reason, message: message::adopted(&adopted.message) });
        }
        self.settle(now_us);
    }

    /// Whether its causes are tasks that hang; else the one who found out tells it as a whole, at each start.
    fn has_tasks(&self) -> bool {
        self.condition.kind != PREVIOUS_BOOT_CRASH.kind
    }

    /// It says this until `until_ns`.
    pub(super) fn raise(&mut self, reason: &'static str, message: String, until_ns: u64, now_us: i64) {
        self.hold = Some(Hold { until_ns, reason, message });
        self.settle(now_us);
    }

    /// It says this while it is False.
    pub(super) fn clear(&mut self, reason: &'static str, message: String) {
        self.clear = Some((reason, message));
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
            None => {
                let (reason, message) = self.clear.as_ref().map_or_else(
                    || (self.condition.clear_reason, self.condition.clear_message),
                    |(reason, message)| (*reason, message.as_str()),
                );
                Words { status: false, reason: reason.to_owned(), message: message.to_owned() }
            }
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

#[cfg(test)]
mod tests {
    use super::super::{ConditionWrite, Conditions, Standing, tests::setup};
    use crate::{
        agent::sink::delivery::Next,
        cluster::Outcome,
        contract::problem::previous_boot::{End, PreviousBoot},
    };

    const SECOND: u64 = 1_000_000_000;

    fn found(end: End) -> PreviousBoot {
        PreviousBoot {
            end,
            boot_id: Some("b0".into()),
            at: None,
            witness: "pstore (erst)".into(),
            lines: vec!["x".into()],
        }
    }

    /// Status, reason and message of the condition at `at_s`.
    fn stands(conditions: &mut Conditions, at_s: u64) -> (String, String, String) {
        while let Next::Write(write) = conditions.next(at_s * SECOND) {
            match write {
                ConditionWrite::Read => conditions.adopt(&[], at_s * SECOND),
                ConditionWrite::Apply(_) => conditions.done(Outcome::Done, at_s * SECOND),
            }
        }
        let all = conditions.conditions(at_s * SECOND);
        let found = all.iter().find(|found| found.kind() == "PreviousBootCrash").expect("the condition");
        (found.status().to_owned(), found.reason().to_owned(), found.message().to_owned())
    }

    #[test]
    fn a_crash_is_told_for_a_while_and_then_no_more() {
        let mut conditions = Conditions::new(setup(), 60 * SECOND);
        conditions.previous_boot(&found(End::Panic), 600 * SECOND, 60 * SECOND);
        let (status, reason, message) = stands(&mut conditions, 61);
        assert_eq!((status.as_str(), reason.as_str()), ("True", "KernelPanic"));
        assert_eq!(message, "The boot before (b0) ended in a kernel panic, by pstore (erst): x");
        let Next::At(at_ns) = conditions.next(62 * SECOND) else { panic!("it waits") };
        assert_eq!(at_ns, 600 * SECOND);
        assert_eq!(stands(&mut conditions, 600).0, "False");
        assert_eq!(stands(&mut conditions, 600).1, "NoPreviousBootCrash");
    }

    #[test]
    fn a_crash_found_after_that_while_is_not_raised() {
        let mut conditions = Conditions::new(setup(), 700 * SECOND);
        conditions.previous_boot(&found(End::Unclean), 600 * SECOND, 700 * SECOND);
        assert_eq!(stands(&mut conditions, 701).0, "False");
    }

    #[test]
    fn an_end_in_order_is_told_too() {
        let mut conditions = Conditions::new(setup(), 60 * SECOND);
        conditions.previous_boot(&found(End::Clean), 600 * SECOND, 60 * SECOND);
        let (status, reason, message) = stands(&mut conditions, 61);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "PreviousBootEndedInOrder"));
        assert!(message.starts_with("The boot before (b0) ended in order"), "{message}");
    }

    #[test]
    fn what_stands_on_the_node_is_not_believed_but_found_out_anew() {
        let mut conditions = Conditions::new(setup(), 60 * SECOND);
        assert_eq!(conditions.next(60 * SECOND), Next::Write(ConditionWrite::Read));
        let standing = Standing { kind: "PreviousBootCrash".into(), status: "True".into(), ..Standing::default() };
        conditions.adopt(&[standing], 60 * SECOND);
        assert_eq!(stands(&mut conditions, 61).0, "False");
    }
}
