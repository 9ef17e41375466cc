//! Kills that the kernel side counted and no record told: told as a number, accounted for, and their counts forgotten with
//! their cgroup.

use std::io;

use detector::{
    agent::{
        Sink,
        locate::InPlace,
        pipeline::Pipeline,
        problem::Transition,
        sink::{Booked, Counting, MethodChange, Notice, Started, Summary, Tally},
        source::pin::{Counted, Counts},
    },
    clock::WallClock,
};

use crate::{machine::Machine, session::SECOND};

/// Books as many kills as it is told to, and writes down what it hears.
#[derive(Default)]
struct Books {
    books: u64,
    tallies: Vec<Tally>,
    unaccounted: Vec<i64>,
}

impl Sink for Books {
    fn started(&mut self, _: &Started) -> io::Result<()> {
        Ok(())
    }

    fn transition(&mut self, _: &Transition) -> io::Result<()> {
        Ok(())
    }

    fn method_changed(&mut self, _: &MethodChange) -> io::Result<()> {
        Ok(())
    }

    fn notice(&mut self, _: &Notice) -> io::Result<()> {
        Ok(())
    }

    fn summary(&mut self, _: &Summary) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reconciled(&mut self, unaccounted: i64) -> io::Result<()> {
        self.unaccounted.push(unaccounted);
        Ok(())
    }

    fn counted(&mut self, tally: &Tally) -> io::Result<Booked> {
        self.tallies.push(tally.clone());
        Ok(Booked { kills: std::mem::take(&mut self.books), again: false })
    }

    fn set_wall_clock(&mut self, _: WallClock) {}
}

fn run(machine: &Machine, books: &mut Books, script: impl FnOnce(&mut Pipeline<'_>)) {
    let now = || SECOND;
    let reader = Box::new(InPlace::new(machine.root()));
    let mut pipeline = Pipeline::start_with(books, machine.root(), None, &now, reader).expect("a hierarchy");
    script(&mut pipeline);
}

fn counts(kills: &[(Option<(u32, u64)>, u64)]) -> Counts {
    Counts { map: 7, kills: kills.iter().map(|(cgroup, kills)| Counted { cgroup: *cgroup, kills: *kills }).collect() }
}

#[test]
fn what_is_told_as_a_number_is_missing_no_more() {
    let machine = Machine::version_2();
    let mut books = Books { books: 3, ..Books::default() };
    run(&machine, &mut books, |pipeline| {
        machine.kernel_counted(4);
        pipeline.reconcile().expect("told");
        pipeline.count_kills(&counts(&[]), Counting::GoesOn).expect("told");
        pipeline.reconcile().expect("told");
    });
    assert_eq!(books.unaccounted, [4, 1]);
}

#[test]
fn what_was_missed_before_the_start_makes_up_for_nothing() {
    let machine = Machine::version_2();
    let mut books = Books { books: 500, ..Books::default() };
    run(&machine, &mut books, |pipeline| {
        machine.kernel_counted(2);
        pipeline.count_kills(&counts(&[]), Counting::Begins).expect("told");
        pipeline.reconcile().expect("told");
        machine.kernel_counted(3);
        pipeline.reconcile().expect("told");
    });
    assert_eq!(books.unaccounted, [0, 1]);
}

#[test]
fn counts_are_told_with_their_place_and_those_of_nobody_without() {
    let machine = Machine::version_2();
    let id = machine.make_cgroup("/known");
    let mut books = Books::default();
    let counts = counts(&[(None, 1), (Some((0, id)), 2), (Some((0, id + 1_000_000)), 3)]);
    run(&machine, &mut books, |pipeline| {
        pipeline.count_kills(&counts, Counting::Begins).expect("told");
    });
    let [tally] = books.tallies.as_slice() else { panic!("{:?}", books.tallies) };
    let told: Vec<_> =
        tally.cgroups.iter().map(|one| (one.place.as_ref().map(|place| place.path.to_string()), one.kills)).collect();
    assert_eq!(told, [(None, 1), (Some("/known".to_owned()), 2), (None, 3)]);
}

#[test]
fn only_counts_of_cgroups_that_are_known_no_more_are_forgotten_at_the_second_look() {
    let machine = Machine::version_2();
    let id = machine.make_cgroup("/known");
    let counts = counts(&[(None, 1), (Some((0, id)), 2), (Some((0, id + 1_000_000)), 3)]);
    run(&machine, &mut Books::default(), |pipeline| {
        let mut look = |state| pipeline.count_kills(&counts, state).expect("told").forgotten;
        assert_eq!(look(Counting::Begins), []);
        assert_eq!(look(Counting::GoesOn), []);
        assert_eq!(look(Counting::GoesOn), [(0, id + 1_000_000)]);
    });
}
