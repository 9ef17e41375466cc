//! What the cluster is told of a transition: plain values with times of day, which can be written to disk and read again
//! by a later run of the agent.
//!
//! [`KillReport`] and [`HangReport`] are what events, metrics and conditions are made of. They carry no text for people:
//! sinks word them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Units, limit_word, lock_word, process_word};
use crate::{
    agent::{
        decode::event::{Comm, Stamp},
        locate::{Owner, Place},
        problem::{Domain, Hang, HangState, OomKill},
    },
    contract::{
        event::NOTE_BYTES,
        problem::previous_boot::{End, PreviousBoot},
    },
};

/// Names one record of this machine for ever: with it a happening that is told twice is known to be one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordId {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// CPU that wrote the record; `u32::MAX` where the kernel's log told it.
    pub cpu: u32,
    /// Number of the record on that CPU.
    pub sequence: u64,
}

/// Whom something happened to, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// Namespace of the pod; `None` until its names are known.
    pub namespace: Option<String>,
    /// Name of the pod; `None` until its names are known.
    pub pod: Option<String>,
    /// `metadata.uid`; for a static pod its config hash. `None`: not in a pod.
    pub pod_uid: Option<String>,
    /// Name of the container; `None` until its names are known, or if it belongs to the pod but to no container.
    pub container: Option<String>,
    /// Id of the container; `None`: not in a container.
    pub container_id: Option<String>,
    /// systemd unit, such as `kubelet.service`, outside of pods.
    pub unit: Option<String>,
    /// Path of the memory cgroup; `None` if it could not be resolved.
    pub cgroup: Option<String>,
}

impl Subject {
    /// The subject at `place`.
    #[must_use]
    pub fn of(place: Option<&Place>) -> Self {
        let Some(place) = place else { return Self::default() };
        let mut subject = Self { cgroup: Some(place.path.to_string()), ..Self::default() };
        let pod = match &place.owner {
            Owner::Container(container) => {
                subject.container.clone_from(&container.name);
                subject.container_id = Some(container.id.clone());
                container.pod.as_ref()
            }
            Owner::Pod(pod) => Some(pod),
            Owner::Unit(unit) => {
                subject.unit = Some(unit.clone());
                None
            }
            Owner::Cgroup => None,
        };
        if let Some(pod) = pod {
            subject.namespace.clone_from(&pod.namespace);
            subject.pod.clone_from(&pod.name);
            subject.pod_uid = Some(pod.uid.clone());
        }
        subject
    }

    /// Whether names are still to come: it lives in a pod whose namespace, name or container nobody knows yet.
    #[must_use]
    pub fn lacks_names(&self) -> bool {
        let container = self.container_id.is_some() && self.container.is_none();
        self.pod_uid.is_some() && (self.namespace.is_none() || self.pod.is_none() || container)
    }
}

/// One process killed by the OOM killer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillReport {
    /// The record that told it.
    pub id: RecordId,
    /// When the kernel did it, microseconds since 1970 UTC.
    pub time_us: i64,
    /// The same, nanoseconds since boot.
    pub boot_ns: u64,
    /// Where the victim lived.
    pub subject: Subject,
    /// `init`, `child` or `unknown`: which process of its container.
    pub process: String,
    /// `container`, `pod`, `ancestor`, `node`, `nested`, `cgroup` or `unknown`: whose limit was hit.
    pub limit: String,
    /// That limit in bytes.
    pub limit_bytes: Option<u64>,
    /// Name of the killed task.
    pub comm: Option<String>,
    /// Its pid on the machine.
    pub pid: Option<u32>,
    /// Its pid as the container sees it.
    pub namespace_pid: Option<u32>,
    /// Anonymous, file and shared memory that it had, in bytes.
    pub memory_bytes: Option<u64>,
    /// Number of the decision since the program started: victims of one group kill share it.
    pub incident: u64,
    /// Which of its victims, from 1.
    pub victim: u32,
    /// Whether the kernel kills the whole cgroup.
    pub group_kill: bool,
}

impl KillReport {
    /// The report of `kill` in the boot `boot_id`.
    #[must_use]
    pub fn of(kill: &OomKill, units: &Units, boot_id: &str) -> Self {
        let victim = &kill.mark.victim;
        let limit_pages = match &kill.domain {
            Domain::Cgroup { limit_pages, .. } => *limit_pages,
            Domain::Node | Domain::Unknown => None,
        };
        let resident = victim.memory.map(|rss| rss.anon.saturating_add(rss.file).saturating_add(rss.shmem));
        Self {
            id: record_id(kill.mark.stamp, boot_id),
            time_us: units.wall.time(kill.mark.stamp.boot_ns).as_microsecond(),
            boot_ns: kill.mark.stamp.boot_ns,
            subject: Subject::of(kill.place.as_deref()),
            process: process_word(kill.process).to_owned(),
            limit: limit_word(kill.limit).to_owned(),
            limit_bytes: limit_pages.map(|pages| units.bytes(pages)),
            comm: victim.comm.as_ref().map(Comm::to_text),
            pid: victim.tgid,
            namespace_pid: victim.namespace.map(|namespace| namespace.pid),
            memory_bytes: resident.map(|pages| units.bytes(pages)),
            incident: kill.incident.number,
            victim: kill.incident.victim,
            group_kill: kill.group_kill == Some(true),
        }
    }
}

/// A boot that ended in a crash, as it was found after the next had begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashReport {
    /// Names it for ever, by the number of what was found alone: an agent that does not know which boot ended gives the same
    /// name.
    pub id: RecordId,
    /// When it ended; where that is not known, when the present boot began. Microseconds since 1970 UTC.
    pub time_us: i64,
    /// Whether it ended in a panic.
    pub is_panic: bool,
    /// The node.
    pub subject: Subject,
    /// What is told to people.
    pub note: String,
}

impl CrashReport {
    /// The report of `found` with the number `id`, if it is a crash. `booted`: when the present boot began.
    #[must_use]
    pub fn of(found: &PreviousBoot, id: u64, booted: Timestamp) -> Option<Self> {
        let is_panic = match found.end {
            End::Panic => true,
            End::Unclean => false,
            End::Clean => return None,
        };
        Some(Self {
            id: RecordId { boot_id: String::new(), cpu: u32::MAX, sequence: id },
            time_us: found.at.unwrap_or(booted).as_microsecond(),
            is_panic,
            subject: Subject::default(),
            note: found.message(NOTE_BYTES),
        })
    }
}

/// States of a hang that the cluster is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HangEdge {
    /// It began to hang.
    Raised,
    /// A later scan found it hung still.
    Sustained,
    /// It ran again.
    Ran,
    /// It is gone.
    Exited,
}

/// A task that hangs, or hangs no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HangReport {
    /// The record that told it.
    pub id: RecordId,
    /// When this was seen, microseconds since 1970 UTC.
    pub time_us: i64,
    /// The same, nanoseconds since boot.
    pub boot_ns: u64,
    /// What changed.
    pub edge: HangEdge,
    /// How long it has hung at least, in seconds.
    pub hung_seconds: u64,
    /// Where the task lives.
    pub subject: Subject,
    /// Its thread id; with `start_ns` it names one task.
    pub tid: Option<u32>,
    /// Its pid.
    pub pid: Option<u32>,
    /// When it started, nanoseconds since boot.
    pub start_ns: Option<u64>,
    /// Times that it was switched away from: it has not run as long as this stands still.
    #[serde(default)]
    pub switches: Option<u64>,
    /// Its name.
    pub comm: Option<String>,
    /// Name of its process's leading thread.
    pub leader_comm: Option<String>,
    /// Kind of lock that it waits for, as [`crate::contract::watch::Lock`] has it; `None`: not known or none.
    pub lock: Option<String>,
    /// Name and pid of the lock's holder.
    pub holder: Option<(Option<String>, Option<u32>)>,
    /// Names of the innermost functions that it waits in.
    pub stack: Vec<String>,
}

/// Frames of a stack that a report carries at most.
const FRAMES: usize = 8;

impl HangReport {
    /// The report of `hang` in the boot `boot_id`.
    #[must_use]
    pub fn of(hang: &Hang, units: &Units, boot_id: &str) -> Self {
        let task = &hang.event.task;
        let lock = hang.event.lock.flatten();
        Self {
            id: record_id(hang.event.stamp, boot_id),
            time_us: units.wall.time(hang.boot_ns).as_microsecond(),
            boot_ns: hang.boot_ns,
            edge: match hang.state {
                HangState::Raised => HangEdge::Raised,
                HangState::Sustained => HangEdge::Sustained,
                HangState::Ran => HangEdge::Ran,
                HangState::Exited => HangEdge::Exited,
            },
            hung_seconds: hang.hung.as_secs(),
            subject: Subject::of(hang.place.as_deref()),
            tid: task.pid,
            pid: task.tgid,
            start_ns: task.start_ns,
            switches: hang.event.switches,
            comm: task.comm.as_ref().map(Comm::to_text),
            leader_comm: task.leader_comm.as_ref().map(Comm::to_text),
            lock: lock.map(|lock| lock_word(lock.kind).to_owned()),
            holder: lock
                .and_then(|lock| lock.holder)
                .map(|holder| (holder.task.comm.as_ref().map(Comm::to_text), holder.task.tgid)),
            stack: hang.stack.iter().take(FRAMES).map(ToString::to_string).collect(),
        }
    }
}

fn record_id(stamp: Stamp, boot_id: &str) -> RecordId {
    RecordId { boot_id: boot_id.to_owned(), cpu: stamp.cpu, sequence: stamp.sequence }
}
