//! Node conditions: hung tasks in, writes to `nodes/NAME/status` out.
//!
//! [`Conditions`] decides what stands there and when it is written; it touches nothing, and is told the time. [`deliver`]
//! asks it what is next and makes the requests. The life of a condition is drawn in `docs/conditions.md`, that of the
//! problem behind it in [`crate::agent::problem::lifecycle`].

pub mod cause;
pub mod deliver;
pub mod kube_node;
mod message;
mod pace;
mod slot;
mod snapshot;
mod tasks;
pub mod write;

use std::{collections::BTreeMap, time::Duration};

pub use message::MAX_MESSAGE;
pub use snapshot::{Restored, Snapshot};
pub use write::{ConditionWrite, NodeCondition, Standing};

use self::{
    cause::{Cause, Task},
    pace::{Pace, Urgency},
    slot::Slot,
    snapshot::Belief,
    write::Words,
};
use super::{
    delivery::Next,
    report::{HangEdge, HangReport},
};
use crate::{
    clock::WallClock,
    cluster::Outcome,
    config,
    contract::{
        problem::previous_boot::{End, PreviousBoot},
        problem::{CONDITIONS, KERNEL_DEADLOCK, PREVIOUS_BOOT_CRASH},
    },
};

/// Scans of the kernel's watch that must find nothing before it is believed that a hang of which only the fact is known is
/// over. One may have begun before the agent listened.
pub const QUIET_SCANS: u32 = 2;
/// Time between two scans if the kernel does not tell (its own default, `CONFIG_DEFAULT_HUNG_TASK_TIMEOUT`).
pub const DEFAULT_SCAN: Duration = Duration::from_secs(120);

/// What [`Conditions`] are made for.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Settings.
    pub config: config::Conditions,
    /// Name of the Node.
    pub node: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Time between two scans of the kernel's watch: `kernel.hung_task_check_interval_secs`, or if that is 0
    /// `kernel.hung_task_timeout_secs`; `None`: not known, or it does not scan.
    pub scan: Option<Duration>,
    /// From times since boot to times of day.
    pub wall: WallClock,
}

/// All conditions of ours on one Node.
#[derive(Debug)]
pub struct Conditions {
    config: config::Conditions,
    boot_id: String,
    quiet: Duration,
    wall: WallClock,
    slots: Vec<Slot>,
    /// Tasks that an earlier run told and nobody confirmed since. At most as many as the causes of all conditions.
    restored: BTreeMap<Task, Belief>,
    /// When we began, nanoseconds since boot.
    started_ns: u64,
    /// Whether an earlier run, and with it what stands in the API, is of this boot; `None`: nothing is known of one.
    same_boot: Option<bool>,
    pace: Pace,
    reading: Reading,
    in_flight: Option<Flight>,
    /// What was written last without doubt.
    written: Option<Vec<Words>>,
    /// Writes that the API server refused for good.
    refused: u64,
}

/// What was done so far by this run, and what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Conditions that stand otherwise in the API than they should, or of which that is not known.
    pub waiting: usize,
    /// Accounts of hung tasks that found no room.
    pub crowded_out: u64,
    /// Writes that the API server refused for good.
    pub refused: u64,
}

/// Whether it is known what stood in the API before us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Not yet.
    Wanted,
    /// It was refused. A write may go through nevertheless; if that is refused too, both are tried again.
    Refused,
    Done,
}

#[derive(Debug)]
enum Flight {
    Read,
    /// What is written, with the status and its begin for each slot.
    Apply(Vec<Words>, Vec<(bool, i64)>),
}

impl Conditions {
    /// No hang is known yet, nor what stands in the API. `now_ns`: nanoseconds since boot, as everywhere here.
    #[must_use]
    pub fn new(setup: Setup, now_ns: u64) -> Self {
        let Setup { config, node, boot_id, scan, wall } = setup;
        let now_us = wall.time(now_ns).as_microsecond();
        Self {
            pace: Pace::new(config.heartbeat, &node),
            config,
            boot_id,
            quiet: scan.filter(|scan| !scan.is_zero()).unwrap_or(DEFAULT_SCAN).saturating_mul(QUIET_SCANS),
            wall,
            slots: CONDITIONS.into_iter().map(|condition| Slot::new(condition, now_us)).collect(),
            restored: BTreeMap::new(),
            started_ns: now_ns,
            same_boot: None,
            reading: Reading::Wanted,
            in_flight: None,
            written: None,
            refused: 0,
        }
    }

    /// From now on, times since boot become times of day by this measurement.
    pub fn set_wall_clock(&mut self, wall: WallClock) {
        self.wall = wall;
    }

    /// From now on these settings hold: for hangs that are told from now on, and for the next heartbeat.
    pub fn configure(&mut self, config: config::Conditions) {
        self.pace.set_heartbeat(config.heartbeat);
        self.config = config;
    }

    /// Takes in that a task hangs, or hangs no more.
    pub fn hang(&mut self, report: &HangReport) {
        // A hang without a thread id is not told by the rules of hung tasks.
        let Some(tid) = report.tid else { return };
        let task = Task { tid, start_ns: report.start_ns };
        match report.edge {
            HangEdge::Raised | HangEdge::Sustained => {
                self.begin(task, Cause::of(report), report.boot_ns, report.time_us);
            }
            HangEdge::Ran | HangEdge::Exited => self.end(&task, report.boot_ns, report.time_us),
        }
    }

    /// Whether the hung task is one of the node's runtime: what raises `KernelDeadlock`.
    #[must_use]
    pub fn is_of_runtime(&self, report: &HangReport) -> bool {
        Cause::of(report).condition(&self.config.runtime_processes).kind == KERNEL_DEADLOCK.kind
    }

    /// Takes in how the boot before ended; it is told until `until_ns`. To be told again after a restart.
    pub fn previous_boot(&mut self, found: &PreviousBoot, until_ns: u64, now_ns: u64) {
        let now_us = self.us(now_ns);
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.condition.kind == PREVIOUS_BOOT_CRASH.kind) else {
            return;
        };
        let message = found.message(MAX_MESSAGE);
        match found.end {
            End::Panic | End::Unclean if until_ns > now_ns => slot.raise(found.end.reason(), message, until_ns, now_us),
            End::Panic | End::Unclean => {}
            End::Clean => slot.clear(found.end.reason(), message),
        }
    }

    /// What the API is to be asked next.
    pub fn next(&mut self, now_ns: u64) -> Next<ConditionWrite> {
        if !self.config.enabled || self.in_flight.is_some() {
            return Next::Nothing;
        }
        self.expire(now_ns);
        let due_ns = self.pace.due_ns(self.urgency());
        if now_ns < due_ns {
            let expires = self
                .slots
                .iter()
                .filter_map(Slot::expires_ns)
                .chain(self.restored.values().map(|belief| belief.until_ns))
                .min();
            return Next::At(expires.map_or(due_ns, |expires_ns| expires_ns.min(due_ns)));
        }
        if self.reading == Reading::Wanted {
            self.in_flight = Some(Flight::Read);
            return Next::Write(ConditionWrite::Read);
        }
        let conditions = self.conditions(now_ns);
        let stands = self.slots.iter().map(|slot| (slot.words(None).status, slot.since_us())).collect();
        self.in_flight = Some(Flight::Apply(self.words(), stands));
        Next::Write(ConditionWrite::Apply(conditions))
    }

    /// How the request ended that [`Self::next`] gave. A read that succeeded is told to [`Self::adopt`] instead.
    pub fn done(&mut self, outcome: Outcome, now_ns: u64) {
        let Some(flight) = self.in_flight.take() else { return };
        match (flight, outcome) {
            (Flight::Apply(words, stands), Outcome::Done) => {
                self.written = Some(words);
                for (slot, stands) in self.slots.iter_mut().zip(stands) {
                    slot.stands = Some(stands);
                }
                self.pace.succeeded(now_ns);
            }
            (Flight::Read, Outcome::Done) => self.reading = Reading::Done,
            (Flight::Read, Outcome::Final(_) | Outcome::Gone(_)) => self.reading = Reading::Refused,
            (Flight::Apply(..), Outcome::Final(_) | Outcome::Gone(_)) => {
                if self.reading == Reading::Refused {
                    self.reading = Reading::Wanted;
                }
                self.written = None;
                self.refused += 1;
                self.pace.refused(now_ns);
            }
            (flight, Outcome::Retry { after, .. }) => self.fail(flight, after, now_ns),
            (flight, Outcome::AlreadyThere) => self.fail(flight, None, now_ns),
        }
    }

    /// All conditions as they are to stand now.
    #[must_use]
    pub fn conditions(&self, now_ns: u64) -> Vec<NodeCondition> {
        let now_us = self.us(now_ns);
        let made = |slot: &Slot| NodeCondition::new(slot.condition, &slot.words(Some(now_ns)), now_us, slot.since_us());
        self.slots.iter().map(made).collect()
    }

    /// What was done, and what waits.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let wanted = self.words();
        let written = self.written.as_deref().unwrap_or_default();
        let stand = wanted.iter().zip(written).filter(|(wanted, written)| wanted == written).count();
        let waiting = wanted.len() - stand;
        Counts {
            waiting: if self.config.enabled { waiting } else { 0 },
            crowded_out: self.slots.iter().map(|slot| slot.causes.refused()).sum(),
            refused: self.refused,
        }
    }

    /// What nobody confirmed in time is over.
    fn expire(&mut self, now_ns: u64) {
        let now_us = self.us(now_ns);
        let over: Vec<Task> =
            self.restored.iter().filter(|(_, belief)| belief.until_ns <= now_ns).map(|(task, _)| *task).collect();
        for task in over {
            // Nobody saw its end: an account that was made meanwhile, and comes late, raises it again.
            let told_ns = self.slots.iter().find_map(|slot| slot.causes.told_at(&task)).unwrap_or(now_ns);
            self.end(&task, told_ns, now_us);
        }
        for slot in &mut self.slots {
            slot.expire(now_ns, now_us);
        }
    }

    fn urgency(&self) -> Urgency {
        let Some(written) = &self.written else { return Urgency::Unknown };
        let words = self.words();
        if words.iter().zip(written).any(|(now, then)| now.status != then.status) {
            Urgency::Status
        } else if words == *written {
            Urgency::Heartbeat
        } else {
            Urgency::Message
        }
    }

    fn words(&self) -> Vec<Words> {
        self.slots.iter().map(|slot| slot.words(None)).collect()
    }

    /// The request may have gone through or not.
    fn fail(&mut self, flight: Flight, after: Option<Duration>, now_ns: u64) {
        self.written = None;
        if let Flight::Apply(_, wanted) = flight {
            for (slot, (status, _)) in self.slots.iter_mut().zip(wanted) {
                slot.stands.take_if(|(stands, _)| *stands != status);
            }
        }
        self.pace.failed(now_ns, after);
    }

    fn us(&self, boot_ns: u64) -> i64 {
        self.wall.time(boot_ns).as_microsecond()
    }
}

#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod tests;
