//! Containers and pods as they are told to those who keep account of them.

use std::fs;

use super::*;
use crate::agent::source::pods::{PodFacts, PodUpdate};

const UID: &str = "0d6dfc9d-3f4b-4c55-8a6b-2a0a6f4f4d11";

/// Changes in short.
fn short(changes: &[ContainerChange]) -> Vec<String> {
    let text = |change: &ContainerChange| match change {
        ContainerChange::Seen(place) => {
            let Owner::Container(container) = &place.owner else { panic!("{place:?}") };
            let pod = container.pod.as_ref();
            let names = [pod.and_then(|pod| pod.namespace.as_deref()), pod.and_then(|pod| pod.name.as_deref())];
            let [namespace, pod] = names.map(|name| name.unwrap_or("?"));
            format!("seen {namespace}/{pod}/{}", container.name.as_deref().unwrap_or("?"))
        }
        ContainerChange::Gone { id } => format!("gone {}", &id[..4]),
        ContainerChange::PodGone { uid } => format!("pod gone {}", &uid[..4]),
    };
    changes.iter().map(text).collect()
}

impl Machine {
    fn watched(&self) -> Locator {
        let (mut locator, _) = self.start();
        locator.watch_changes(SECOND);
        locator
    }
}

/// Takes what the locator tells after its due work.
fn told(locator: &mut Locator, now_ns: u64) -> Vec<String> {
    locator.look_after(now_ns);
    short(&locator.take_changes(now_ns))
}

#[test]
fn a_container_is_told_with_its_names_and_so_is_its_end_and_that_of_its_pod() {
    let mut machine = Machine::new();
    let mut locator = machine.watched();
    machine.bundle(ID, "container");
    locator.apply(&machine.record(6, Some(POD), CgroupChange::Made, SECOND));
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    assert_eq!(told(&mut locator, SECOND), ["seen shop/web/app"]);
    assert_eq!(told(&mut locator, 2 * SECOND), <[&str; 0]>::default());
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Removed, 3 * SECOND));
    locator.apply(&machine.record(6, Some(POD), CgroupChange::Removed, 3 * SECOND));
    assert_eq!(told(&mut locator, 3 * SECOND), ["gone a172", "pod gone 0d6d"]);
}

#[test]
fn those_that_were_there_before_are_told_and_a_sandbox_is_not() {
    let machine = Machine::new();
    let sandbox = ID.replace('a', "b");
    machine.bundle(ID, "container");
    machine.bundle(&sandbox, "sandbox");
    machine.make(&scope());
    machine.make(&scope().replace(ID, &sandbox));
    machine.make(&format!("{}/inner", scope()));
    machine.make("/system.slice/ssh.service");
    let mut locator = machine.watched();
    assert_eq!(told(&mut locator, SECOND), ["seen shop/web/app"]);
}

#[test]
fn the_end_of_a_sandbox_is_told_of_its_pod_alone() {
    let mut machine = Machine::new();
    let mut locator = machine.watched();
    machine.bundle(ID, "sandbox");
    locator.apply(&machine.record(6, Some(POD), CgroupChange::Made, SECOND));
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    assert_eq!(told(&mut locator, SECOND), <[&str; 0]>::default());
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Removed, 3 * SECOND));
    locator.apply(&machine.record(6, Some(POD), CgroupChange::Removed, 3 * SECOND));
    assert_eq!(told(&mut locator, 3 * SECOND), ["pod gone 0d6d"]);
}

#[test]
fn a_container_whose_files_come_late_is_told_again() {
    let mut machine = Machine::new();
    let mut locator = machine.watched();
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    assert_eq!(told(&mut locator, SECOND), ["seen ?/?/?"]);
    // The line's own attempts end soon; what comes later is found by the search that fades.
    for _ in 0..5 {
        assert_eq!(told(&mut locator, SECOND), <[&str; 0]>::default());
    }
    machine.bundle(ID, "container");
    assert_eq!(locator.next_due(), Some(2 * SECOND));
    assert_eq!(told(&mut locator, 2 * SECOND), ["seen shop/web/app"]);
    // The search is over, and so is the reading.
    for second in 3..10 {
        locator.look_after(second * SECOND);
    }
    assert_eq!(locator.next_due(), None);
}

#[test]
fn a_machine_at_rest_has_nothing_due() {
    let mut machine = Machine::new();
    machine.bundle(ID, "container");
    machine.write(&format!("{BUNDLE}/{ID}/init.pid"), "4242");
    let mut locator = machine.watched();
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    told(&mut locator, SECOND);
    locator.look_after(2 * SECOND);
    assert_eq!(locator.next_due(), None);
    // One that nobody will ever name is looked at for two minutes.
    locator.apply(&machine.record(8, Some("/lxc.payload.web"), CgroupChange::Made, SECOND));
    let (mut now, mut looks) = (3 * SECOND, 0);
    told(&mut locator, now);
    while let Some(due) = locator.next_due() {
        now = due;
        told(&mut locator, now);
        looks += 1;
    }
    assert!(now < 140 * SECOND && looks < 20, "{looks} looks until {now}");
}

#[test]
fn a_kill_in_a_container_without_names_makes_it_known_and_sought() {
    let mut machine = Machine::new();
    let mut locator = machine.watched();
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    let inner = format!("{}/inner", scope());
    locator.apply(&machine.record(8, Some(&inner), CgroupChange::Made, SECOND));
    let place = locator.place(key(8), None, 10 * SECOND).unwrap();
    assert_eq!(short(&locator.changes_before(&place, 10 * SECOND)), ["seen ?/?/?"]);
    assert_eq!(short(&locator.changes_before(&place, 10 * SECOND)), <[&str; 0]>::default());
    locator.seek_names(&place.path, 10 * SECOND, 40 * SECOND);
    machine.bundle(ID, "container");
    assert_eq!(told(&mut locator, 11 * SECOND), ["seen shop/web/app"]);
}

#[test]
fn names_of_a_container_that_is_gone_already_are_told_with_its_end() {
    let mut machine = Machine::new();
    let mut locator = machine.watched();
    locator.apply(&machine.record(6, Some(POD), CgroupChange::Made, SECOND));
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Removed, 2 * SECOND));
    let place = locator.place(key(7), None, 3 * SECOND).unwrap();
    assert_eq!(short(&locator.changes_before(&place, 3 * SECOND)), ["gone a172", "seen ?/?/?", "gone a172"]);
    locator.seek_names(&place.path, 3 * SECOND, 33 * SECOND);
    // The runtime's files are gone; the kubelet's link to the log stays.
    machine.write(&format!("/var/log/containers/web_shop_app-{ID}.log"), "");
    assert_eq!(told(&mut locator, 4 * SECOND), ["seen shop/web/app", "gone a172"]);
    locator.apply(&machine.record(6, Some(POD), CgroupChange::Removed, 5 * SECOND));
    assert_eq!(told(&mut locator, 5 * SECOND), ["pod gone 0d6d"]);
}

#[test]
fn a_pods_own_kill_without_names_is_named_by_a_container_that_is_read_later() {
    let mut machine = Machine::new();
    let mut locator = machine.watched();
    locator.apply(&machine.record(6, Some(POD), CgroupChange::Made, SECOND));
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    let place = locator.place(key(6), None, 2 * SECOND).unwrap();
    assert_eq!(short(&locator.changes_before(&place, 2 * SECOND)), ["seen ?/?/?"]);
    locator.seek_names(&place.path, 2 * SECOND, 32 * SECOND);
    machine.bundle(ID, "container");
    assert_eq!(told(&mut locator, 3 * SECOND), ["seen shop/web/app"]);
}

#[test]
fn a_container_that_starts_again_under_its_id_is_told_again() {
    let mut machine = Machine::new();
    let mut locator = machine.watched();
    machine.bundle(ID, "container");
    for at in [1, 3] {
        locator.apply(&machine.record(at, Some(&scope()), CgroupChange::Made, at * SECOND));
        assert_eq!(told(&mut locator, at * SECOND), ["seen shop/web/app"]);
        locator.apply(&machine.record(at, Some(&scope()), CgroupChange::Removed, (at + 1) * SECOND));
        assert_eq!(told(&mut locator, (at + 1) * SECOND), ["gone a172"]);
    }
}

#[test]
fn ends_whose_records_were_lost_are_told_after_a_walk() {
    let machine = Machine::new();
    machine.bundle(ID, "container");
    machine.make(&scope());
    let mut locator = machine.watched();
    assert_eq!(told(&mut locator, SECOND), ["seen shop/web/app"]);
    fs::remove_dir_all(machine.directory("/kubepods.slice")).unwrap();
    locator.walk_again(20 * SECOND);
    let mut told = told(&mut locator, 20 * SECOND);
    told.sort();
    assert_eq!(told, ["gone a172", "pod gone 0d6d"]);
}

#[test]
fn a_pod_that_shares_its_cgroup_with_its_container_goes_with_it() {
    let mut machine = Machine::new();
    let mut locator = machine.watched();
    machine.bundle(ID, "container");
    let shared = format!("/kubepods-pod{}.slice:cri-containerd:{ID}", UID.replace('-', "_"));
    locator.apply(&machine.record(7, Some(&shared), CgroupChange::Made, SECOND));
    assert_eq!(told(&mut locator, SECOND), ["seen shop/web/app"]);
    locator.apply(&machine.record(7, Some(&shared), CgroupChange::Removed, 2 * SECOND));
    assert_eq!(told(&mut locator, 2 * SECOND), ["gone a172", "pod gone 0d6d"]);
}

#[test]
fn with_pods_watched_a_static_pod_is_named_and_keeps_the_uid_of_its_path() {
    let mut machine = Machine::new();
    let hash = "2053dbbf6ec7135c4e994d3464c478db";
    let pod = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{hash}.slice");
    let scope = format!("{pod}/cri-containerd-{ID}.scope");
    let mut locator = machine.watched();
    locator.apply(&machine.record(6, Some(&pod), CgroupChange::Made, SECOND));
    locator.apply(&machine.record(7, Some(&scope), CgroupChange::Made, SECOND));
    assert_eq!(told(&mut locator, SECOND), ["seen ?/?/?"]);
    let uid_of =
        |locator: &mut Locator| container(&locator.place(key(7), None, SECOND).unwrap()).pod.clone().unwrap().uid;
    assert_eq!(uid_of(&mut locator), hash);

    let facts = PodFacts {
        uid: UID.to_owned(),
        namespace: "kube-system".to_owned(),
        name: "etcd-a".to_owned(),
        config_hash: Some(hash.to_owned()),
        containers: vec![(ID.to_owned(), "etcd".to_owned())],
    };
    locator.apply_pods(PodUpdate::Seen(facts.clone()), SECOND);
    let changes = locator.take_changes(SECOND);
    assert_eq!(short(&changes), ["seen kube-system/etcd-a/etcd"]);
    assert_eq!(uid_of(&mut locator), hash);
    locator.apply_pods(PodUpdate::Seen(facts), 2 * SECOND);
    assert_eq!(told(&mut locator, 2 * SECOND), <[&str; 0]>::default());

    locator.apply_pods(PodUpdate::Gone { uid: UID.to_owned() }, 3 * SECOND);
    locator.apply(&machine.record(7, Some(&scope), CgroupChange::Removed, 4 * SECOND));
    locator.apply(&machine.record(6, Some(&pod), CgroupChange::Removed, 4 * SECOND));
    assert_eq!(told(&mut locator, 4 * SECOND), ["gone a172", "pod gone 2053"]);
}

#[test]
fn without_anybody_who_wants_them_no_changes_are_kept() {
    let mut machine = Machine::new();
    machine.bundle(ID, "container");
    let (mut locator, _) = machine.start();
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    locator.fetch_names(8);
    locator.look_after(SECOND);
    assert_eq!((locator.take_changes(SECOND), locator.next_due()), (Vec::new(), None));
}
