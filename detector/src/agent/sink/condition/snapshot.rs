//! What survives a restart of the agent: the tasks that hang, and since when conditions are what they are. What stood before
//! it: on the Node, and by what an earlier run knew.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Conditions, Reading, Standing,
    cause::{Cause, Task},
    pace::later,
};
use crate::agent::problem::lifecycle::MAX_CAUSES;

/// Clocks of two boots of a machine differ by less: a condition asserted that much before the boot is of another one.
const CLOCK_TOLERANCE_US: i64 = 5_000_000;
/// An agent that starts sooner after the boot takes what was asserted before the boot for what it most likely is: told of
/// another boot. A kubelet has its pods running some minutes after the machine started.
const SOON_AFTER_BOOT: Duration = Duration::from_secs(900);

/// State of [`Conditions`] as it is written to disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Boot of which all this is true; empty: nothing is known of an earlier run.
    boot_id: String,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Condition {
    kind: String,
    since_us: i64,
    /// What stood in the API.
    stands: Option<(bool, i64)>,
    hangs: Vec<Hang>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hang {
    task: Task,
    cause: Cause,
}

/// A task that an earlier run told to hang, and that nobody confirmed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Thread id.
    pub tid: u32,
    /// When it started, nanoseconds since boot; `None`: not known.
    pub start_ns: Option<u64>,
    /// Times that it was switched away from while it hung; `None`: not known.
    pub switches: Option<u64>,
}

/// For how long a restored task is believed to hang, and by what its end is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Belief {
    pub(super) until_ns: u64,
    pub(super) switches: Option<u64>,
}

/// A condition found on the Node.
#[derive(Debug)]
pub(super) struct Adopted {
    /// `None`: neither True nor False.
    pub(super) status: Option<bool>,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) since_us: Option<i64>,
    pub(super) of_this_boot: bool,
}

impl Conditions {
    /// What the next run is to know.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let conditions = self.slots.iter().map(|slot| Condition {
            kind: slot.condition.kind.to_owned(),
            since_us: slot.since_us(),
            stands: slot.stands,
            hangs: slot.causes.causes().map(|(task, cause)| Hang { task: *task, cause: cause.clone() }).collect(),
        });
        Snapshot { boot_id: self.boot_id.clone(), conditions: conditions.collect() }
    }

    /// Takes in what an earlier run knew; to be called before anything else is told. What is of another boot is over. The
    /// default is what is left of a state that is lost: then nothing is known of an earlier run.
    ///
    /// A task is believed to hang until somebody looks, or two scans of the kernel's watch have not found it.
    pub fn restore(&mut self, snapshot: Snapshot, now_ns: u64) {
        if snapshot.boot_id.is_empty() {
            return;
        }
        let same_boot = snapshot.boot_id == self.boot_id;
        self.same_boot = Some(same_boot);
        if !same_boot {
            return;
        }
        let until_ns = later(now_ns, self.quiet);
        for condition in snapshot.conditions {
            // A type that this version does not have goes with the first write.
            let Some(slot) = self.slots.iter_mut().find(|slot| slot.condition.kind == condition.kind) else { continue };
            slot.stands = condition.stands;
            for Hang { task, cause } in condition.hangs.into_iter().take(MAX_CAUSES) {
                let (since_ns, since_us, switches) = (cause.since_ns, cause.since_us, cause.switches);
                if slot.begin(task, cause, since_ns, since_us).is_some() {
                    self.restored.insert(task, Belief { until_ns, switches });
                }
            }
            if slot.causes.is_raised() {
                slot.restore_since(condition.since_us);
            }
        }
    }

    /// Tasks that an earlier run told to hang, and that nobody confirmed since. Whoever can look at them tells
    /// [`Self::still_hangs`] or [`Self::ended`].
    #[must_use]
    pub fn restored_hangs(&self) -> Vec<Restored> {
        let told = |(task, belief): (&Task, &Belief)| Restored {
            tid: task.tid,
            start_ns: task.start_ns,
            switches: belief.switches,
        };
        self.restored.iter().map(told).collect()
    }

    /// A task that an earlier run told to hang was seen hanging, after so many switches.
    pub fn still_hangs(&mut self, tid: u32, start_ns: Option<u64>, switches: u64, now_ns: u64) {
        let (task, until_ns) = (Task { tid, start_ns }, later(now_ns, self.quiet));
        for (_, belief) in self.restored.iter_mut().filter(|(restored, _)| restored.may_be(&task)) {
            belief.until_ns = until_ns;
            belief.switches.get_or_insert(switches);
        }
    }

    /// A task that an earlier run told to hang was seen to run, or is gone.
    pub fn ended(&mut self, tid: u32, start_ns: Option<u64>, now_ns: u64) {
        self.end(&Task { tid, start_ns }, now_ns, self.us(now_ns));
    }

    /// Takes in the conditions of our types that stand on the Node: the answer to [`ConditionWrite::Read`](super::write::ConditionWrite::Read).
    pub fn adopt(&mut self, standing: &[Standing], now_ns: u64) {
        self.in_flight = None;
        self.reading = Reading::Done;
        let (until_ns, now_us) = (later(now_ns, self.quiet), self.us(now_ns));
        for found in standing {
            let adopted = Adopted {
                status: [("True", true), ("False", false)]
                    .into_iter()
                    .find(|(word, _)| *word == found.status)
                    .map(|(_, s)| s),
                reason: found.reason.clone(),
                message: found.message.clone(),
                since_us: found.last_transition_time.map(jiff::Timestamp::as_microsecond),
                of_this_boot: self.is_of_this_boot(found),
            };
            if let Some(slot) = self.slots.iter_mut().find(|slot| slot.condition.kind == found.kind) {
                slot.adopt(&adopted, until_ns, now_us);
            }
        }
    }

    /// Whether a condition was asserted in this boot. Where no earlier run tells, the times do, but only to an agent that
    /// starts soon after the boot, as each does on a node that was restarted: later, what was asserted before a clock was set
    /// forward would look the same, and to hold on to it for two scans is the lesser evil.
    fn is_of_this_boot(&self, found: &Standing) -> bool {
        if let Some(same_boot) = self.same_boot {
            return same_boot;
        }
        let asserted = found.last_heartbeat_time.or(found.last_transition_time);
        let boot_us = self.us(0).saturating_sub(CLOCK_TOLERANCE_US);
        let started = Duration::from_nanos(self.started_ns);
        started > SOON_AFTER_BOOT || asserted.is_none_or(|time| time.as_microsecond() >= boot_us)
    }
}
