//! What a later run knows from an earlier one.

use std::fs;

use super::*;

impl Machine {
    fn resume(&self, snapshot: &LocatorSnapshot, now_ns: u64) -> Locator {
        // As it comes back from disk.
        let written = serde_json::to_vec(snapshot).unwrap();
        let read: LocatorSnapshot = serde_json::from_slice(&written).unwrap();
        let reader = Box::new(InPlace::new(self.root.path()));
        Locator::resume(self.root.path(), reader, &read, now_ns).unwrap().0
    }
}

fn names(place: &Place) -> [Option<&str>; 3] {
    let container = container(place);
    let pod = container.pod.as_ref();
    [pod.and_then(|pod| pod.namespace.as_deref()), pod.and_then(|pod| pod.name.as_deref()), container.name.as_deref()]
}

const NAMES: [Option<&str>; 3] = [Some("shop"), Some("web"), Some("app")];

#[test]
fn a_container_that_died_before_or_during_the_restart_is_still_named() {
    let mut machine = Machine::new();
    let other = ID.replace('a', "b");
    machine.bundle(ID, "container");
    machine.bundle(&other, "container");
    let living = machine.make(&scope());
    let inner = machine.make(&format!("{}/inner", scope()));
    let (mut locator, _) = machine.start();
    locator.apply(&machine.record(7, Some(&scope().replace(ID, &other)), CgroupChange::Made, SECOND));
    locator.fetch_names(8);
    locator.apply(&machine.record(7, None, CgroupChange::Removed, 2 * SECOND));
    let snapshot = locator.snapshot();

    fs::remove_dir_all(machine.directory("/kubepods.slice")).unwrap();
    fs::remove_dir_all(under(machine.root.path(), BUNDLE)).unwrap();
    let mut locator = machine.resume(&snapshot, 60 * SECOND);
    for key in [living, inner, key(7)] {
        assert_eq!(names(&locator.place(key, None, 50 * SECOND).unwrap()), NAMES);
    }
    // Ten minutes from its end, and for those that nobody saw die from the start.
    locator.apply(&machine.record(99, Some("/x"), CgroupChange::Made, 603 * SECOND));
    assert_eq!(locator.path(key(7)), None);
    assert!(locator.path(living).is_some());
    locator.apply(&machine.record(98, Some("/y"), CgroupChange::Made, 661 * SECOND));
    assert_eq!(locator.path(living), None);
}

#[test]
fn those_that_vanished_meanwhile_are_told_to_be_gone() {
    let machine = Machine::new();
    machine.bundle(ID, "container");
    machine.make(&scope());
    let (locator, _) = machine.start();
    let snapshot = locator.snapshot();
    fs::remove_dir_all(machine.directory("/kubepods.slice")).unwrap();
    let mut locator = machine.resume(&snapshot, 60 * SECOND);
    locator.watch_changes(60 * SECOND);
    let changes = locator.take_changes(60 * SECOND);
    assert!(changes.contains(&ContainerChange::Gone { id: ID.to_owned() }), "{changes:?}");
    assert!(changes.iter().any(|change| matches!(change, ContainerChange::PodGone { .. })), "{changes:?}");
}

#[test]
fn a_living_container_is_told_without_another_read_if_its_names_are_complete() {
    let machine = Machine::new();
    machine.bundle(ID, "container");
    machine.write(&format!("{BUNDLE}/{ID}/init.pid"), "4242");
    machine.make(&scope());
    let snapshot = machine.start().0.snapshot();
    let mut locator = machine.resume(&snapshot, 60 * SECOND);
    assert_eq!(locator.counters().names.found, 0);
    locator.watch_changes(60 * SECOND);
    assert!(
        matches!(locator.take_changes(60 * SECOND).as_slice(), [ContainerChange::Seen(place)] if names(place) == NAMES)
    );
}

#[test]
fn an_id_that_belongs_to_another_cgroup_by_now_is_that_one() {
    let machine = Machine::new();
    machine.bundle(ID, "container");
    let id = machine.make("/made/since").id;
    let saved = |removed_at| SavedCgroup { id, path: scope(), removed_at, names: None };
    for removed_at in [None, Some(SECOND)] {
        let snapshot = LocatorSnapshot { hierarchy: 0, cgroups: vec![saved(removed_at)] };
        let mut locator = machine.resume(&snapshot, 60 * SECOND);
        assert_eq!(&*locator.place(key(id), None, 60 * SECOND).unwrap().path, "/made/since");
    }
}

#[test]
fn a_container_under_an_id_that_was_anothers_is_named_anew() {
    let machine = Machine::new();
    machine.bundle(ID, "container");
    let id = machine.make(&scope()).id;
    let saved = SavedCgroup { id, path: "/before".to_owned(), removed_at: None, names: None };
    let mut locator = machine.resume(&LocatorSnapshot { hierarchy: 0, cgroups: vec![saved] }, 60 * SECOND);
    assert_eq!(locator.counters().names.found, 1);
    assert_eq!(names(&locator.place(key(id), None, 60 * SECOND).unwrap()), NAMES);
}

#[test]
fn what_cannot_be_of_this_machine_or_is_too_old_is_dropped() {
    let machine = Machine::new();
    let cgroup = |id, path: &str, removed_at| SavedCgroup { id, path: path.to_owned(), removed_at, names: None };
    let foreign = LocatorSnapshot { hierarchy: 4, cgroups: vec![cgroup(7, "/a", None)] };
    assert_eq!(machine.resume(&foreign, SECOND).sizes(), (1, 0));
    let odd = vec![
        cgroup(7, "no path", None),
        cgroup(8, "/old", Some(SECOND)),
        cgroup(9, "/to-come", Some(9999 * SECOND)),
        cgroup(10, "/good", Some(700 * SECOND)),
        cgroup(10, "/twice", None),
    ];
    let locator = machine.resume(&LocatorSnapshot { hierarchy: 0, cgroups: odd }, 800 * SECOND);
    assert_eq!(locator.sizes(), (1, 1));
}

#[test]
fn containers_are_written_down_before_all_else_and_no_more_than_there_is_room_for() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    for id in 0..SNAPSHOT_CAPACITY as u64 + 10 {
        locator.apply(&machine.record(
            1000 + id,
            Some(&format!("/system.slice/{id}.service")),
            CgroupChange::Made,
            SECOND,
        ));
    }
    locator.apply(&machine.record(7, Some(&format!("{}/inner", scope())), CgroupChange::Made, SECOND));
    locator.apply(&machine.record(8, Some(&scope()), CgroupChange::Made, SECOND));
    locator.apply(&machine.record(8, None, CgroupChange::Removed, 2 * SECOND));
    locator.apply(&machine.record(9, Some(POD), CgroupChange::Made, SECOND));
    let before = locator.revision();
    let snapshot = locator.snapshot();
    assert_eq!(snapshot.cgroups.len(), SNAPSHOT_CAPACITY);
    assert_eq!(snapshot.cgroups.iter().take(3).map(|saved| saved.id).collect::<Vec<_>>(), [9, 8, 7]);
    locator.apply(&machine.record(9, None, CgroupChange::Removed, 3 * SECOND));
    assert_ne!(locator.revision(), before);
}
