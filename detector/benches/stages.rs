//! How fast records go through the pure stages: decode, locate (the place is known already), both together, and the life
//! of cgroups. The records look like those of a kubelet's containers.

use std::{fs, hint::black_box, os::unix::fs::MetadataExt};

use criterion::{Criterion, criterion_group, criterion_main};
use detector::agent::{
    decode::{self, CgroupKey, KernelEvent, OomMark},
    locate::Locator,
};
use detector_common::{
    ABI, Header, Kind,
    cgroup::CgroupLife,
    oom::{OomMark as RawMark, flags, known},
};
use tempfile::TempDir;
use zerocopy::{FromZeros, IntoBytes};

/// A container of a burstable pod, as containerd and the systemd driver name it.
const PATH: &str = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod5f0c2b1e_6d3a_4b57_9c43_0a1b2c3d4e5f.slice/\
     cri-containerd-4f2d8c1be07a93655f0c2b1e6d3a4b579c430a1b2c3d4e5f60718293a4b5c6d7.scope";

/// Levels from the container to the root.
const LEVELS: usize = 5;

/// Number of cgroups that live and die in turn: dead ones are remembered, so that the tree has its usual size.
const CGROUPS: u64 = 10_000;

fn header(kind: Kind, length: usize) -> Header {
    Header { abi: ABI, kind, length: length as u32, boot_ns: 1_000_000_000, sequence: 1, cpu: 1, ring: 0 }
}

/// A record of a kill in cgroup `id`, with everything known.
fn mark(id: u64) -> Vec<u8> {
    let mut raw = RawMark::new_zeroed();
    raw.header = header(Kind::OOM_MARK, size_of::<RawMark>());
    raw.known = (known::LEVEL_OOM_GROUP << 1) - 1;
    raw.flags = flags::REAL_KILL;
    raw.level_count = LEVELS as u32;
    raw.victim.tgid = 4711;
    raw.victim.pid = 4711;
    raw.victim.comm[..4].copy_from_slice(b"java");
    raw.victim.leader_comm[..4].copy_from_slice(b"java");
    raw.victim.rss_pages = [500, 64_000, 0, 12];
    raw.victim.cgroup.id = id;
    raw.trigger.comm[..4].copy_from_slice(b"java");
    for (number, level) in raw.levels[..LEVELS].iter_mut().enumerate() {
        level.id = id + number as u64;
        level.limit_pages = 65_536;
    }
    raw.as_bytes().to_vec()
}

/// A record of cgroup `id` being made or removed.
fn life(kind: Kind, id: u64, boot_ns: u64) -> Vec<u8> {
    let length = (size_of::<CgroupLife>() + PATH.len()).next_multiple_of(8);
    let mut raw = CgroupLife::new_zeroed();
    raw.header = header(kind, length);
    raw.header.boot_ns = boot_ns;
    raw.cgroup.id = id;
    raw.path_length = PATH.len() as u32;
    let mut bytes = raw.as_bytes().to_vec();
    bytes.extend_from_slice(PATH.as_bytes());
    bytes.resize(length, 0);
    bytes
}

/// A locator over a machine with one container, and that container's cgroup.
fn machine() -> (TempDir, Locator, u64) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("not the root")).expect("made");
        fs::write(path, text).expect("written");
    };
    write("proc/self/cgroup", "0::/\n");
    write("proc/self/mountinfo", "29 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    write("sys/fs/cgroup/cgroup.controllers", "memory pids\n");
    let container = root.path().join("sys/fs/cgroup").join(PATH.trim_start_matches('/'));
    fs::create_dir_all(&container).expect("made");
    let id = fs::metadata(&container).expect("there").ino();
    let (locator, _) = Locator::start(root.path()).expect("found");
    (root, locator, id)
}

fn decoded(record: &[u8]) -> OomMark {
    match decode::decode(record).expect("valid") {
        KernelEvent::OomMark(mark) => mark,
        KernelEvent::CgroupLife(_) | KernelEvent::HungTask(_) => unreachable!("the record is of a kill"),
    }
}

fn stages(criterion: &mut Criterion) {
    let (_root, mut locator, id) = machine();
    let record = mark(id);
    let key = CgroupKey { hierarchy: 0, id };
    locator.fetch_names(usize::MAX);
    assert!(locator.place(key, None, 1_000_000_000).is_some(), "the container is known");

    criterion.bench_function("decode", |bencher| bencher.iter(|| decode::decode(black_box(&record))));
    criterion.bench_function("locate", |bencher| {
        bencher.iter(|| locator.place(black_box(key), None, 1_000_000_000));
    });
    criterion.bench_function("decode_and_locate", |bencher| {
        bencher.iter(|| {
            let mark = decoded(black_box(&record));
            let place = locator.place(mark.victim.cgroup.expect("known"), None, mark.stamp.boot_ns);
            (mark, place)
        });
    });
}

/// Each record is one of a pair: a cgroup is made, then removed.
fn cgroup_life(criterion: &mut Criterion) {
    let (_root, mut locator, _) = machine();
    let pair = |number: u64| [(Kind::CGROUP_MADE, number), (Kind::CGROUP_REMOVED, number)];
    let records: Vec<_> = (0..CGROUPS)
        .flat_map(pair)
        .map(|(kind, number)| life(kind, 1 << 40 | number, 2_000_000_000 + number))
        .collect();
    let mut next = records.iter().cycle();
    let mut apply = move || {
        let record = next.next().expect("endless");
        match decode::decode(black_box(record)) {
            Ok(KernelEvent::CgroupLife(life)) => locator.apply(&life),
            other => unreachable!("the record is of a cgroup's life: {other:?}"),
        }
    };
    criterion.bench_function("cgroup_life", |bencher| bencher.iter(&mut apply));
}

fn configured() -> Criterion {
    Criterion::default().configure_from_args()
}

criterion_group! { name = benches; config = configured(); targets = stages, cgroup_life }
criterion_main!(benches);
