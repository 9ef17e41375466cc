//! Agents one after the other on one machine, which is a directory: what each tells.

use std::{fs, path::PathBuf};

use super::*;
use crate::{
    agent::{
        sink::{
            condition::{Conditions, Setup},
            delivery::Next,
            event::Events,
            fixture,
            metric::{Format, Metrics},
        },
        source::previous_boot::boots::Owner,
    },
    cluster::{Answer, Identity, Outcome},
    config::Config,
};

/// A machine in a directory of its own, which lives as long as the test.
struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("var/lib/detector/boot.json")
    }

    fn panics(&self, id: u64) {
        let directory = self.root.path().join("sys/fs/pstore");
        fs::create_dir_all(&directory).unwrap();
        let text = format!("Panic#1 Part1\n<0>[1.000000] Kernel panic - not syncing: number {id}\n");
        fs::write(directory.join(format!("dmesg-erst-{id}")), text).unwrap();
    }

    /// What stands in the agent's note.
    fn note(&self) -> Note {
        let owner = Owner { node: "node-a".into(), machine: None };
        BootsFile::at(&self.file()).read(&owner).unwrap().expect("a note")
    }

    /// Starts an agent in the boot `boot_id`.
    fn start(&self, boot_id: &str) -> Agent {
        self.start_with(boot_id, true)
    }

    fn start_with(&self, boot_id: &str, events_enabled: bool) -> Agent {
        let now = now();
        let present = Present { node: "node-a".into(), boot_id: boot_id.into(), booted: now, now };
        let config = Config::default();
        let metrics = Metrics::new(&config.metrics);
        // The thread asks for a path that outlives it.
        let root: &'static Path = Box::leak(self.root.path().to_owned().into_boxed_path());
        let (mut chronicler, looked) = Chronicler::start(root, Some(&self.file()), present, metrics.instruments());
        // Whose disk is busy gets the time that it needs.
        chronicler.patience = Duration::from_secs(600);
        let identity = Identity { node: "node-a".into(), node_uid: None };
        let setup = Setup {
            config: config.conditions.clone(),
            node: "node-a".into(),
            boot_id: boot_id.into(),
            scan: None,
            wall: fixture::UNITS.wall,
        };
        let events = Handle::new(Events::new(config.events, identity, boot_id));
        let listeners = Listeners {
            conditions: Rc::new(Desk::new(Conditions::new(setup, 0))),
            events: events_enabled.then(|| events.clone()),
            orders: chronicler.orders(),
            instruments: metrics.instruments(),
            keep: Duration::MAX,
            booted: now,
        };
        let conditions = Rc::clone(&listeners.conditions);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(tell(looked, listeners));
        Agent { chronicler, conditions, events, metrics }
    }
}

struct Agent {
    chronicler: Chronicler,
    conditions: Rc<Desk>,
    events: Handle,
    metrics: Metrics,
}

impl Agent {
    /// Status, reason and message of the condition.
    fn condition(&self) -> (String, String, String) {
        let all = self.conditions.ask(|conditions| conditions.conditions(clock::boot_ns()));
        let found = all.into_iter().find(|condition| condition.kind() == "PreviousBootCrash").expect("the condition");
        (found.status().to_owned(), found.reason().to_owned(), found.message().to_owned())
    }

    /// Writes all events that are due; their reasons.
    fn write_events(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        while let Next::Write(write) = self.events.next(clock::boot_ns()) {
            assert!(write.is_about_node());
            reasons.push(write.reason.name().to_owned());
            self.events.done(&Answer { status: Some(201), outcome: Outcome::Done }, clock::boot_ns());
            self.chronicler.orders().written(write.reason);
        }
        reasons
    }

    fn count(&self, end: &str) -> bool {
        let page = self.metrics.exposition().encode(Format::Prometheus);
        page.contains(&format!("detector_previous_boot_crashes_total{{end=\"{end}\"}} 1\n"))
    }

    /// The kernel dies: nobody is told to stop.
    fn crash(self) {
        let Self { chronicler, .. } = self;
        // What was ordered before is written.
        while chronicler.orders.try_send(Order::Told(End::Clean)).is_err() {}
        chronicler.failed();
    }
}

#[test]
fn a_panic_is_told_by_event_condition_and_metric_and_the_event_once() {
    let machine = Machine::new();
    drop(machine.start("b1"));
    machine.panics(7);
    let agent = machine.start("b2");
    let (status, reason, message) = agent.condition();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "KernelPanic"));
    assert!(message.ends_with("by pstore (erst): Kernel panic - not syncing: number 7"), "{message}");
    assert!(agent.count("panic"));
    assert_eq!(agent.write_events(), ["KernelPanicFound"]);
    drop(agent);
    // It was an upgrade of the agent.
    let agent = machine.start("b2");
    assert_eq!((agent.condition().0.as_str(), agent.write_events()), ("True", Vec::new()));
    assert!(agent.count("panic"));
    drop(agent);
    // The machine was shut down: nothing is claimed, the count stays.
    let agent = machine.start("b3");
    let (status, reason, _) = agent.condition();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "NoPreviousBootCrash"));
    assert!(agent.count("panic") && !agent.count("unclean"));
    assert_eq!(agent.write_events(), Vec::<String>::new());
}

#[test]
fn an_event_that_was_not_written_before_the_next_crash_is_written_after_it() {
    let machine = Machine::new();
    machine.start("b1").crash();
    machine.panics(7);
    machine.start("b2").crash();
    let agent = machine.start("b3");
    assert_eq!(agent.condition().1, "UncleanShutdown");
    assert_eq!(agent.write_events(), ["KernelPanicFound", "UncleanShutdownFound"]);
    assert!(agent.count("panic") && agent.count("unclean"));
}

#[test]
fn an_agent_that_is_told_to_stop_writes_it_down_before_it_ends() {
    let machine = Machine::new();
    drop(machine.start("b1"));
    let note = machine.note();
    assert!(note.boot.stopped.is_some());
    machine.start("b1").crash();
    let note = machine.note();
    assert_eq!(note.boot.stopped, None, "it runs again");
}

#[test]
fn orders_that_change_nothing_write_nothing() {
    let machine = Machine::new();
    drop(machine.start("b1"));
    let mut note = machine.note();
    assert!(!apply(&mut note, &Order::Told(End::Panic)));
    assert!(apply(&mut note, &Order::Alive(now())));
}

#[test]
fn a_place_that_cannot_be_written_costs_the_memory_and_nothing_else() {
    let machine = Machine::new();
    fs::create_dir_all(machine.root.path().join("var/lib")).unwrap();
    fs::write(machine.root.path().join("var/lib/detector"), "a file").unwrap();
    machine.panics(7);
    let agent = machine.start("b1");
    assert_eq!(agent.write_events(), ["KernelPanicFound"]);
    let page = agent.metrics.exposition().encode(Format::Prometheus);
    assert!(page.lines().any(|line| line.starts_with("detector_state_write_failures_total") && !line.ends_with(" 0")));
}

#[test]
fn where_no_events_are_written_the_log_is_told_once_and_no_debt_is_kept() {
    let machine = Machine::new();
    drop(machine.start("b1"));
    machine.panics(7);
    drop(machine.start_with("b2", false));
    assert!(machine.note().findings.iter().all(|kept| kept.told));
    let agent = machine.start("b2");
    assert_eq!((agent.condition().1.as_str(), agent.write_events()), ("KernelPanic", Vec::new()));
}

#[test]
fn a_record_that_stays_for_weeks_is_told_in_the_boot_after_it_only() {
    let machine = Machine::new();
    machine.start("b1").crash();
    machine.panics(7);
    let agent = machine.start("b2");
    assert_eq!(agent.write_events(), ["KernelPanicFound"]);
    drop(agent);
    for boot in 3..20 {
        let agent = machine.start(&format!("b{boot}"));
        assert_eq!((agent.condition().0.as_str(), agent.write_events()), ("False", Vec::new()), "boot {boot}");
        assert!(agent.count("panic") && !agent.count("unclean"));
        drop(agent);
    }
}

#[test]
fn a_disk_that_never_answers_does_not_hold_up_the_agent_nor_its_end() {
    // The thread that hangs is this test: it takes no order, and does not end.
    for ordered in [10 * ORDERS, 1] {
        let (orders, never) = mpsc::sync_channel(ORDERS);
        let (_alive, ended) = mpsc::sync_channel::<()>(1);
        let chronicler = Chronicler { orders, ended, patience: Duration::from_millis(1), told_to_stop: true };
        let orders = chronicler.orders();
        for _ in 0..ordered {
            orders.alive();
        }
        drop(chronicler);
        let kept = (ordered + 1).min(ORDERS);
        assert_eq!(never.try_iter().count(), kept, "what finds no room is left out");
    }
}

#[test]
fn an_agent_that_fails_was_not_told_to_stop() {
    let machine = Machine::new();
    machine.start("b1").crash();
    assert_eq!(machine.note().boot.stopped, None);
    let agent = machine.start("b2");
    assert_eq!(agent.condition().1, "UncleanShutdown");
}
