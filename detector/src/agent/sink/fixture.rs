//! Kills and hangs that the tests of all sinks share.

use std::{sync::Arc, time::Duration};

use arrayvec::ArrayVec;
use detector_common::oom::COMM_LENGTH;

use crate::{
    agent::{
        decode::event::{
            CgroupKey, Comm, Decision, Holder, HungTask, Lock, LockKind, NamespacePid, OomMark, Rss, Stamp, Task,
            Trigger, Victim,
        },
        locate::{Container, Owner, Place, Pod, Qos, Runtime},
        options::{Detector, Method},
        problem::{Frame, Hang, HangState, Incident, Limit, OomKill, Process, transition::Domain},
        sink::{Notice, Stage, Started, Status, Units},
    },
    clock::WallClock,
};

/// Booted at 2023-11-14 22:13:20 UTC, pages of 4 KiB.
pub(in crate::agent) const UNITS: Units =
    Units { page_size: 4096, wall: WallClock::with_offset(1_700_000_000 * 1_000_000_000) };

pub(in crate::agent) const POD_UID: &str = "0f3b2c1d-4e5f-4a6b-8c7d-9e0f1a2b3c4d";
pub(in crate::agent) const CONTAINER_ID: &str = "8d1f6c2e9a7b4c3d8d1f6c2e9a7b4c3d8d1f6c2e9a7b4c3d8d1f6c2e9a7b4c3d";
pub(in crate::agent) const CONTAINER_PATH: &str = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f3b2c1d_4e5f_4a6b_8c7d_9e0f1a2b3c4d.slice/cri-containerd-8d1f6c2e9a7b4c3d8d1f6c2e9a7b4c3d8d1f6c2e9a7b4c3d8d1f6c2e9a7b4c3d.scope";

const KEY: CgroupKey = CgroupKey { hierarchy: 0, id: 900 };

pub(in crate::agent) fn comm(name: &str) -> Comm {
    let mut bytes = [0; COMM_LENGTH];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    Comm(bytes)
}

/// A child of a container with all names known, killed by the container's own limit of 256 MiB.
pub(in crate::agent) fn container_kill() -> OomKill {
    OomKill {
        mark: OomMark {
            stamp: Stamp { boot_ns: 100_000_000_000, cpu: 3, sequence: 17 },
            real_kill: Some(true),
            victim: victim(),
            trigger: Some(Trigger {
                tgid: 4300,
                pid: 4300,
                comm: comm("sidecar"),
                cgroup: Some(CgroupKey { hierarchy: 0, id: 901 }),
            }),
            decision: Some(Decision {
                boot_ns: 99_999_000_000,
                domain: Some((KEY, 4)),
                total_pages: 65_536,
                constraint: 3,
                order: 0,
                gfp: 0xcc0,
            }),
            levels: ArrayVec::new(),
            reclaim: None,
            levels_cut: false,
        },
        incident: Incident { number: 1, victim: 1 },
        place: Some(Arc::new(Place { path: CONTAINER_PATH.into(), owner: Owner::Container(container()) })),
        process: Process::Child,
        limit: Limit::Container,
        domain: domain(CONTAINER_PATH),
        group_kill: Some(false),
        method: Method::Fentry,
    }
}

fn victim() -> Victim {
    Victim {
        tgid: Some(4242),
        pid: Some(4243),
        leader_start_ns: Some(90_000_000_000),
        comm: Some(comm("worker")),
        leader_comm: Some(comm("app")),
        uid: Some(1000),
        oom_score_adj: Some(985),
        memory: Some(Rss { file: 1024, anon: 64_000, swap: Some(0), shmem: 512 }),
        page_table_bytes: Some(655_360),
        namespace: Some(NamespacePid { pid: 7, level: 1 }),
        cgroup: Some(KEY),
        cgroup_level: Some(4),
    }
}

pub(in crate::agent) fn container() -> Container {
    Container {
        runtime: Runtime::Containerd,
        id: CONTAINER_ID.to_owned(),
        level: 4,
        name: Some("app".to_owned()),
        init_pid: Some(4200),
        pod: Some(Pod {
            uid: POD_UID.to_owned(),
            qos: Qos::Burstable,
            level: 3,
            namespace: Some("shop".to_owned()),
            name: Some("cart-7d9c6b5f4-x2v8k".to_owned()),
        }),
    }
}

/// The same kill in another place.
pub(in crate::agent) fn kill_at(path: &str, owner: Owner) -> OomKill {
    OomKill {
        place: Some(Arc::new(Place { path: path.into(), owner })),
        domain: domain(path),
        process: Process::Unknown,
        limit: Limit::Cgroup,
        ..container_kill()
    }
}

/// A kill in a cgroup that nobody owns.
pub(in crate::agent) fn cgroup_kill(path: &str) -> OomKill {
    kill_at(path, Owner::Cgroup)
}

fn domain(path: &str) -> Domain {
    Domain::Cgroup { key: Some(KEY), level: 4, path: Some(path.into()), limit_pages: Some(65_536) }
}

/// A kill of which nothing is known but that it was.
pub(in crate::agent) fn unknown_kill() -> OomKill {
    let nothing = Victim {
        tgid: None,
        pid: None,
        leader_start_ns: None,
        comm: None,
        leader_comm: None,
        uid: None,
        oom_score_adj: None,
        memory: None,
        page_table_bytes: None,
        namespace: None,
        cgroup: None,
        cgroup_level: None,
    };
    let known = container_kill();
    OomKill {
        mark: OomMark { victim: nothing, trigger: None, decision: None, real_kill: None, ..known.mark },
        incident: known.incident,
        place: None,
        process: Process::Unknown,
        limit: Limit::Unknown,
        domain: Domain::Unknown,
        group_kill: None,
        method: known.method,
    }
}

/// A thread of a container that waits for a mutex, which a thread of a sidecar holds.
pub(in crate::agent) fn hang() -> Hang {
    let place = |path: &str, name: &str| {
        let container = Container { name: Some(name.to_owned()), ..container() };
        Some(Arc::new(Place { path: path.into(), owner: Owner::Container(container) }))
    };
    let line = |line| Frame::of_line(line).expect("a frame");
    let holder = Task {
        tgid: Some(4300),
        pid: Some(4301),
        start_ns: None,
        leader_start_ns: None,
        comm: Some(comm("flush")),
        leader_comm: Some(comm("sidecar")),
        cgroup: Some(CgroupKey { hierarchy: 0, id: 901 }),
    };
    let holder = Some(Holder { task: holder, likely: false });
    Hang {
        number: 1,
        state: HangState::Raised,
        boot_ns: 100_000_000_000,
        hung: Duration::from_millis(12_500),
        event: HungTask {
            stamp: Stamp { boot_ns: 100_000_000_000, cpu: 3, sequence: 17 },
            task: Task {
                tgid: Some(4242),
                pid: Some(4243),
                start_ns: Some(81_000_000_000),
                leader_start_ns: Some(80_000_000_000),
                comm: Some(comm("worker")),
                leader_comm: Some(comm("app")),
                cgroup: Some(KEY),
            },
            switches: Some(17),
            hung_jiffies: Some(3125),
            lock: Some(Some(Lock { kind: LockKind::Mutex, holder })),
            stack: ArrayVec::new(),
        },
        place: place(CONTAINER_PATH, "app"),
        holder_place: place("/sidecar", "sidecar"),
        stack: vec![
            line("[<0>] __mutex_lock.constprop.0+0x2f4/0x6e0"),
            line("[<0>] ext4_map_blocks+0x12/0x5d0 [ext4]"),
            Frame::default(),
        ],
        method: Method::BtfTracepoint,
    }
}

/// A hang of which nothing is known but that it was.
pub(in crate::agent) fn unknown_hang() -> Hang {
    let known = hang();
    let task = Task {
        tgid: None,
        pid: None,
        start_ns: None,
        leader_start_ns: None,
        comm: None,
        leader_comm: None,
        cgroup: None,
    };
    let event = HungTask { task, switches: None, hung_jiffies: None, lock: None, ..known.event };
    Hang { event, place: None, holder_place: None, stack: Vec::new(), ..known }
}

pub(in crate::agent) fn started() -> Started {
    Started {
        boot_ns: 5_000_000_000,
        kernel: "6.12.48".to_owned(),
        boot_id: "b0".to_owned(),
        detectors: vec![
            Status { detector: Detector::Oom, method: Some(Method::Fentry), refused: Vec::new() },
            Status { detector: Detector::HungTask, method: Some(Method::BtfTracepoint), refused: Vec::new() },
        ],
        cgroups: 131,
        attached_after: Duration::from_micros(41_500),
    }
}

pub(in crate::agent) fn notice() -> Notice {
    Notice {
        boot_ns: 6_000_000_000,
        stage: Stage::Source,
        kind: "ring_full",
        count: 2,
        message: "the ring of OOM kills was full".to_owned(),
    }
}
