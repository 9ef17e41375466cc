//! The whole stage over a temporary root: fake `/proc`, `/sys/fs/cgroup` and files of runtimes.

mod changes;
mod lookup;
mod snapshot;

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use tempfile::TempDir;

use super::*;
use crate::agent::decode::event::Stamp;
use crate::agent::source::small_file::under;

const ID: &str = "a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333";
const POD: &str = "/kubepods.slice/kubepods-pod0d6dfc9d_3f4b_4c55_8a6b_2a0a6f4f4d11.slice";
const BUNDLE: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";
const SECOND: u64 = 1_000_000_000;

struct Machine {
    root: TempDir,
    sequence: u64,
}

impl Machine {
    /// A machine with cgroup v2 and nothing in it.
    fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap(), sequence: 0 };
        machine.write("/proc/self/cgroup", "0::/\n");
        machine.write("/proc/self/mountinfo", "29 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        machine.write("/sys/fs/cgroup/cgroup.controllers", "memory pids\n");
        machine
    }

    fn write(&self, path: &str, content: &str) {
        let path = under(self.root.path(), path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn directory(&self, path: &str) -> PathBuf {
        under(self.root.path(), "/sys/fs/cgroup").join(path.trim_start_matches('/'))
    }

    fn make(&self, path: &str) -> CgroupKey {
        let directory = self.directory(path);
        fs::create_dir_all(&directory).unwrap();
        CgroupKey { hierarchy: 0, id: fs::metadata(directory).unwrap().ino() }
    }

    fn bundle(&self, id: &str, kind: &str) {
        self.write(
            &format!("{BUNDLE}/{id}/config.json"),
            &format!(
                r#"{{"annotations": {{"io.kubernetes.cri.container-type": "{kind}",
                "io.kubernetes.cri.container-name": "app", "io.kubernetes.cri.sandbox-name": "web",
                "io.kubernetes.cri.sandbox-namespace": "shop"}}}}"#
            ),
        );
    }

    fn start(&self) -> (Locator, Vec<Baseline>) {
        Locator::start_with(self.root.path(), Box::new(InPlace::new(self.root.path()))).unwrap()
    }

    fn record(&mut self, id: u64, path: Option<&str>, change: CgroupChange, boot_ns: u64) -> CgroupLife {
        self.sequence += 1;
        CgroupLife {
            stamp: Stamp { boot_ns, cpu: 0, sequence: self.sequence },
            key: CgroupKey { hierarchy: 0, id },
            path: path.map(str::to_owned),
            change,
        }
    }
}

fn key(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: 0, id }
}

fn container(place: &Place) -> &Container {
    match &place.owner {
        Owner::Container(container) => container,
        other => panic!("not a container: {other:?}"),
    }
}

fn scope() -> String {
    format!("{POD}/cri-containerd-{ID}.scope")
}

#[test]
fn cgroups_that_were_there_before_are_known_from_the_walk() {
    let machine = Machine::new();
    let unit = machine.make("/system.slice/ssh.service");
    let root = machine.make("/");
    let (mut locator, baselines) = machine.start();
    assert!(baselines.is_empty());
    let place = locator.place(unit, None, SECOND).unwrap();
    assert_eq!((&*place.path, &place.owner), ("/system.slice/ssh.service", &Owner::Unit("ssh.service".into())));
    assert_eq!(&*locator.place(root, None, SECOND).unwrap().path, "/");
    assert_eq!(locator.sizes(), (3, 0));
    assert_eq!(path_of_level(&place.path, 1), "/system.slice");
}

#[test]
fn the_walk_tells_only_counters_that_had_risen() {
    let machine = Machine::new();
    let hit = machine.make("/hit");
    machine.make("/calm");
    let above = machine.make("/above");
    machine.write("/sys/fs/cgroup/hit/memory.events.local", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\n");
    machine.write("/sys/fs/cgroup/hit/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n");
    machine.write("/sys/fs/cgroup/calm/memory.events.local", "oom 0\noom_kill 0\n");
    machine.write("/sys/fs/cgroup/calm/memory.events", "oom 0\noom_kill 0\n");
    machine.write("/sys/fs/cgroup/above/memory.events.local", "oom 0\noom_kill 0\n");
    machine.write("/sys/fs/cgroup/above/memory.events", "oom 1\noom_kill 1\n");
    let (_, mut baselines) = machine.start();
    baselines.sort_by_key(|baseline| std::cmp::Reverse(baseline.path.clone()));
    let told = |key, path: &str, oom_events, oom_kills| Baseline { key, path: path.into(), oom_events, oom_kills };
    assert_eq!(baselines, [told(hit, "/hit", Some(3), Some(2)), told(above, "/above", Some(0), Some(1))]);
}

#[test]
fn on_version_1_the_walk_reads_kills_from_oom_control() {
    let machine = Machine::new();
    machine.write("/proc/self/cgroup", "4:memory:/\n0::/\n");
    machine.write("/proc/self/mountinfo", "35 31 0:32 / /sys/fs/cgroup rw - cgroup cgroup rw,memory\n");
    machine.write("/sys/fs/cgroup/cgroup.sane_behavior", "0\n");
    let id = machine.make("/hit").id;
    machine.write("/sys/fs/cgroup/hit/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
    let (locator, baselines) = machine.start();
    assert_eq!(locator.hierarchy().number, 4);
    let key = CgroupKey { hierarchy: 4, id };
    assert_eq!(baselines, [Baseline { key, path: "/hit".into(), oom_events: None, oom_kills: Some(5) }]);
}

#[test]
fn a_container_is_named_before_it_is_asked_for_and_stays_named_when_its_files_are_gone() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    machine.bundle(ID, "container");
    machine.write(&format!("{BUNDLE}/{ID}/init.pid"), "4242");
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    assert_eq!(locator.fetch_names(8), 0);
    fs::remove_dir_all(under(machine.root.path(), BUNDLE)).unwrap();
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Removed, 2 * SECOND));

    let place = locator.place(key(7), None, 300 * SECOND).unwrap();
    let container = container(&place);
    assert_eq!((container.name.as_deref(), container.init_pid), (Some("app"), Some(4242)));
    assert_eq!((container.runtime, container.level), (Runtime::Containerd, 3));
    let pod = container.pod.as_ref().unwrap();
    assert_eq!((pod.namespace.as_deref(), pod.name.as_deref()), (Some("shop"), Some("web")));
    assert_eq!(pod.uid, "0d6dfc9d-3f4b-4c55-8a6b-2a0a6f4f4d11");
    assert_eq!(locator.counters().names.found, 1);
}

#[test]
fn applying_a_record_reads_no_file() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    machine.bundle(ID, "container");
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    assert_eq!(locator.counters().names, NameCounters::default());
}

#[test]
fn at_an_event_missing_names_are_read_at_once_but_not_more_than_once_a_second() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    let nameless = locator.place(key(7), None, 10 * SECOND).unwrap();
    assert_eq!(container(&nameless).name, None);
    machine.bundle(ID, "container");
    let early = locator.place(key(7), None, 10 * SECOND + 1).unwrap();
    assert_eq!(container(&early).name, None);
    assert_eq!(locator.counters().names.missing, 1);
    let later = locator.place(key(7), None, 11 * SECOND).unwrap();
    assert_eq!((container(&later).name.as_deref(), container(&later).init_pid), (Some("app"), None));
}

#[test]
fn names_fetched_meanwhile_show_in_the_next_answer() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    locator.place(key(7), None, 10 * SECOND).unwrap();
    machine.bundle(ID, "container");
    locator.fetch_names(8);
    let place = locator.place(key(7), None, 10 * SECOND + 1).unwrap();
    assert_eq!(container(&place).name.as_deref(), Some("app"));
}

#[test]
fn a_container_that_starts_again_loses_its_old_pid() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    machine.bundle(ID, "container");
    machine.write(&format!("{BUNDLE}/{ID}/init.pid"), "10");
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    locator.fetch_names(8);
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Removed, 2 * SECOND));
    fs::remove_file(under(machine.root.path(), &format!("{BUNDLE}/{ID}/init.pid"))).unwrap();
    locator.apply(&machine.record(8, Some(&scope()), CgroupChange::Made, 3 * SECOND));
    let place = locator.place(key(8), None, 4 * SECOND).unwrap();
    assert_eq!((container(&place).name.as_deref(), container(&place).init_pid), (Some("app"), None));
}

#[test]
fn a_cgroup_inside_a_container_belongs_to_the_container_and_shares_its_names() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    machine.bundle(ID, "container");
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    locator.apply(&machine.record(8, Some(&format!("{}/inner", scope())), CgroupChange::Made, SECOND));
    let place = locator.place(key(8), None, 2 * SECOND).unwrap();
    assert_eq!((container(&place).name.as_deref(), container(&place).level), (Some("app"), 3));
    assert!(place.path.ends_with("/inner"));
}

#[test]
fn the_sandbox_belongs_to_the_pod() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    machine.bundle(ID, "sandbox");
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    let place = locator.place(key(7), None, 2 * SECOND).unwrap();
    let Owner::Pod(pod) = &place.owner else { panic!("{:?}", place.owner) };
    assert_eq!((pod.name.as_deref(), pod.level), (Some("web"), 2));
}

#[test]
fn the_runtime_that_has_the_files_is_told_where_the_path_does_not_tell() {
    let machine = Machine::new();
    machine.bundle(ID, "container");
    let key = machine.make(&format!("/kubepods/pod0d6dfc9d-3f4b-4c55-8a6b-2a0a6f4f4d11/{ID}"));
    let (mut locator, _) = machine.start();
    assert_eq!(container(&locator.place(key, None, SECOND).unwrap()).runtime, Runtime::Containerd);
}

#[test]
fn an_unknown_cgroup_is_found_by_its_process_and_checked_by_its_inode() {
    let machine = Machine::new();
    let (mut locator, _) = machine.start();
    let charged = machine.make("/system.slice/late.service");
    machine.make("/system.slice/late.service/sub");
    machine.write("/proc/99/cgroup", "0::/system.slice/late.service/sub\n");
    assert_eq!(&*locator.place(charged, Some(99), SECOND).unwrap().path, "/system.slice/late.service");
    assert_eq!(locator.counters().resolved_by_pid, 1);
}

#[test]
fn a_process_that_lives_elsewhere_or_is_gone_does_not_invent_a_place() {
    let machine = Machine::new();
    let (mut locator, _) = machine.start();
    machine.write("/proc/98/cgroup", "0::/../outside\n");
    machine.write("/proc/99/cgroup", "0::/elsewhere\n");
    for pid in [None, Some(97), Some(98), Some(99)] {
        assert_eq!(locator.place(key(u64::MAX), pid, SECOND), None);
    }
    assert_eq!(locator.counters().unresolved, 4);
}

#[test]
fn records_of_other_hierarchies_and_without_path_are_counted_and_left() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    let mut foreign = machine.record(7, Some("/a"), CgroupChange::Made, SECOND);
    foreign.key.hierarchy = 8;
    locator.apply(&foreign);
    locator.apply(&machine.record(8, None, CgroupChange::Made, SECOND));
    let counters = locator.counters();
    assert_eq!((counters.foreign, counters.without_path, locator.sizes()), (1, 1, (1, 0)));
}

#[test]
fn a_later_walk_finds_what_lost_records_did_not_tell() {
    let machine = Machine::new();
    let gone = machine.make("/gone");
    let (mut locator, _) = machine.start();
    let made = machine.make("/made");
    fs::remove_dir(machine.directory("/gone")).unwrap();
    locator.walk_again(5 * SECOND);
    assert_eq!(&*locator.place(made, None, 6 * SECOND).unwrap().path, "/made");
    assert_eq!(locator.path(gone).as_deref(), Some("/gone"));
    assert_eq!((locator.counters().tree.missed_removals, locator.sizes()), (1, (2, 1)));
}

#[test]
fn a_part_of_the_hierarchy_is_not_walked_but_learned_from_records() {
    let mut machine = Machine::new();
    machine.write("/sys/fs/cgroup/cgroup.events", "populated 1\n");
    machine.make("/inner");
    let (mut locator, _) = machine.start();
    assert_eq!((locator.hierarchy().view, locator.sizes()), (View::Part, (0, 0)));
    locator.apply(&machine.record(7, Some("/docker/x"), CgroupChange::Made, SECOND));
    assert!(locator.place(key(7), None, SECOND).is_some());
}

#[test]
fn a_mount_that_cannot_be_read_is_told_and_the_program_goes_on() {
    let machine = Machine::new();
    let (mut locator, _) = machine.start();
    let mount = under(machine.root.path(), "/sys/fs/cgroup");
    fs::remove_dir_all(&mount).unwrap();
    fs::write(&mount, "").unwrap();
    locator.walk_again(SECOND);
    assert_eq!(locator.counters().unreadable, 1);
    let errors = locator.take_errors();
    assert!(matches!(errors.as_slice(), [LocateError::Walk(_)]), "{errors:?}");
    assert!(locator.take_errors().is_empty());
}

#[test]
fn a_damaged_file_of_a_runtime_is_counted_and_told_and_the_container_still_placed() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    machine.write(&format!("{BUNDLE}/{ID}/config.json"), "{");
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    let place = locator.place(key(7), None, SECOND).unwrap();
    assert_eq!((container(&place).id.as_str(), &container(&place).name), (ID, &None));
    assert_eq!(locator.counters().names.errors, 1);
    assert!(matches!(locator.take_errors().as_slice(), [LocateError::Names(_)]));
}

#[test]
fn names_are_fetched_within_the_budget_and_given_up_after_some_tries() {
    let mut machine = Machine::new();
    let (mut locator, _) = machine.start();
    for id in 0..5 {
        let path = format!("/system.slice/docker-{id:064x}.scope");
        locator.apply(&machine.record(100 + id, Some(&path), CgroupChange::Made, SECOND));
    }
    assert_eq!([locator.fetch_names(2), locator.fetch_names(2), locator.fetch_names(2)], [3, 1, 0]);
    for _ in 0..20 {
        locator.fetch_names(2);
    }
    assert_eq!(locator.counters().names.missing, 15);
}

#[test]
fn on_a_thread_of_its_own_the_reader_answers_a_question_within_its_time() {
    let mut machine = Machine::new();
    machine.bundle(ID, "container");
    let (mut locator, _) = Locator::start(machine.root.path()).unwrap();
    locator.apply(&machine.record(7, Some(&scope()), CgroupChange::Made, SECOND));
    // On a busy machine the first wait may end too soon: then the next question finds what was read meanwhile.
    let named = (1..1_000_000).any(|second| {
        let place = locator.place(key(7), None, second * SECOND).unwrap();
        container(&place).name.is_some() || {
            std::thread::yield_now();
            false
        }
    });
    assert!(named);
}
