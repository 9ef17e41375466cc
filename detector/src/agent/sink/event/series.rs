//! One event as it grows: happenings of one reason to one container, and how many of them the API server knows.

use serde::{Deserialize, Serialize};

use super::{SETTLE, gather::Group, note, object, pace::nanoseconds};
use crate::{
    agent::sink::report::{CrashReport, HangReport, KillReport, RecordId, Subject},
    contract::event::Reason,
};

/// What happenings of one series have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    /// Whose budget pays: a pod, else a unit, a cgroup, a container without a pod; empty: the node as a whole.
    pub(super) owner: String,
    /// Name of the container, else its id; empty: none.
    container: String,
    pub(super) reason: Reason,
    /// Whether the pod's names are known, so that the event is about the pod.
    named: bool,
}

impl Key {
    pub(super) fn new(subject: &Subject, reason: Reason) -> Self {
        let container = subject.container.as_ref().or(subject.container_id.as_ref()).cloned().unwrap_or_default();
        let owner = match (&subject.pod_uid, &subject.container_id, &subject.unit, &subject.cgroup) {
            (Some(uid), ..) => format!("pod {uid}"),
            (None, Some(id), ..) => format!("container {id}"),
            (None, None, Some(unit), _) => format!("unit {unit}"),
            (None, None, None, Some(path)) => format!("cgroup {path}"),
            (None, None, None, None) => String::new(),
        };
        Self { owner, container, reason, named: is_named(subject) }
    }

    /// That of what could not be told one by one.
    pub(super) fn further() -> Self {
        Self { owner: String::new(), container: String::new(), reason: Reason::FurtherProblems, named: false }
    }
}

/// Whether an event can be about the pod: its names are known, and are names. They come from files of the runtime and
/// become part of a request's path.
fn is_named(subject: &Subject) -> bool {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_namespace = |name: &String| (1..=63).contains(&name.len()) && name.chars().all(label);
    let is_pod = |name: &String| (1..=253).contains(&name.len()) && name.chars().all(|c| label(c) || c == '.');
    subject.pod_uid.is_some()
        && subject.namespace.as_ref().is_some_and(is_namespace)
        && subject.pod.as_ref().is_some_and(is_pod)
}

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Regarding {
    Pod { namespace: String, name: String, uid: String, container: Option<String> },
    Node,
}

impl Regarding {
    /// Namespace of an event about it: the pod's own, for the node `of_node`.
    fn namespace<'a>(&'a self, of_node: &'a str) -> &'a str {
        match self {
            Self::Pod { namespace, .. } => namespace,
            Self::Node => of_node,
        }
    }

    fn new(subject: &Subject) -> Self {
        match (&subject.namespace, &subject.pod, &subject.pod_uid) {
            (Some(namespace), Some(name), Some(uid)) if is_named(subject) => Self::Pod {
                namespace: namespace.clone(),
                name: name.clone(),
                uid: uid.clone(),
                container: subject.container.clone(),
            },
            _ => Self::Node,
        }
    }
}

/// Something that happened, seen as one occurrence.
#[derive(Clone, Copy, Debug)]
pub(super) enum Happening<'a> {
    Kill(&'a KillReport),
    Group(&'a Group),
    Hang(&'a HangReport),
    Crash(&'a CrashReport),
}

impl Happening<'_> {
    pub(super) fn key(&self) -> Key {
        Key::new(self.subject(), self.reason())
    }

    fn subject(&self) -> &Subject {
        match self {
            Self::Kill(kill) => &kill.subject,
            Self::Group(group) => &group.first.subject,
            Self::Hang(hang) => &hang.subject,
            Self::Crash(crash) => &crash.subject,
        }
    }

    fn reason(&self) -> Reason {
        let in_container = |subject: &Subject| subject.container_id.is_some() || subject.pod_uid.is_some();
        match self {
            Self::Kill(kill) if kill.process == "init" && in_container(&kill.subject) => Reason::ContainerOOMKilled,
            Self::Group(group) if in_container(&group.first.subject) => Reason::ContainerOOMKilled,
            Self::Kill(_) | Self::Group(_) => Reason::ProcessOOMKilled,
            Self::Hang(_) => Reason::TaskHung,
            Self::Crash(crash) if crash.is_panic => Reason::KernelPanicFound,
            Self::Crash(_) => Reason::UncleanShutdownFound,
        }
    }

    pub(super) fn record(&self) -> &RecordId {
        match self {
            Self::Kill(kill) => &kill.id,
            Self::Group(group) => &group.first.id,
            Self::Hang(hang) => &hang.id,
            Self::Crash(crash) => &crash.id,
        }
    }

    /// First and last time, microseconds since 1970.
    fn times_us(&self) -> (i64, i64) {
        match self {
            Self::Kill(kill) => (kill.time_us, kill.time_us),
            Self::Group(group) => (group.first.time_us, group.last_us),
            Self::Hang(hang) => (hang.time_us, hang.time_us),
            Self::Crash(crash) => (crash.time_us, crash.time_us),
        }
    }

    fn boot_ns(&self) -> u64 {
        match self {
            Self::Kill(kill) => kill.boot_ns,
            Self::Group(group) => group.first.boot_ns,
            Self::Hang(hang) => hang.boot_ns,
            // It happened in another boot, whose clock is over.
            Self::Crash(_) => 0,
        }
    }

    fn note(&self) -> String {
        let named = is_named(self.subject());
        match self {
            Self::Kill(kill) => note::kill(kill, named),
            Self::Group(group) => note::group(&group.first, &group.named, group.count, named),
            Self::Hang(hang) => note::hang(hang, named),
            Self::Crash(crash) => crash.note.clone(),
        }
    }
}

/// What an event holds from the beginning and for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct First {
    /// `metadata.name`.
    pub(super) name: String,
    /// `metadata.namespace`. That of the first write: a setting that changes later must not make the event a second time.
    pub(super) namespace: String,
    pub(super) regarding: Regarding,
    pub(super) note: String,
    /// `eventTime`, microseconds since 1970.
    pub(super) time_us: i64,
}

/// One event and what is still to be told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) key: Key,
    pub(super) first: First,
    /// Place in the order in which events began.
    pub(super) order: u64,
    /// Happenings so far.
    pub(super) count: u64,
    /// When the last of them was, microseconds since 1970.
    pub(super) last_us: i64,
    /// The same in nanoseconds since the boot `boot_id`.
    last_ns: u64,
    boot_id: String,
    /// When the oldest was that the API server does not know, nanoseconds since boot.
    pub(super) oldest_ns: u64,
    /// The largest count that the API server ever knew.
    pub(super) told: u64,
    /// Whether the API server holds the event, as far as we know.
    pub(super) exists: bool,
    /// Whether a write was sent whose end nobody knows.
    pub(super) in_doubt: bool,
    /// An update waits until then, nanoseconds since boot.
    pub(super) settles_ns: u64,
    /// Writes that failed for the moment since the last that did not.
    pub(super) failures: u32,
    /// Those of them that somebody does not allow (403), without any other answer in between.
    #[serde(default)]
    pub(super) refusals: u32,
    /// It is not written before this time, nanoseconds since boot, because it failed.
    #[serde(skip)]
    pub(super) not_before_ns: u64,
    /// Whether it was counted that a budget holds it up.
    pub(super) held_up: bool,
}

impl Series {
    /// The series that `happening` begins on the node `node`, whose own events stand in `node_namespace`.
    pub(super) fn begin(happening: &Happening<'_>, node: &str, node_namespace: &str, order: u64) -> Self {
        let (time_us, last_us) = happening.times_us();
        let (key, regarding) = (happening.key(), Regarding::new(happening.subject()));
        let name = object::name_of(&regarding, node, happening.record(), key.reason);
        let namespace = regarding.namespace(node_namespace).to_owned();
        let first = First { name, namespace, regarding, note: happening.note(), time_us };
        Self {
            key,
            first,
            order,
            count: 1,
            last_us,
            last_ns: happening.boot_ns(),
            boot_id: happening.record().boot_id.clone(),
            oldest_ns: happening.boot_ns(),
            told: 0,
            exists: false,
            in_doubt: false,
            settles_ns: 0,
            failures: 0,
            refusals: 0,
            not_before_ns: 0,
            held_up: false,
        }
    }

    /// The event of what could not be told one by one; `oldest` is the first series that it replaces.
    pub(super) fn further(oldest: &Self, first: First, count: u64, last_us: i64) -> Self {
        Self {
            key: Key::further(),
            first,
            count,
            last_us,
            told: 0,
            exists: false,
            in_doubt: false,
            failures: 0,
            refusals: 0,
            not_before_ns: 0,
            held_up: false,
            ..oldest.clone()
        }
    }

    /// That of an earlier run, whose waits are over.
    pub(super) fn restored(self) -> Self {
        Self { settles_ns: 0, failures: 0, not_before_ns: 0, held_up: false, ..self }
    }

    /// Whether there is something to write.
    pub(super) fn is_due(&self) -> bool {
        !self.exists || self.told < self.count
    }

    /// Whether it may be told together with others, should there be too many: a crash of the machine may not.
    pub(super) fn may_make_room(&self) -> bool {
        !matches!(self.key.reason, Reason::KernelPanicFound | Reason::UncleanShutdownFound)
    }

    /// Whether the API server never heard of it.
    pub(super) fn is_new(&self) -> bool {
        self.told == 0
    }

    /// The API server holds the event with at least `count`.
    pub(super) fn wrote(&mut self, count: u64, now_ns: u64) {
        self.exists = true;
        self.in_doubt = false;
        (self.failures, self.refusals, self.not_before_ns) = (0, 0, 0);
        self.told = self.told.max(count);
        self.settles_ns = now_ns.saturating_add(nanoseconds(SETTLE));
    }

    /// The event is there no more: it is to be made anew, with its whole count.
    pub(super) fn expired(&mut self) {
        self.exists = false;
        (self.failures, self.refusals, self.not_before_ns) = (0, 0, 0);
    }

    /// A write failed for the moment; `refused`: it is not allowed now. The next one comes not before `not_before_ns`.
    pub(super) fn failed(&mut self, refused: bool, not_before_ns: u64) {
        self.failures = self.failures.saturating_add(1);
        self.refusals = if refused { self.refusals.saturating_add(1) } else { 0 };
        self.not_before_ns = not_before_ns;
    }

    /// Happenings that the API server does not know.
    pub(super) fn waiting(&self) -> u64 {
        self.count.saturating_sub(self.told)
    }

    /// Whether `happening` belongs to it: it is still to be written anyway, or the last one is not long ago.
    pub(super) fn takes(&self, happening: &Happening<'_>, window_ns: u64) -> bool {
        let apart_ns = if self.boot_id == happening.record().boot_id {
            self.last_ns.abs_diff(happening.boot_ns())
        } else {
            self.last_us.abs_diff(happening.times_us().0).saturating_mul(1000)
        };
        self.is_due() || apart_ns <= window_ns
    }

    pub(super) fn join(&mut self, happening: &Happening<'_>, settles_ns: u64) {
        if !self.is_due() {
            self.settles_ns = settles_ns;
            self.oldest_ns = happening.boot_ns();
            self.held_up = false;
        }
        self.count = self.count.saturating_add(1);
        self.last_us = self.last_us.max(happening.times_us().1);
        if self.boot_id == happening.record().boot_id {
            self.last_ns = self.last_ns.max(happening.boot_ns());
        } else {
            self.boot_id.clone_from(&happening.record().boot_id);
            self.last_ns = happening.boot_ns();
            self.oldest_ns = happening.boot_ns();
        }
    }

    /// When the oldest untold happening was, if that was in the boot `boot_id`.
    pub(super) fn oldest_in(&self, boot_id: &str) -> Option<u64> {
        (self.boot_id == boot_id).then_some(self.oldest_ns)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{
        super::{
            SERIES,
            tests::{SECOND, kill, queue, written},
        },
        *,
    };
    use crate::contract::problem::previous_boot::{End, PreviousBoot};

    fn report(id: u64) -> CrashReport {
        let at = "2026-11-22T12:00:00Z".parse().ok();
        let lines = vec!["Kernel panic - not syncing: x".to_owned()];
        let found =
            PreviousBoot { end: End::Panic, boot_id: Some("b0".into()), at, witness: "pstore (erst)".into(), lines };
        CrashReport::of(&found, id, jiff::Timestamp::UNIX_EPOCH).expect("a crash")
    }

    #[test]
    fn a_panic_found_after_the_boot_is_an_event_about_the_node_with_the_time_of_the_panic() {
        let mut events = queue();
        events.crash(&report(7), SECOND);
        events.crash(&report(7), SECOND);
        let write = written(&mut events, SECOND);
        assert_eq!(write.body["regarding"]["kind"], "Node");
        assert_eq!(write.body["reason"], "KernelPanicFound");
        assert_eq!(write.body["eventTime"], "2026-11-22T12:00:00.000000Z");
        assert_eq!(write.body["series"], Value::Null);
        let note = "The boot before (b0) ended in a kernel panic at 2026-11-22T12:00:00Z, by pstore (erst): Kernel panic - \
                    not syncing: x";
        assert_eq!(write.body["note"], note);
        assert_eq!(write.oldest_ns, None, "it was in another boot");
        let mut again = queue();
        again.crash(&report(7), 99 * SECOND);
        assert_eq!(written(&mut again, 99 * SECOND).name, write.name, "the same panic has the same name");
    }

    #[test]
    fn a_crash_is_told_by_itself_however_much_else_waits() {
        let mut events = queue();
        events.crash(&report(7), SECOND);
        for number in 0..2 * SERIES as u64 {
            let subject = Subject { unit: Some(format!("{number}.service")), ..Subject::default() };
            events.kill(&kill(number + 10, subject, SECOND), SECOND);
        }
        assert!(events.snapshot().series.iter().any(|series| series.key.reason == Reason::KernelPanicFound));
    }
}
