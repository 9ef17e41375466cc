//! Whatever happens, in whatever order, and however the API server answers: it ends up knowing each happening once.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    tests::{SECOND, already_there, done, failed, gone, identity, kill, pod},
    *,
};
use crate::config::Budget;

const BUDGETS: config::Events = config::Events {
    enabled: true,
    node_namespace: String::new(),
    node_budget: Budget { burst: 4, every: Duration::from_secs(2) },
    pod_budget: Budget { burst: 2, every: Duration::from_secs(5) },
    series: Duration::from_secs(20),
};

/// What can happen to the queue.
#[derive(Clone, Debug)]
enum Step {
    Kill { pod: u8, group: bool },
    Again,
    Wait { milliseconds: u16 },
    Clock { seconds: i32 },
    Restart,
    Expire { pod: u8 },
}

/// How the API server answers a write.
#[derive(Clone, Copy, Debug)]
enum Reply {
    Good,
    /// It is done, but nobody learns it.
    Lost,
    Busy,
    /// Not for this object, not now.
    Forbidden,
}

fn steps() -> impl Strategy<Value = Vec<(Step, Reply)>> {
    let step = prop_oneof![
        6 => (0..4_u8, prop::bool::weighted(0.2)).prop_map(|(pod, group)| Step::Kill { pod, group }),
        1 => Just(Step::Again),
        6 => (0..3000_u16).prop_map(|milliseconds| Step::Wait { milliseconds }),
        1 => Just(Step::Wait { milliseconds: u16::MAX }),
        1 => (-7200..7200).prop_map(|seconds| Step::Clock { seconds }),
        1 => Just(Step::Restart),
        1 => (0..4_u8).prop_map(|pod| Step::Expire { pod }),
    ];
    let reply = prop_oneof![6 => Just(Reply::Good), 1 => Just(Reply::Lost), 1 => Just(Reply::Busy), 1 => Just(Reply::Forbidden)];
    prop::collection::vec((step, reply), 1..120)
}

/// An API server that holds events: their counts by path.
#[derive(Debug, Default)]
struct Server {
    counts: BTreeMap<String, u64>,
    /// Counts of events that expired while nothing was to be added.
    expired: u64,
    /// Time and subject of each write that was not answered "busy".
    writes: Vec<(u64, String)>,
}

impl Server {
    fn take(&mut self, write: &EventWrite, reply: Reply, now_ns: u64) -> Answer {
        match reply {
            Reply::Busy => return failed(503),
            Reply::Forbidden => return failed(403),
            Reply::Good | Reply::Lost => {}
        }
        let count = write.body["series"]["count"].as_u64().unwrap_or(1);
        let path = write.name.clone();
        let answer = match write.action {
            Action::Create if self.counts.contains_key(&path) => already_there(),
            Action::Update if !self.counts.contains_key(&path) => gone(),
            Action::Create | Action::Update => {
                let before = self.counts.insert(path, count);
                assert!(before.is_none_or(|before| before <= count), "a count never falls: {before:?} to {count}");
                done()
            }
        };
        if matches!(reply, Reply::Lost) {
            return failed(None);
        }
        self.writes.push((now_ns, write.name.split('.').next().unwrap_or_default().to_owned()));
        answer
    }
}

/// The queue, the server, and the time that they share.
struct World {
    events: Events,
    server: Server,
    now_ns: u64,
    sequence: u64,
    wall_us: i64,
    happened: u64,
    last: Option<KillReport>,
}

impl World {
    fn new() -> Self {
        let events = Events::new(BUDGETS, identity(), "b0071d");
        let server = Server::default();
        Self { events, server, now_ns: 100 * SECOND, sequence: 0, wall_us: 0, happened: 0, last: None }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Kill { pod: number, group } => {
                self.happened += 1;
                let victims = if *group { 3 } else { 1 };
                let incident = self.sequence;
                for _ in 0..victims {
                    self.sequence += 1;
                    let mut report = kill(self.sequence, pod(&format!("pod-{number}")), self.now_ns);
                    report.time_us += self.wall_us;
                    (report.incident, report.group_kill) = (incident, *group);
                    self.events.kill(&report, self.now_ns);
                    self.last = Some(report);
                }
            }
            Step::Again => {
                if let Some(report) = &self.last {
                    self.events.kill(report, self.now_ns);
                }
            }
            Step::Wait { milliseconds } => self.now_ns += u64::from(*milliseconds) * 1_000_000,
            Step::Clock { seconds } => self.wall_us = i64::from(*seconds) * 1_000_000,
            Step::Restart => {
                let snapshot = serde_json::to_string(&self.events.snapshot()).expect("JSON");
                let snapshot = serde_json::from_str(&snapshot).expect("JSON of ours");
                self.events = Events::restore(BUDGETS, identity(), "b0071d", snapshot, self.now_ns);
            }
            Step::Expire { pod } => {
                let prefix = format!("pod-{pod}.");
                // What comes back comes back with its whole count: see `told`.
                self.server.counts.retain(|path, count| {
                    let expires = path.starts_with(&prefix);
                    self.server.expired += if expires { *count } else { 0 };
                    !expires
                });
            }
        }
    }

    /// Writes all that is due now.
    fn write(&mut self, reply: Reply) {
        for _ in 0..1000 {
            let Next::Write(write) = self.events.next(self.now_ns) else { return };
            let answer = self.server.take(&write, reply, self.now_ns);
            self.events.done(&answer, self.now_ns);
        }
        panic!("the queue never has enough");
    }

    /// Lets time pass until the queue wants nothing any more.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            self.write(Reply::Good);
            match self.events.next(self.now_ns) {
                Next::Write(_) => unreachable!("all that was due is written"),
                Next::At(at) => {
                    assert!(at > self.now_ns, "the queue asks to be asked in the future");
                    self.now_ns = at;
                }
                Next::Nothing => return,
            }
        }
        panic!("the queue is never empty");
    }
}

/// No more writes in any span of time than the bucket gives.
fn holds(times: &[u64], budget: Budget) -> bool {
    let every = u64::try_from(budget.every.as_nanos()).unwrap();
    times.iter().enumerate().all(|(first, start)| {
        times[first..].iter().enumerate().all(|(more, end)| {
            let allowed = u64::from(budget.burst) + (end - start) / every + 1;
            (more as u64) < allowed
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_happening_is_counted_once(steps in steps()) {
        let mut world = World::new();
        for (step, reply) in steps.iter().filter(|(step, _)| !matches!(step, Step::Expire { .. })) {
            world.step(step);
            world.write(*reply);
        }
        world.drain();
        prop_assert_eq!(world.server.counts.values().sum::<u64>(), world.happened);
        prop_assert_eq!(world.events.counts().waiting, 0);
        prop_assert_eq!(world.events.counts().dropped, 0);
    }

    #[test]
    fn nothing_is_lost_where_events_expire(steps in steps()) {
        let mut world = World::new();
        for (step, reply) in &steps {
            world.step(step);
            world.write(*reply);
        }
        world.drain();
        let held: u64 = world.server.counts.values().sum();
        prop_assert!(held <= world.happened, "held {held} of {}", world.happened);
        prop_assert!(held + world.server.expired >= world.happened, "held {held}, expired {}", world.server.expired);
    }

    #[test]
    fn budgets_are_never_exceeded(steps in steps()) {
        let mut world = World::new();
        for (step, reply) in &steps {
            world.step(step);
            world.write(*reply);
        }
        world.drain();
        let all: Vec<u64> = world.server.writes.iter().map(|(at, _)| *at).collect();
        prop_assert!(holds(&all, BUDGETS.node_budget), "{all:?}");
        for number in 0..4 {
            let subject = format!("pod-{number}");
            let own: Vec<u64> =
                world.server.writes.iter().filter(|(_, of)| *of == subject).map(|(at, _)| *at).collect();
            prop_assert!(holds(&own, BUDGETS.pod_budget), "{subject}: {own:?}");
        }
    }

    #[test]
    fn a_storm_never_delays_the_first_event_of_another_pod(
        kills in prop::collection::vec((1..400_u64, 0..3_u8), 1..300),
        at in 0..300_usize,
    ) {
        let settings = config::Events { pod_budget: Budget { burst: 3, every: Duration::from_secs(5) }, ..BUDGETS };
        let mut events = Events::new(settings, identity(), "b0071d");
        let mut now = 100 * SECOND;
        let mut told = 0;
        for (index, (milliseconds, container)) in kills.iter().enumerate() {
            now += milliseconds * 1_000_000;
            let mut subject = pod("storm");
            subject.container = Some(format!("c{}", container % 2));
            events.kill(&kill(index as u64, subject, now), now);
            if index == at.min(kills.len() - 1) {
                events.kill(&kill(9999, pod("quiet"), now), now);
                while let Next::Write(write) = events.next(now) {
                    told += usize::from(write.name.starts_with("quiet."));
                    events.done(&done(), now);
                }
                prop_assert_eq!(told, 1, "in the same step");
            }
            while let Next::Write(_) = events.next(now) {
                events.done(&done(), now);
            }
        }
    }
}
