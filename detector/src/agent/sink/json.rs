//! JSON lines: one object a line, in the shape of [`crate::contract::watch`].

mod hung_task;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use crate::{
    agent::{
        decode::event::{self, CgroupKey, Decision, OomMark},
        locate::{Container, Owner, Place, Pod, Qos, Runtime},
        options::Method,
        problem::{OomKill, Transition, oom_log::CPU_UNTOLD, transition::Domain},
        sink::{MethodChange, Notice, Sink, Started, Status, Summary, Units, limit_word, process_word},
    },
    clock::WallClock,
    contract::watch::{self, Line},
};

/// Writes JSON lines.
#[derive(Debug)]
pub struct Json<W> {
    out: W,
    units: Units,
    /// One line, kept for its memory.
    line: Vec<u8>,
}

impl<W: Write> Json<W> {
    /// Writes to `out`, which should buffer: each line is one `write_all`.
    pub fn new(out: W, units: Units) -> Self {
        Self { out, units, line: Vec::new() }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)
    }
}

impl<W: Write> Sink for Json<W> {
    fn started(&mut self, started: &Started) -> io::Result<()> {
        self.write(&Line::Started(watch::Started {
            time: self.units.wall.rfc3339(started.boot_ns),
            kernel: started.kernel.clone(),
            boot_id: started.boot_id.clone(),
            methods: started
                .detectors
                .iter()
                .map(|status| (status.detector.name(), status.method.map(Method::name)))
                .collect(),
            refused: started.detectors.iter().map(|status| (status.detector.name(), refused(status))).collect(),
            cgroups: started.cgroups,
            attached_after_ms: started.attached_after.as_secs_f64() * 1e3,
        }))
    }

    fn transition(&mut self, transition: &Transition) -> io::Result<()> {
        match transition {
            Transition::OomKilled(kill) => self.write(&Line::OomKill(Box::new(oom_kill(kill, &self.units)))),
            Transition::HungTask(hang) => self.write(&Line::HungTask(Box::new(hung_task::line(hang, &self.units)))),
        }
    }

    fn method_changed(&mut self, change: &MethodChange) -> io::Result<()> {
        self.write(&Line::MethodChanged(watch::MethodChanged {
            time: self.units.wall.rfc3339(change.boot_ns),
            detector: change.detector.name(),
            before: change.before.name(),
            now: change.now.map(Method::name),
            reason: change.reason.clone(),
        }))
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        self.write(&Line::Notice(watch::Notice {
            time: self.units.wall.rfc3339(notice.boot_ns),
            stage: notice.stage.name(),
            kind: notice.kind,
            count: notice.count,
            message: notice.message.clone(),
        }))
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        self.write(&Line::Summary(summary.clone()))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn set_wall_clock(&mut self, wall: WallClock) {
        self.units.wall = wall;
    }
}

fn refused(status: &Status) -> BTreeMap<&'static str, String> {
    status.refused.iter().map(|(method, reason)| (method.name(), reason.clone())).collect()
}

/// The JSON shape of one kill.
#[must_use]
pub fn oom_kill(kill: &OomKill, units: &Units) -> watch::OomKill {
    let stamp = kill.mark.stamp;
    watch::OomKill {
        time: units.wall.rfc3339(stamp.boot_ns),
        boot_ns: stamp.boot_ns,
        cpu: (stamp.cpu != CPU_UNTOLD).then_some(stamp.cpu),
        sequence: stamp.sequence,
        method: kill.method.name(),
        incident: kill.incident.number,
        incident_victim: kill.incident.victim,
        group_kill: kill.group_kill,
        victim: victim(kill, units),
        cgroup: victim_cgroup(kill),
        owner: owner(kill.place.as_deref()),
        limit: limit(kill, units),
        trigger: kill.mark.trigger.map(|trigger| watch::Trigger {
            pid: trigger.tgid,
            tid: trigger.pid,
            comm: trigger.comm.to_text(),
            cgroup: trigger.cgroup.map(|key| cgroup(key, kill)),
        }),
    }
}

fn victim(kill: &OomKill, units: &Units) -> watch::Victim {
    let OomMark { victim, .. } = &kill.mark;
    let memory = |pages: fn(&event::Rss) -> u64| victim.memory.as_ref().map(|rss| units.bytes(pages(rss)));
    watch::Victim {
        pid: victim.tgid,
        tid: victim.pid,
        comm: victim.comm.map(|comm| comm.to_text()),
        leader_comm: victim.leader_comm.map(|comm| comm.to_text()),
        started_boot_ns: victim.leader_start_ns,
        uid: victim.uid,
        oom_score_adj: victim.oom_score_adj,
        anon_bytes: memory(|rss| rss.anon),
        file_bytes: memory(|rss| rss.file),
        shmem_bytes: memory(|rss| rss.shmem),
        swap_bytes: victim.memory.as_ref().and_then(|rss| rss.swap).map(|pages| units.bytes(pages)),
        page_table_bytes: victim.page_table_bytes,
        namespace_pid: victim.namespace.map(|namespace| namespace.pid),
        process: process_word(kill.process),
    }
}

fn limit(kill: &OomKill, units: &Units) -> watch::Limit {
    let (domain, pages) = match &kill.domain {
        Domain::Cgroup { key, limit_pages, path, .. } => {
            (Some(domain_cgroup(*key, path.as_deref(), kill)), *limit_pages)
        }
        Domain::Node | Domain::Unknown => (None, None),
    };
    let decision = kill.mark.decision.as_ref();
    watch::Limit {
        hit: limit_word(kill.limit),
        cgroup: domain,
        bytes: pages.map(|pages| units.bytes(pages)),
        total_bytes: decision.map(|decision| units.bytes(decision.total_pages)),
        constraint: decision.map_or_else(|| implied_constraint(&kill.domain), constraint),
        order: decision.map(|decision| decision.order),
        gfp: decision.map(|decision| decision.gfp),
    }
}

/// `enum oom_constraint` (`include/linux/oom.h`); `None` for a number that this list does not have.
fn constraint(decision: &Decision) -> Option<&'static str> {
    ["none", "cpuset", "memory_policy", "memcg"].get(usize::try_from(decision.constraint).ok()?).copied()
}

/// Without a probe of the decision: an OOM of a memory cgroup has no other constraint (`constrained_alloc`,
/// `mm/oom_kill.c`).
fn implied_constraint(domain: &Domain) -> Option<&'static str> {
    matches!(domain, Domain::Cgroup { .. }).then_some("memcg")
}

/// A cgroup with its path, if it is one of those whose paths the kill carries.
fn cgroup(key: CgroupKey, kill: &OomKill) -> watch::Cgroup {
    let of_victim = || kill.place.as_ref().filter(|_| kill.mark.victim.cgroup == Some(key)).map(|place| &place.path);
    let of_domain = || match &kill.domain {
        Domain::Cgroup { key: domain, path, .. } if *domain == Some(key) => path.as_ref(),
        _ => None,
    };
    let path = of_victim().or_else(of_domain).map(ToString::to_string);
    watch::Cgroup { hierarchy: Some(key.hierarchy), id: Some(key.id), path }
}

/// The victim's own cgroup. The kernel's log tells its path alone, and not always.
fn victim_cgroup(kill: &OomKill) -> Option<watch::Cgroup> {
    let victim = &kill.mark.victim;
    match (victim.cgroup, victim.cgroup_level, &kill.place) {
        (Some(key), _, _) => Some(cgroup(key, kill)),
        (None, Some(_), Some(place)) => {
            Some(watch::Cgroup { hierarchy: None, id: None, path: Some(place.path.to_string()) })
        }
        _ => None,
    }
}

/// The domain, of which the kernel's log tells the path alone.
fn domain_cgroup(key: Option<CgroupKey>, path: Option<&str>, kill: &OomKill) -> watch::Cgroup {
    match key {
        Some(key) => cgroup(key, kill),
        None => watch::Cgroup { hierarchy: None, id: None, path: path.map(str::to_owned) },
    }
}

fn owner(place: Option<&Place>) -> watch::Owner {
    let Some(place) = place else { return watch::Owner { kind: "unknown", ..watch::Owner::default() } };
    match &place.owner {
        Owner::Container(container) => of_container(container),
        Owner::Pod(pod) => of_pod("pod", Some(pod)),
        Owner::Unit(unit) => watch::Owner { kind: "unit", unit: Some(unit.clone()), ..watch::Owner::default() },
        Owner::Cgroup => watch::Owner { kind: "cgroup", ..watch::Owner::default() },
    }
}

fn of_container(container: &Container) -> watch::Owner {
    watch::Owner {
        runtime: Some(match container.runtime {
            Runtime::Containerd => "containerd",
            Runtime::CriO => "cri-o",
            Runtime::Docker => "docker",
            Runtime::Podman => "podman",
            Runtime::Unknown => "unknown",
        }),
        container_id: Some(container.id.clone()),
        container: container.name.clone(),
        ..of_pod("container", container.pod.as_ref())
    }
}

fn of_pod(kind: &'static str, pod: Option<&Pod>) -> watch::Owner {
    watch::Owner {
        kind,
        pod_uid: pod.map(|pod| pod.uid.clone()),
        pod: pod.and_then(|pod| pod.name.clone()),
        namespace: pod.and_then(|pod| pod.namespace.clone()),
        qos: pod.map(|pod| match pod.qos {
            Qos::Guaranteed => "guaranteed",
            Qos::Burstable => "burstable",
            Qos::BestEffort => "besteffort",
        }),
        ..watch::Owner::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::agent::{
        problem::{Limit, Process},
        sink::fixture,
    };

    fn lines(write: impl FnOnce(&mut Json<Vec<u8>>) -> io::Result<()>) -> Vec<Value> {
        let mut sink = Json::new(Vec::new(), fixture::UNITS);
        write(&mut sink).expect("a Vec takes all");
        let text = String::from_utf8(sink.out).expect("JSON is UTF-8");
        assert!(text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }

    fn told(kill: OomKill) -> Value {
        lines(|sink| sink.transition(&Transition::OomKilled(Box::new(kill)))).remove(0)
    }

    #[test]
    fn a_kill_in_a_container_is_told_whole() {
        let expected = json!({
            "type": "oom_kill", "time": "2023-11-14T22:15:00.000000Z", "boot_ns": 100_000_000_000_u64, "cpu": 3,
            "sequence": 17, "method": "fentry", "incident": 1, "incident_victim": 1, "group_kill": false,
            "victim": {
                "pid": 4242, "tid": 4243, "comm": "worker", "leader_comm": "app", "started_boot_ns": 90_000_000_000_u64,
                "uid": 1000, "oom_score_adj": 985, "anon_bytes": 262_144_000, "file_bytes": 4_194_304,
                "shmem_bytes": 2_097_152, "swap_bytes": 0, "page_table_bytes": 655_360, "namespace_pid": 7,
                "process": "child",
            },
            "cgroup": { "hierarchy": 0, "id": 900, "path": fixture::CONTAINER_PATH },
            "owner": {
                "kind": "container", "runtime": "containerd", "container_id": fixture::CONTAINER_ID,
                "container": "app", "pod_uid": fixture::POD_UID, "pod": "cart-7d9c6b5f4-x2v8k", "namespace": "shop",
                "qos": "burstable", "unit": null,
            },
            "limit": {
                "hit": "container", "cgroup": { "hierarchy": 0, "id": 900, "path": fixture::CONTAINER_PATH },
                "bytes": 268_435_456, "total_bytes": 268_435_456, "constraint": "memcg", "order": 0, "gfp": 0xcc0,
            },
            "trigger": {
                "pid": 4300, "tid": 4300, "comm": "sidecar",
                "cgroup": { "hierarchy": 0, "id": 901, "path": null },
            },
        });
        assert_eq!(told(fixture::container_kill()), expected);
    }

    #[test]
    fn what_is_not_known_is_null_and_never_zero() {
        let kill = told(fixture::unknown_kill());
        for pointer in ["/group_kill", "/victim/pid", "/victim/anon_bytes", "/cgroup", "/limit/bytes", "/limit/order"] {
            assert_eq!(kill.pointer(pointer), Some(&Value::Null), "{pointer} in {kill}");
        }
        assert_eq!(kill["trigger"], Value::Null);
        assert_eq!(kill["owner"]["kind"], "unknown");
        assert_eq!(kill["limit"]["hit"], "unknown");
        assert_eq!(kill["victim"]["process"], "unknown");
    }

    #[test]
    fn the_machine_as_domain_has_no_cgroup() {
        let kill = told(OomKill { domain: Domain::Node, limit: Limit::Node, ..fixture::container_kill() });
        assert_eq!(kill["limit"]["hit"], "node");
        assert_eq!(kill["limit"]["cgroup"], Value::Null);
        assert_eq!(kill["limit"]["bytes"], Value::Null);
        assert_eq!(kill["limit"]["total_bytes"], 268_435_456);
    }

    #[test]
    fn an_absurd_number_of_pages_does_not_overflow() {
        let mut kill = fixture::container_kill();
        kill.mark.victim.memory = Some(event::Rss { file: 0, anon: u64::MAX, swap: None, shmem: 0 });
        assert_eq!(told(kill)["victim"]["anon_bytes"], u64::MAX);
    }

    #[test]
    fn the_limit_of_a_cgroup_implies_its_constraint() {
        let mut kill = fixture::container_kill();
        kill.mark.decision = None;
        assert_eq!(told(kill)["limit"]["constraint"], "memcg");
    }

    #[test]
    fn a_constraint_outside_the_list_is_null() {
        let mut kill = fixture::container_kill();
        kill.mark.decision = kill.mark.decision.map(|decision| Decision { constraint: 4, ..decision });
        assert_eq!(told(kill)["limit"]["constraint"], Value::Null);
    }

    #[test]
    fn a_newline_in_a_path_does_not_break_the_line() {
        let kill = OomKill { process: Process::Unknown, ..fixture::cgroup_kill("/odd\nname") };
        assert_eq!(told(kill)["cgroup"]["path"], "/odd\nname");
    }

    #[test]
    fn a_new_measurement_of_the_clock_holds_for_the_lines_after_it() {
        let kill = Transition::OomKilled(Box::new(fixture::container_kill()));
        let told = lines(|sink| {
            sink.transition(&kill)?;
            sink.set_wall_clock(WallClock::with_offset(0));
            sink.transition(&kill)
        });
        assert_eq!(told[0]["time"], "2023-11-14T22:15:00.000000Z");
        assert_eq!(told[1]["time"], "1970-01-01T00:01:40.000000Z");
    }

    #[test]
    fn a_reader_that_went_away_is_told_as_such() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut sink = Json::new(io::BufWriter::new(Closed), fixture::UNITS);
        let written = sink.notice(&fixture::notice()).and_then(|()| sink.flush());
        assert_eq!(written.expect_err("closed").kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn the_other_lines_carry_what_they_are_given() {
        let summary = Summary { kills: 3, lost_ring: BTreeMap::from([("oom_mark", 2)]), ..Summary::default() };
        let told = lines(|sink| {
            sink.started(&fixture::started())?;
            sink.notice(&fixture::notice())?;
            sink.summary(&summary)
        });
        assert_eq!(
            told[0],
            json!({
                "type": "started", "time": "2023-11-14T22:13:25.000000Z", "kernel": "6.12.48", "boot_id": "b0",
                "methods": { "oom": "fentry", "hung_task": "btf_tracepoint" },
                "refused": { "oom": {}, "hung_task": {} }, "cgroups": 131, "attached_after_ms": 41.5,
            })
        );
        assert_eq!(
            told[1],
            json!({
                "type": "notice", "time": "2023-11-14T22:13:26.000000Z", "stage": "source", "kind": "ring_full",
                "count": 2, "message": "the ring of OOM kills was full",
            })
        );
        assert_eq!(told[2]["type"], "summary");
        assert_eq!(told[2]["lost_ring"], json!({ "oom_mark": 2 }));
        assert_eq!(told[2]["kernel_kills"], Value::Null);
    }
}
