//! What one run hands over to the next of the same boot: losses told once, and a state saved before the spool is full.

use std::{cell::Cell, io, rc::Rc};

use detector::{
    agent::{
        Detector, Method, Sink,
        locate::InPlace,
        pipeline::Pipeline,
        problem::Transition,
        sink::{Handover, MethodChange, Notice, Stage, Started, Status, Summary},
        source::bpf::health::{Dropped, UNCOUNTED_KILLS},
    },
    clock::WallClock,
};

use crate::{
    machine::Machine,
    recording::Recording,
    session::{SECOND, drain},
};

/// Writes down what it is told of losses, and what it is to save.
#[derive(Default)]
struct Ledger {
    told: Vec<(&'static str, u64)>,
    kills: Rc<Cell<usize>>,
    saved: Option<Handover>,
    saves: Rc<Cell<usize>>,
    is_due: Rc<Cell<bool>>,
    disk_is_full: bool,
}

impl Sink for Ledger {
    fn started(&mut self, _: &Started) -> io::Result<()> {
        Ok(())
    }

    fn transition(&mut self, _: &Transition) -> io::Result<()> {
        self.kills.set(self.kills.get() + 1);
        Ok(())
    }

    fn method_changed(&mut self, _: &MethodChange) -> io::Result<()> {
        Ok(())
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        self.told.push((notice.kind, notice.count));
        Ok(())
    }

    fn summary(&mut self, _: &Summary) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn wants_saving(&self, _: u64) -> bool {
        self.is_due.get()
    }

    fn save(&mut self, handover: Handover) -> bool {
        self.saves.set(self.saves.get() + 1);
        if !self.disk_is_full {
            self.saved = Some(handover);
        }
        !self.disk_is_full
    }

    fn set_wall_clock(&mut self, _: WallClock) {}
}

/// One run that began with what an earlier one saved and saw these counters, one after the other; it is killed, and
/// nothing is told at its end. Returns what it told and what it saved.
fn run(before: &Handover, counters: &[&[Dropped]]) -> (Vec<(&'static str, u64)>, Handover) {
    let machine = Machine::version_1();
    let mut ledger = Ledger::default();
    let now = || SECOND;
    let reader = Box::new(InPlace::new(machine.root()));
    let started = Pipeline::resume(&mut ledger, machine.root(), None, &now, reader, &before.cgroups);
    let mut pipeline = started.expect("a hierarchy");
    pipeline.knows_of_losses(&before.dropped);
    let mut records = Recording::default();
    for counters in counters {
        records.dropped = counters.to_vec();
        drain(&mut pipeline, &mut records);
    }
    assert!(pipeline.save(Vec::new));
    (ledger.told, ledger.saved.expect("it was saved"))
}

const fn marks(count: u64) -> Dropped {
    Dropped { kind: "oom_mark", count }
}

#[test]
fn what_was_dropped_is_told_by_one_run_and_not_by_the_next() {
    let (told, saved) = run(&Handover::default(), &[&[marks(3)]]);
    assert_eq!(told, [("oom_mark", 3)]);
    assert_eq!(run(&saved, &[&[marks(3)]]).0, []);
}

#[test]
fn what_another_version_left_is_told_with_the_detectors_that_begin_last() {
    let machine = Machine::version_1();
    let mut ledger = Ledger::default();
    let now = || SECOND;
    let reader = Box::new(InPlace::new(machine.root()));
    let started = Pipeline::resume(&mut ledger, machine.root(), None, &now, reader, &Handover::default().cgroups);
    let mut pipeline = started.expect("a hierarchy");
    pipeline.note_many(Stage::Decode, "abi", 6, || "left unread".to_owned());
    let panic = Status { detector: Detector::Panic, method: Some(Method::Kprobe), refused: Vec::new() };
    pipeline.attached_late(&[panic]).expect("a ledger takes all");
    drop(pipeline);
    assert_eq!(ledger.told, [("abi", 6)]);
}

#[test]
fn what_was_dropped_while_nothing_ran_is_told_by_the_next_run() {
    let (_, saved) = run(&Handover::default(), &[&[marks(3)]]);
    assert_eq!(run(&saved, &[&[marks(10)]]).0, [("oom_mark", 7)]);
}

#[test]
fn a_loss_that_waits_to_be_told_is_left_to_the_next_run() {
    let (told, saved) = run(&Handover::default(), &[&[marks(3)], &[marks(5)]]);
    assert_eq!(told, [("oom_mark", 3)], "the rest is told a minute later");
    assert_eq!(run(&saved, &[&[marks(5)]]).0, [("oom_mark", 2)]);
}

#[test]
fn counters_that_began_anew_are_told_from_their_start() {
    let (_, saved) = run(&Handover::default(), &[&[marks(30)]]);
    assert_eq!(run(&saved, &[&[marks(4)]]).0, [("oom_mark", 4)]);
}

#[test]
fn kills_that_the_kernel_side_could_not_count_are_told() {
    let uncounted = Dropped { kind: UNCOUNTED_KILLS, count: 2 };
    assert_eq!(run(&Handover::default(), &[&[uncounted]]).0, [(UNCOUNTED_KILLS, 2)]);
}

#[test]
fn what_only_the_log_told_is_told_before_the_last_save() {
    let (machine, kills) = (Machine::version_1(), Rc::default());
    let mut ledger = Ledger { kills: Rc::clone(&kills), ..Ledger::default() };
    let now = || SECOND;
    let mut pipeline = Pipeline::start(&mut ledger, machine.root(), None, &now).expect("a hierarchy");
    pipeline.set_method(Detector::Oom, Some(Method::RawTracepoint));
    let line = b"3,900,1000000,-;Memory cgroup out of memory: Killed process 4711 (worker) total-vm:90000kB, \
        anon-rss:41000kB, file-rss:500kB, shmem-rss:0kB, UID:0 pgtables:120kB oom_score_adj:0\n";
    pipeline.take_line(line, 0).expect("nothing is written");
    assert_eq!(kills.get(), 0, "it waits for its record");
    let end = pipeline.end(&mut Recording::default()).expect("nothing is written");
    assert_eq!(kills.get(), 1);
    assert!(pipeline.save(Vec::new));
    pipeline.conclude(end).expect("nothing is written");
    assert_eq!(kills.get(), 1);
}

/// Whether the sink was asked to save, each time that this was `due` for it, or `urgent` for the spool.
fn attempts(disk_is_full: bool, asked: &[(bool, bool)]) -> Vec<bool> {
    let (machine, is_due, saves) = (Machine::version_1(), Rc::default(), Rc::default());
    let mut ledger = Ledger { disk_is_full, is_due: Rc::clone(&is_due), saves: Rc::clone(&saves), ..Ledger::default() };
    let now = || SECOND;
    let mut pipeline = Pipeline::start(&mut ledger, machine.root(), None, &now).expect("a hierarchy");
    let mut ask = |(due, urgent): &(bool, bool)| {
        let before = saves.get();
        is_due.set(*due);
        let saved = pipeline.save_if_due(*urgent, Vec::new);
        let asked = saves.get() > before;
        assert_eq!(saved, asked && !disk_is_full);
        asked
    };
    asked.iter().map(&mut ask).collect()
}

#[test]
fn a_spool_that_grows_is_reason_enough_to_save() {
    assert_eq!(attempts(false, &[(false, false), (true, false), (false, true)]), [false, true, true]);
}

#[test]
fn on_a_full_disk_a_spool_that_grows_does_not_make_every_turn_an_attempt() {
    assert_eq!(attempts(true, &[(false, true), (false, true), (true, true)]), [true, false, true]);
}
