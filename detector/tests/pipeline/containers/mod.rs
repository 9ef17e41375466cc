//! What sinks that keep account of containers are told, and what the cluster is told of a kill once its names are known.

use std::{fs, io, time::Duration};

use detector::{
    agent::{
        Sink,
        locate::{ContainerChange, Owner},
        pipeline::Pipeline,
        problem::Transition,
        sink::{
            MethodChange, Notice, Started, Summary,
            hold::{Hold, Report},
            report::KillReport,
        },
        source::pods::{PodFacts, PodUpdate},
    },
    clock::WallClock,
};
use detector_common::{
    cgroup::CgroupLife,
    oom::{known, reclaim_scope},
};
use rstest::rstest;
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    kills::{ID, POD, POD_UID},
    machine::Machine,
    recording::Recording,
    session::{SECOND, Session, UNITS},
};

const CONFIG: &str = include_str!("../../../../tests/fixtures/runtime/containerd-container.json");
const SANDBOX: &str = include_str!("../../../../tests/fixtures/runtime/containerd-sandbox.json");
const SANDBOX_ID: &str = "33bf6fbd7cd8379785a21e233d8e09f824e7bab459168a96312c1c882c1d7e1f";
const HASH: &str = "2053dbbf6ec7135c4e994d3464c478db";
const API_UID: &str = "100780d3-e0df-473c-8f7b-1258b336bbde";

fn bundle(id: &str) -> String {
    format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json")
}

/// Keeps account as the agent's sinks do: changes and kills in their order, kills held until they have names.
struct Account {
    hold: Hold,
    told: Vec<String>,
}

impl Account {
    fn new() -> Self {
        Self { hold: Hold::new(Duration::from_secs(30)), told: Vec::new() }
    }

    fn release(&mut self, reports: Vec<Report>) {
        for report in reports {
            let Report::Kill(KillReport { subject, limit, .. }) = report else { panic!("no hangs here") };
            let [namespace, pod, container, uid] = [subject.namespace, subject.pod, subject.container, subject.pod_uid]
                .map(|name| name.unwrap_or("?".into()));
            self.told.push(format!("kill {namespace}/{pod}/{container} {} {limit}", &uid[..4.min(uid.len())]));
        }
    }
}

impl Sink for Account {
    fn started(&mut self, _: &Started) -> io::Result<()> {
        Ok(())
    }

    fn transition(&mut self, transition: &Transition) -> io::Result<()> {
        let Transition::OomKilled(kill) = transition else { return Ok(()) };
        let report = KillReport::of(kill, &UNITS, "boot");
        let now = report.boot_ns;
        let out = self.hold.take(Report::Kill(report), now);
        self.release(out);
        Ok(())
    }

    fn container(&mut self, change: &ContainerChange) -> io::Result<()> {
        self.told.push(match change {
            ContainerChange::Seen(place) => {
                let Owner::Container(container) = &place.owner else { panic!("{place:?}") };
                format!("seen {}", container.name.as_deref().unwrap_or("?"))
            }
            ContainerChange::Gone { .. } => "gone".to_owned(),
            ContainerChange::PodGone { uid } => format!("pod gone {}", &uid[..4]),
        });
        let out = self.hold.hear(change, 0);
        self.release(out);
        Ok(())
    }

    fn wants_containers(&self) -> bool {
        true
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

    fn set_wall_clock(&mut self, _: WallClock) {}
}

/// The records with other paths.
fn with_paths(mut recording: Recording, change: impl Fn(&str) -> String) -> Recording {
    for record in &mut recording.bulk {
        let (mut life, rest) = CgroupLife::read_from_prefix(record).expect("a record of cgroup life");
        let path = change(std::str::from_utf8(&rest[..life.path_length as usize]).expect("a path"));
        let mut padded = path.clone().into_bytes();
        padded.resize(path.len().next_multiple_of(8), 0);
        life.path_length = path.len() as u32;
        life.header.length = (size_of::<CgroupLife>() + padded.len()) as u32;
        *record = [life.as_bytes(), &padded].concat();
    }
    recording
}

/// What is told on `machine` when all records are read at once.
fn told(machine: &Machine, records: &mut Recording, before: impl FnOnce(&mut Pipeline<'_>)) -> Vec<String> {
    let mut account = Account::new();
    let session = Session::new(machine);
    session.set_time(records.mark().header.boot_ns);
    session
        .run_into(&mut account, records, |pipeline, records| {
            before(pipeline);
            pipeline.drain(records).map(|_| ())
        })
        .expect("it takes all");
    let left = account.hold.release_all();
    account.release(left);
    account.told
}

fn pod(uid: &str, hash: Option<&str>, container: &str) -> PodUpdate {
    PodUpdate::Seen(PodFacts {
        uid: uid.to_owned(),
        namespace: "shop".to_owned(),
        name: "watched".to_owned(),
        config_hash: hash.map(str::to_owned),
        containers: vec![(ID.to_owned(), container.to_owned())],
    })
}

#[rstest]
#[case::its_own_limit("kubepods-systemd", "container")]
#[case::the_pods_limit_alone("pod-limit", "pod")]
#[case::equal_limits("equal-limits", "container")]
fn a_container_is_told_before_its_kill_and_the_kill_names_it_with_the_right_limit(
    #[case] recording: &str,
    #[case] limit: &str,
) {
    let machine = Machine::version_1();
    machine.write(&bundle(ID), CONFIG);
    let told = told(&machine, &mut Recording::of(recording), |_| {});
    assert_eq!(told, ["seen app", &format!("kill shop/web-7d9c-x2x5k/app 0d6d {limit}")]);
}

#[test]
fn when_the_machine_ran_out_the_kill_is_booked_on_the_container_that_died() {
    let machine = Machine::version_1();
    machine.write(&bundle(ID), CONFIG);
    let mut records = Recording::of("kubepods-systemd").with_mark(|mark| {
        mark.known |= known::RECLAIM;
        mark.reclaim.scope = reclaim_scope::MACHINE;
    });
    assert_eq!(told(&machine, &mut records, |_| {}), ["seen app", "kill shop/web-7d9c-x2x5k/app 0d6d node"]);
}

/// A static pod's path has its config hash, by which its events are found; whoever names it.
#[rstest]
#[case::by_files_alone(false, "kill shop/web-7d9c-x2x5k/app 2053 container")]
#[case::with_pods_watched(true, "kill shop/watched/app 2053 container")]
fn a_static_pod_has_its_names_and_the_uid_of_its_path(#[case] watched: bool, #[case] kill: &str) {
    let machine = Machine::version_1();
    if !watched {
        machine.write(&bundle(ID), CONFIG);
    }
    let from = POD_UID.replace('-', "_");
    let mut records = with_paths(Recording::of("kubepods-systemd"), |path| path.replace(&from, HASH));
    let told = told(&machine, &mut records, |pipeline| {
        if watched {
            pipeline.take_pods(pod(API_UID, Some(HASH), "app")).expect("it takes all");
        }
    });
    assert_eq!(told, ["seen app", kill]);
}

/// The API tells containers of all kinds by id; the files are those of any container.
#[rstest]
#[case::init("migrate")]
#[case::ephemeral("debugger-x7f2k")]
fn an_init_and_an_ephemeral_container_are_named(#[case] name: &str, #[values(true, false)] watched: bool) {
    let machine = Machine::version_1();
    if !watched {
        machine.write(
            &bundle(ID),
            &CONFIG.replace(
                r#""io.kubernetes.cri.container-name":"app""#,
                &format!(r#""io.kubernetes.cri.container-name":"{name}""#),
            ),
        );
    }
    let told = told(&machine, &mut Recording::of("kubepods-systemd"), |pipeline| {
        if watched {
            pipeline.take_pods(pod(POD_UID, None, name)).expect("it takes all");
        }
    });
    let pod = if watched { "watched" } else { "web-7d9c-x2x5k" };
    assert_eq!(told, [format!("seen {name}"), format!("kill shop/{pod}/{name} 0d6d container")]);
}

#[test]
fn a_pod_that_was_deleted_right_after_is_named_by_what_was_read_when_its_container_was_made() {
    let machine = Machine::version_1();
    machine.write(&bundle(ID), CONFIG);
    let mut records = Recording::of("removed-at-once");
    let kill = records.precious.split_off(0);
    let ends = records.bulk.split_off(4);
    let mut account = Account::new();
    let session = Session::new(&machine);
    session
        .run_into(&mut account, &mut records, |pipeline, records| {
            pipeline.drain(records)?;
            machine.remove(&bundle(ID));
            (records.bulk, records.precious) = (ends, kill);
            pipeline.drain(records).map(|_| ())
        })
        .expect("it takes all");
    assert_eq!(account.told, ["seen app", "gone", "pod gone 0d6d", "kill shop/web-7d9c-x2x5k/app 0d6d container"]);
}

#[test]
fn a_container_without_names_ever_is_told_by_its_ids_when_the_hold_is_over() {
    let machine = Machine::version_1();
    let told = told(&machine, &mut Recording::of("kubepods-systemd"), |_| {});
    assert_eq!(told, ["seen ?", "kill ?/?/? 0d6d container"]);
}

#[test]
fn a_container_without_names_has_at_least_those_of_its_pod_by_the_sandbox() {
    let machine = Machine::version_1();
    machine.write(&bundle(SANDBOX_ID), SANDBOX);
    machine.make_cgroup(&format!("{POD}/cri-containerd-{SANDBOX_ID}.scope"));
    let told = told(&machine, &mut Recording::of("kubepods-systemd"), |_| {});
    assert_eq!(told, ["seen ?", "kill shop/web-7d9c-x2x5k/? 0d6d container"]);
}

#[test]
fn names_that_come_within_the_hold_are_told_with_the_kill_and_nothing_is_looked_for_afterwards() {
    let machine = Machine::version_1();
    let mut records = Recording::of("kubepods-systemd");
    let mut account = Account::new();
    let session = Session::new(&machine);
    session.set_time(records.mark().header.boot_ns);
    session
        .run_into(&mut account, &mut records, |pipeline, records| {
            pipeline.drain(records)?;
            for _ in 0..5 {
                pipeline.look_after()?;
                session.pass(SECOND);
            }
            machine.write(&bundle(ID), CONFIG);
            assert!(pipeline.next_due().is_some_and(|due| due <= Duration::from_secs(1)));
            pipeline.look_after()?;
            fs::remove_dir_all(machine.file("/run/containerd")).expect("it is there");
            for _ in 0..5 {
                session.pass(SECOND);
                pipeline.look_after()?;
            }
            assert_eq!(pipeline.next_due(), None);
            Ok(())
        })
        .expect("it takes all");
    assert_eq!(account.told, ["seen ?", "seen app", "kill shop/web-7d9c-x2x5k/app 0d6d container"]);
}

/// A node that is a container itself (kind): the pod inside is found, whatever is above it.
#[test]
fn a_pod_below_other_containers_is_told_by_its_own_container() {
    let machine = Machine::version_1();
    machine.write(&bundle(ID), CONFIG);
    let outer = "/docker/545ea538461003efdc8c81c244531b003f6f26cfccf6c0073b3239fdedf49446/kubelet";
    let mut records = with_paths(Recording::of("kubepods-systemd"), |path| format!("{outer}{path}"));
    let told = told(&machine, &mut records, |_| {});
    assert_eq!(told[0], "seen app");
    assert!(told[1].starts_with("kill shop/web-7d9c-x2x5k/app 0d6d"), "{told:?}");
}

/// The victim lives in a cgroup that its container made.
#[test]
fn a_kill_in_a_cgroup_inside_a_container_is_told_of_the_container() {
    let machine = Machine::version_1();
    machine.write(&bundle(ID), CONFIG);
    let scope = format!("{POD}/cri-containerd-{ID}.scope");
    let mut records = with_paths(Recording::of("kubepods-systemd"), |path| {
        if path == scope { format!("{scope}/inner") } else { path.to_owned() }
    });
    machine.make_cgroup(&scope);
    let told = told(&machine, &mut records, |_| {});
    assert_eq!(told[0], "seen app");
    assert!(told[1].starts_with("kill shop/web-7d9c-x2x5k/app 0d6d"), "{told:?}");
}

#[test]
fn what_died_while_the_agent_was_away_is_named_by_what_an_earlier_run_knew() {
    let machine = Machine::version_1();
    machine.write(&bundle(ID), CONFIG);
    let mut records = Recording::of("kubepods-systemd");
    let kill = records.precious.split_off(0);
    let (mut first, mut second) = (Account::new(), Account::new());
    let session = Session::new(&machine);
    let mut snapshot = None;
    session
        .run_into(&mut first, &mut records, |pipeline, records| {
            pipeline.drain(records)?;
            snapshot = Some(serde_json::to_vec(&pipeline.snapshot()).expect("plain values"));
            Ok(())
        })
        .expect("it takes all");
    machine.remove(&bundle(ID));
    records.precious = kill;
    let snapshot = serde_json::from_slice(&snapshot.expect("it was taken")).expect("as it was written");
    session
        .resume_into(&mut second, &mut records, &snapshot, |pipeline, records| pipeline.drain(records).map(|_| ()))
        .expect("it takes all");
    let kill = second.told.last().expect("a kill");
    assert_eq!(kill, "kill shop/web-7d9c-x2x5k/app 0d6d container");
}
