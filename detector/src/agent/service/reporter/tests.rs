//! Each loss that the contract lists has a producer: driven once by what really loses it, its series rises.

use std::{
    collections::VecDeque,
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use detector_common::{
    ABI, Header, Kind,
    cgroup::CgroupLife,
    counter::Ring,
    hung_task::{HungTask, known},
};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::*;
use crate::{
    agent::{
        locate::InPlace,
        pipeline::Pipeline,
        problem::{hung_task::MAX_OPEN, lifecycle::MAX_CAUSES},
        service::counted::Outputs,
        sink::{
            condition::Setup,
            delivery::Next,
            event::Events,
            fixture,
            json::Json,
            metric::{Exposition, Format},
        },
        source::{
            Records,
            bpf::health::{Dropped, HealthError, UNCOUNTED_KILLS},
            spool,
        },
    },
    cluster::{Answer, Identity, Outcome},
    config::Config,
    contract::metric::LOSSES,
};

const NOW: u64 = 200_000_000_000;
const BOOT: &str = "6a1f2f0e-6f0b-4c55-9d35-3b1c52a0a111";
/// Ends of containers that one batch has room for (`GONE_CAPACITY`), and one more.
const TOO_MANY_ENDS: u64 = 16_385;

/// Two rings, and what the kernel side says it lost.
#[derive(Default)]
struct Rings {
    bulk: VecDeque<Vec<u8>>,
    precious: VecDeque<Vec<u8>>,
    dropped: Vec<Dropped>,
}

impl Records for Rings {
    fn next(&mut self, ring: Ring, record: &mut Vec<u8>) -> bool {
        let next = match ring {
            Ring::Precious => self.precious.pop_front(),
            Ring::Bulk => self.bulk.pop_front(),
        };
        next.map(|bytes| *record = bytes).is_some()
    }

    fn dropped(&self) -> Result<Vec<Dropped>, HealthError> {
        Ok(self.dropped.clone())
    }
}

/// A machine with cgroup v2 and nothing in it.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("proc/self/cgroup", "0::/\n");
    write("proc/self/mountinfo", "29 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    write("sys/fs/cgroup/cgroup.controllers", "memory pids\n");
    root
}

fn reporter(events: Events, conditions: Conditions, hold: Hold, outputs: Outputs) -> (Reporter, Exposition) {
    let metrics = Metrics::new(&Config::default().metrics);
    let exposition = metrics.exposition();
    let reporter = Reporter::new(Parts {
        lines: Box::new(Json::new(io::sink(), fixture::UNITS)),
        hold,
        metrics,
        events: Handle::new(events),
        conditions: Rc::new(Desk::new(conditions)),
        needs: Needs::of(Config::default().detectors),
        keeping: Keeping::nowhere(),
        missed: Missed::default(),
        units: fixture::UNITS,
        boot_id: BOOT.to_owned(),
        outputs,
    });
    (reporter, exposition)
}

/// A quiet one, as after its start.
fn quiet() -> (Reporter, Exposition) {
    reporter(events(), conditions(), Hold::new(Duration::ZERO), Outputs::default())
}

fn events() -> Events {
    let identity = Identity { node: "node-a".to_owned(), node_uid: None };
    Events::new(Config::default().events, identity, BOOT)
}

fn conditions() -> Conditions {
    let setup = Setup {
        config: Config::default().conditions,
        node: "node-a".to_owned(),
        boot_id: BOOT.to_owned(),
        scan: None,
        wall: fixture::UNITS.wall,
    };
    Conditions::new(setup, 0)
}

fn header(kind: Kind, length: usize) -> Header {
    let length = u32::try_from(length).unwrap();
    Header { abi: ABI, kind, length, boot_ns: NOW, sequence: 1, cpu: 0, ring: Ring::Precious as u32 }
}

fn hung_task(known: u64, tid: u32) -> HungTask {
    let mut record = HungTask::new_zeroed();
    record.header = header(Kind::HUNG_TASK, size_of::<HungTask>());
    record.known = known | known::STACK | known::SWITCHES | known::HUNG;
    (record.task.tgid, record.task.pid) = (tid, tid);
    record
}

/// A container's cgroup is removed.
fn container_ended(number: u64) -> Vec<u8> {
    let path = format!("/kubepods/pod0d6dfc9d-3f4b-4c55-8a6b-2a0a6f4f4d11/{number:064x}");
    let padded = path.len().next_multiple_of(8);
    let mut life = CgroupLife::new_zeroed();
    life.header = header(Kind::CGROUP_REMOVED, size_of::<CgroupLife>() + padded);
    life.cgroup.id = number + 1;
    life.path_length = u32::try_from(path.len()).unwrap();
    let mut record = [life.as_bytes(), path.as_bytes()].concat();
    record.resize(size_of::<CgroupLife>() + padded, 0);
    record
}

/// One record for each way of not being one.
fn undecodable() -> Vec<Vec<u8>> {
    let whole = hung_task(known::PID, 1);
    let with = |change: &dyn Fn(&mut HungTask)| {
        let mut record = whole;
        change(&mut record);
        record.as_bytes().to_vec()
    };
    let mut long = with(&|record| record.header.length += 8);
    long.extend([0; 8]);
    vec![
        whole.as_bytes()[..31].to_vec(),
        long,
        with(&|record| record.header.abi += 1),
        with(&|record| record.header.kind.0 = 200),
        whole.as_bytes()[..200].to_vec(),
        with(&|record| record.frame_count = u32::MAX),
    ]
}

/// What the flow can lose, once each.
fn lose_in_the_flow(reporter: &mut Reporter, root: &Path) {
    let mut rings = Rings::default();
    let mut pipeline = Pipeline::start_with(reporter, root, None, &|| NOW, Box::new(InPlace::new(root))).unwrap();
    let by_log = MethodChange {
        boot_ns: NOW,
        detector: Detector::Oom,
        before: Method::Fentry,
        now: Some(Method::Kmsg),
        reason: String::new(),
    };
    pipeline.method_changed(&by_log).unwrap();
    pipeline.take_line(b"6,1,1,-;quiet\n", 3).unwrap();
    for damaged in ["no prefix", "6,x,1,-;no number\n"] {
        pipeline.take_line(damaged.as_bytes(), 0).unwrap();
    }
    let kinds = ["oom_mark", "hung_task", "cgroup_made", "cgroup_removed", UNCOUNTED_KILLS];
    rings.dropped = kinds.map(|kind| Dropped { kind, count: 2 }).to_vec();
    rings.bulk = (0..TOO_MANY_ENDS).map(container_ended).collect();
    rings.precious = undecodable().into();
    rings.precious.push_back(hung_task(0, 0).as_bytes().to_vec());
    let hangs = 1..=u32::try_from(MAX_OPEN).unwrap() + 1;
    rings.precious.extend(hangs.map(|tid| hung_task(known::PID | known::TGID, tid).as_bytes().to_vec()));
    pipeline.drain(&mut rings).unwrap();
    for found in [spool_of("another boot"), spool::read(b"no spool", BOOT)] {
        pipeline.note_spool(&found);
    }
    pipeline.drain(&mut rings).unwrap();
}

/// A spool with one record that this boot finds.
fn spool_of(boot: &str) -> spool::Replay {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(spool::FILE);
    spool::Spool::open(&path, boot).unwrap().append(b"record");
    spool::Spool::open(&path, BOOT).unwrap().found().clone()
}

/// Events of which one was refused for good.
fn refused_event() -> Events {
    let mut events = events();
    events.kill(&KillReport::of(&fixture::container_kill(), &fixture::UNITS, BOOT), NOW);
    assert!(matches!(events.next(NOW), Next::Write(_)));
    events.done(&Answer { status: Some(422), outcome: Outcome::Final("no".to_owned()) }, NOW);
    events
}

/// Conditions of which one write was refused for good, and that more tasks hang for than there is room for.
fn refused_condition() -> Conditions {
    let mut conditions = conditions();
    for _ in ["read", "apply"] {
        assert!(matches!(conditions.next(NOW), Next::Write(_)));
        conditions.done(Outcome::Final("no".to_owned()), NOW);
    }
    let hang = HangReport::of(&fixture::hang(), &fixture::UNITS, BOOT);
    for tid in 0..=u32::try_from(MAX_CAUSES).unwrap() {
        conditions.hang(&HangReport { tid: Some(tid), ..hang.clone() });
    }
    conditions
}

/// Samples of the metric `name`: what stands in braces, and the value.
fn samples(page: &Exposition, name: &str) -> BTreeMap<String, f64> {
    let page = page.encode(Format::Prometheus);
    let of_metric = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} "));
    of_metric.map(|(labels, value)| (labels.to_owned(), value.parse().unwrap())).collect()
}

fn all_losses() -> Vec<String> {
    let label = |loss: &Loss| format!("stage=\"{}\",kind=\"{}\"", loss.stage().word(), loss.kind());
    let mut all: Vec<_> = LOSSES.iter().map(label).collect();
    all.sort();
    all
}

#[test]
fn each_loss_of_the_contract_has_a_producer() {
    let root = machine();
    let (mut reporter, page) =
        reporter(refused_event(), refused_condition(), Hold::new(Duration::ZERO), Outputs::default());
    let lost = |page| samples(page, "detector_events_lost_total");
    assert!(lost(&page).values().all(|count| *count == 0.0));
    lose_in_the_flow(&mut reporter, root.path());
    let silent: Vec<_> = lost(&page).into_iter().filter(|(_, count)| *count == 0.0).collect();
    assert_eq!(silent, []);
    assert_eq!(lost(&page).into_keys().collect::<Vec<_>>(), all_losses());
    assert_eq!(lost(&page)["stage=\"source\",kind=\"kernel_log\""], 3.0);
    assert_eq!(lost(&page)["stage=\"locate\",kind=\"containers_untold\""], 1.0);
    reporter.flush().unwrap();
    assert_eq!(lost(&page)["stage=\"sink\",kind=\"event\""], 1.0, "each is told once");
}

#[test]
fn records_of_another_version_in_the_spool_are_lost_in_decoding() {
    let root = machine();
    let (mut reporter, page) = quiet();
    let mut pipeline =
        Pipeline::start_with(&mut reporter, root.path(), None, &|| NOW, Box::new(InPlace::new(root.path()))).unwrap();
    let mut found = spool::Replay::default();
    found.other_abi = 7;
    pipeline.note_spool(&found);
    pipeline.unspooled(2);
    pipeline.drain(&mut Rings::default()).unwrap();
    assert_eq!(samples(&page, "detector_events_lost_total")["stage=\"decode\",kind=\"abi\""], 7.0);
    assert!(page.encode(Format::Prometheus).contains("\ndetector_records_unspooled_total 2\n"));
}

#[test]
fn a_log_that_is_only_a_witness_loses_nothing() {
    let root = machine();
    let (mut reporter, page) = quiet();
    let mut pipeline =
        Pipeline::start_with(&mut reporter, root.path(), None, &|| NOW, Box::new(InPlace::new(root.path()))).unwrap();
    pipeline.take_line(b"6,1,1,-;quiet\n", 3).unwrap();
    pipeline.drain(&mut Rings::default()).unwrap();
    assert!(samples(&page, "detector_events_lost_total").values().all(|count| *count == 0.0));
}

#[test]
fn waits_for_names_are_counted_by_their_end() {
    let (mut reporter, page) = reporter(events(), conditions(), Hold::new(Duration::from_secs(30)), Outputs::default());
    let mut kill = KillReport::of(&fixture::container_kill(), &fixture::UNITS, BOOT);
    kill.subject.namespace = None;
    (0..=1024).for_each(|_| reporter.take(Report::Kill(kill.clone())));
    reporter.flush().unwrap();
    let ends = samples(&page, "detector_held_ended_total");
    // One had to make room; the others wait still, or had their time.
    assert_eq!(ends.values().sum::<f64>() + reporter.hold.len() as f64, 1025.0);
    assert_eq!(ends["end=\"room\""], 1.0);
}

#[test]
fn lines_that_were_not_written_are_counted() {
    let lines = Arc::new(AtomicU64::new(5));
    let outputs = Outputs { lines, ..Outputs::default() };
    let (mut reporter, page) = reporter(events(), conditions(), Hold::new(Duration::ZERO), outputs);
    reporter.flush().unwrap();
    assert_eq!(samples(&page, "detector_lines_dropped_total")["what=\"output\""], 5.0);
}

#[test]
fn conditions_that_are_to_be_written_wait() {
    let (mut reporter, page) = quiet();
    let waiting = |page| samples(page, "detector_queue_depth")["queue=\"condition\""];
    reporter.flush().unwrap();
    assert_eq!(waiting(&page), 3.0);
    reporter.conditions.tell(|conditions| {
        assert!(matches!(conditions.next(NOW), Next::Write(_)));
        conditions.adopt(&[], NOW);
        assert!(matches!(conditions.next(NOW), Next::Write(_)));
        conditions.done(Outcome::Done, NOW);
    });
    reporter.flush().unwrap();
    assert_eq!(waiting(&page), 0.0);
    reporter.tell(Report::Hang(HangReport::of(&fixture::hang(), &fixture::UNITS, BOOT)));
    reporter.flush().unwrap();
    assert_eq!(waiting(&page), 1.0);
}

#[test]
fn a_detector_that_began_after_the_start_is_told_as_the_others_and_keeps_nobody_waiting() {
    let (mut reporter, page) = quiet();
    reporter.started(&fixture::started()).unwrap();
    assert!(reporter.needs.readiness().missing().is_empty());
    let late = Status { detector: Detector::Panic, method: Some(Method::Kprobe), refused: Vec::new() };
    reporter.attached(&late).unwrap();
    reporter.flush().unwrap();
    assert_eq!(samples(&page, "detector_probe_attached")["probe=\"panic\",method=\"kprobe\""], 1.0);
}
