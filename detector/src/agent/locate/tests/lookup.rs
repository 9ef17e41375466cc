//! Cgroups asked for by path and by process, and pods named by their containers.

use std::fs;

use super::*;

#[test]
fn a_path_without_id_finds_the_living_cgroup_and_its_names() {
    let machine = Machine::new();
    machine.bundle(ID, "container");
    let made = machine.make(&scope());
    let (mut locator, _) = machine.start();
    let (key, place) = locator.place_by_path(&scope(), SECOND);
    assert_eq!((key, container(&place).name.as_deref()), (Some(made), Some("app")));
    let later = machine.make("/made/later");
    assert_eq!(locator.place_by_path("/made/later", SECOND).0, Some(later));
}

#[test]
fn a_path_finds_the_cgroup_that_lived_at_the_time_of_the_event() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    for (id, from, to) in [(7, 1, 2), (8, 3, 4), (9, 5, 6)] {
        locator.apply(&machine.record(id, Some("/again"), CgroupChange::Made, from * SECOND));
        locator.apply(&machine.record(id, Some("/again"), CgroupChange::Removed, to * SECOND));
    }
    let mut at = |seconds: u64| locator.place_by_path("/again", seconds * SECOND).0.unwrap().id;
    assert_eq!([at(1), at(2), at(3), at(6), at(7)], [7, 7, 8, 9, 9]);
    let living = machine.make("/again");
    assert_eq!(locator.place_by_path("/again", 5 * SECOND).0, Some(key(9)));
    assert_eq!(locator.place_by_path("/again", 8 * SECOND).0, Some(living));
}

#[test]
fn a_path_that_nobody_knows_is_a_place_all_the_same() {
    let machine = Machine::new();
    let (mut locator, _) = machine.start();
    let (key, place) = locator.place_by_path(&scope(), SECOND);
    assert_eq!((key, container(&place).id.as_str()), (None, ID));
    machine.make("/there");
    for odd in ["", "there", "/../etc", "/./there", "//there", "/there/", "no path", "/cgroup.controllers"] {
        let (key, place) = locator.place_by_path(odd, SECOND);
        assert_eq!((key, &*place.path, &place.owner), (None, odd, &Owner::Cgroup));
    }
}

#[test]
fn in_a_part_of_the_hierarchy_a_path_is_looked_up_among_what_records_told() {
    let mut machine = Machine::new();
    machine.write("/sys/fs/cgroup/cgroup.events", "populated 1\n");
    machine.make("/docker/x");
    let (mut locator, _) = machine.start();
    assert_eq!(locator.place_by_path("/docker/x", SECOND).0, None);
    locator.apply(&machine.record(7, Some("/docker/x"), CgroupChange::Made, SECOND));
    assert_eq!(locator.place_by_path("/docker/x", SECOND).0, Some(key(7)));
    machine.write("/proc/99/cgroup", "0::/docker/x\n");
    assert_eq!(locator.place_by_pid(99, SECOND), None);
}

#[test]
fn a_process_is_placed_where_its_memory_is_charged() {
    let machine = Machine::new();
    let charged = machine.make("/system.slice/late.service");
    machine.make("/system.slice/late.service/sub");
    machine.write("/sys/fs/cgroup/system.slice/late.service/memory.events", "oom 0\n");
    machine.write("/proc/98/cgroup", "0::/../outside\n");
    machine.write("/proc/99/cgroup", "0::/system.slice/late.service/sub\n");
    let (mut locator, _) = machine.start();
    let (key, place) = locator.place_by_pid(99, SECOND).unwrap();
    assert_eq!((key, &*place.path), (charged, "/system.slice/late.service"));
    assert_eq!((locator.place_by_pid(97, SECOND), locator.place_by_pid(98, SECOND)), (None, None));
}

#[test]
fn a_process_of_a_removed_cgroup_is_placed_by_its_tombstone() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    locator.apply(&machine.record(7, Some("/gone"), CgroupChange::Made, SECOND));
    locator.apply(&machine.record(7, Some("/gone"), CgroupChange::Removed, 2 * SECOND));
    machine.write("/proc/99/cgroup", "0::/gone (deleted)\n");
    assert_eq!(locator.place_by_pid(99, 3 * SECOND).unwrap().0, key(7));
}

#[test]
fn on_version_1_a_process_is_placed_by_the_line_of_the_memory_hierarchy() {
    let machine = Machine::new();
    machine.write("/proc/self/cgroup", "9:cpu:/\n4:memory:/\n");
    machine.write("/proc/self/mountinfo", "35 31 0:32 / /sys/fs/cgroup rw - cgroup cgroup rw,memory\n");
    machine.write("/sys/fs/cgroup/cgroup.sane_behavior", "0\n");
    machine.write("/proc/99/cgroup", "9:cpu:/other\n4:memory:/own\n");
    let id = machine.make("/own").id;
    let (mut locator, _) = machine.start();
    assert_eq!(locator.place_by_pid(99, SECOND).unwrap().0, CgroupKey { hierarchy: 4, id });
}

#[test]
fn a_pods_own_cgroup_is_named_by_its_containers() {
    let mut machine = Machine::new();
    machine.bundle(ID, "sandbox");
    let (mut locator, _) = machine.start();
    let slice = format!("{POD}.slice");
    for (id, path) in [(6, slice.as_str()), (7, POD), (8, &scope())] {
        locator.apply(&machine.record(id, Some(path), CgroupChange::Made, SECOND));
    }
    let place = locator.place(key(7), None, SECOND).unwrap();
    let Owner::Pod(pod) = &place.owner else { panic!("{:?}", place.owner) };
    assert_eq!((pod.namespace.as_deref(), pod.name.as_deref()), (Some("shop"), Some("web")));
    fs::remove_dir_all(under(machine.root.path(), BUNDLE)).unwrap();
    assert_eq!(locator.place(key(7), None, 60 * SECOND).unwrap(), place);
}

#[test]
fn a_container_without_files_shares_its_pods_name_with_those_that_have_some() {
    let mut machine = Machine::new();
    let other = ID.replace('a', "b");
    machine.bundle(&other, "container");
    let (mut locator, _) = machine.start();
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    locator.apply(&machine.record(8, Some(&scope().replace(ID, &other)), CgroupChange::Made, SECOND));
    locator.fetch_names(8);
    let place = locator.place(key(7), None, SECOND).unwrap();
    let pod = container(&place).pod.as_ref().unwrap();
    assert_eq!((container(&place).name.as_deref(), pod.name.as_deref()), (None, Some("web")));
}
