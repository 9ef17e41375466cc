//! Compares what must be seen with what was seen. Pure: lines in, complaints out.

use std::collections::BTreeSet;

use detector_provoke::{
    Role, Victim,
    scenario::{EATER, THREAD},
};

use crate::{
    case::Expected,
    kube,
    line::{OomKill, Owner, Summary},
};

/// Complaints about single kills that one case prints at the most.
const MOST_COMPLAINTS: usize = 6;

/// What one watcher printed about one case.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// The kills.
    pub(crate) kills: &'a [OomKill],
    /// All else.
    pub(crate) notices: &'a [String],
}

/// What a watcher must have told in its last line.
pub(crate) struct Totals {
    /// Kills that it printed.
    pub(crate) printed: u64,
    /// What `vmstat` counted since it started.
    pub(crate) kernel: u64,
    /// Marks of tasks that were already dying.
    pub(crate) already_dying: u64,
}

/// Complaints about the kernel's own counts: the provocation went wrong.
pub(crate) fn kernel(expected: &Expected, vmstat: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    differs(&mut wrong, "vmstat oom_kill", &expected.kernel_kills, &vmstat);
    if let Some(counted) = expected.cgroup_kills {
        differs(&mut wrong, "memory.events oom_kill", &expected.kernel_kills, &counted);
    }
    wrong
}

/// Complaints about one watcher.
pub(crate) fn seen(expected: &Expected, seen: Seen<'_>) -> Vec<String> {
    let mut wrong = seen.notices.to_vec();
    let victims = &expected.provoked.victims;
    differs(&mut wrong, "kills", &victims.len(), &seen.kills.len());
    let incidents: BTreeSet<_> = seen.kills.iter().map(|kill| kill.incident).collect();
    differs(&mut wrong, "incidents", &expected.incidents, &incidents.len());
    for victim in victims {
        match seen.kills.iter().filter(|kill| kill.victim.pid == Some(victim.pid)).collect::<Vec<_>>().as_slice() {
            [kill] => {
                wrong.extend(one(expected, victim, kill).into_iter().map(|text| format!("{}: {text}", victim.pid)));
            }
            others => wrong.push(format!("{} kills of process {} ({})", others.len(), victim.pid, victim.comm)),
        }
    }
    for kill in seen.kills {
        if !victims.iter().any(|victim| Some(victim.pid) == kill.victim.pid) {
            wrong.push(format!("killed nobody: {:?} {:?}", kill.victim.pid, kill.victim.comm));
        }
    }
    shorten(wrong)
}

/// Complaints about two watchers that tell the same kills differently.
pub(crate) fn disagreement(other: &str, theirs: &[OomKill], ours: &[OomKill]) -> Vec<String> {
    let mut wrong = Vec::new();
    for kill in ours {
        let same = theirs.iter().find(|candidate| candidate.victim.pid == kill.victim.pid);
        if let Some(same) = same {
            for ((what, theirs), (_, ours)) in facts(same).into_iter().zip(facts(kill)) {
                differs(&mut wrong, &format!("{what} told by {other}"), &theirs, &ours);
            }
        }
    }
    shorten(wrong)
}

/// Complaints about the last line.
pub(crate) fn summary(summary: &Summary, totals: &Totals) -> Vec<String> {
    let mut wrong = Vec::new();
    differs(&mut wrong, "summary.kills", &totals.printed, &summary.kills);
    differs(&mut wrong, "summary.lost", &0, &summary.lost);
    differs(&mut wrong, "summary.unresolved", &0, &summary.unresolved);
    differs(&mut wrong, "summary.kernel_kills", &Some(totals.kernel), &summary.kernel_kills);
    differs(&mut wrong, "summary.unaccounted", &Some(0), &summary.unaccounted);
    differs(&mut wrong, "summary.already_dying", &totals.already_dying, &summary.already_dying);
    wrong
}

/// Complaints about one kill.
fn one(expected: &Expected, victim: &Victim, kill: &OomKill) -> Vec<String> {
    let mut wrong = Vec::new();
    who(&mut wrong, victim, kill);
    let path = kill.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
    differs(&mut wrong, "cgroup", &Some(victim.cgroup.as_str()), &path);
    differs(&mut wrong, "limit.hit", &expected.hit, &kill.limit.hit.as_str());
    differs(&mut wrong, "limit.bytes", &expected.limit_bytes, &kill.limit.bytes);
    let domain = kill.limit.cgroup.as_ref().map(|cgroup| cgroup.path.clone().unwrap_or_default());
    let right = domain.as_ref().map_or(expected.domains.is_empty(), |path| expected.domains.contains(path));
    if !right {
        wrong.push(format!("limit.cgroup: one of {:?}, not {domain:?}", expected.domains));
    }
    differs(&mut wrong, "group_kill", &Some(expected.group_kill), &kill.group_kill);
    owner(&mut wrong, expected.container, &kill.owner);
    // Whoever asked for memory is one of the provocation's processes.
    let trigger = kill.trigger.as_ref().map(|trigger| trigger.comm.as_str());
    if !trigger.is_some_and(|comm| comm.starts_with("oom-")) {
        wrong.push(format!("trigger: one of the provocation's processes, not {trigger:?}"));
    }
    wrong
}

/// The process and its part.
fn who(wrong: &mut Vec<String>, victim: &Victim, kill: &OomKill) {
    let told = &kill.victim;
    differs(wrong, "comm", &Some(victim.comm), &told.comm.as_deref());
    let thread = victim.comm == THREAD;
    let leader = if thread { EATER } else { victim.comm };
    differs(wrong, "leader_comm", &Some(leader), &told.leader_comm.as_deref());
    if thread == (told.tid == told.pid) {
        wrong.push(format!(
            "tid: {} the pid {:?}, not {:?}",
            if thread { "other than" } else { "like" },
            told.pid,
            told.tid
        ));
    }
    let namespace_pid = victim.namespace_pid.or(Some(victim.pid));
    differs(wrong, "namespace_pid", &namespace_pid, &told.namespace_pid);
    let process = match (kill.owner.kind.as_str(), victim.role) {
        ("container", Role::Init) => "init",
        ("container", Role::Child) => "child",
        _ => "unknown",
    };
    differs(wrong, "process", &process, &told.process.as_str());
    if told.started_boot_ns.is_none_or(|start| start == 0) {
        wrong.push("started_boot_ns is unknown".to_owned());
    }
    differs(wrong, "uid", &Some(0), &told.uid);
    if told.anon_bytes.is_none() {
        wrong.push("anon_bytes is unknown".to_owned());
    }
}

fn owner(wrong: &mut Vec<String>, container: bool, told: &Owner) {
    let text = |value: &str| Some(value.to_owned());
    let right = if container {
        Owner {
            kind: "container".to_owned(),
            runtime: text("containerd"),
            container_id: text(kube::CONTAINER_ID),
            pod_uid: text(kube::POD_UID),
            qos: text("burstable"),
        }
    } else {
        Owner { kind: "cgroup".to_owned(), runtime: None, container_id: None, pod_uid: None, qos: None }
    };
    differs(wrong, "owner", &right, told);
}

/// What all methods must tell alike. Memory is not among it: it may change between two looks.
fn facts(kill: &OomKill) -> [(&'static str, String); 14] {
    let victim = &kill.victim;
    [
        ("tid", format!("{:?}", victim.tid)),
        ("comm", format!("{:?}", victim.comm)),
        ("leader_comm", format!("{:?}", victim.leader_comm)),
        ("started_boot_ns", format!("{:?}", victim.started_boot_ns)),
        ("uid", format!("{:?}", victim.uid)),
        ("oom_score_adj", format!("{:?}", victim.oom_score_adj)),
        ("namespace_pid", format!("{:?}", victim.namespace_pid)),
        ("process", victim.process.clone()),
        ("cgroup", format!("{:?}", kill.cgroup)),
        ("owner", format!("{:?}", kill.owner)),
        ("limit.hit", kill.limit.hit.clone()),
        ("limit.cgroup", format!("{:?}", kill.limit.cgroup)),
        ("limit.bytes", format!("{:?}", kill.limit.bytes)),
        ("group_kill", format!("{:?}", kill.group_kill)),
    ]
}

fn differs<T: PartialEq + std::fmt::Debug>(wrong: &mut Vec<String>, what: &str, expected: &T, found: &T) {
    if expected != found {
        wrong.push(format!("{what}: {expected:?}, not {found:?}"));
    }
}

fn shorten(mut wrong: Vec<String>) -> Vec<String> {
    if wrong.len() > MOST_COMPLAINTS {
        let more = wrong.len() - MOST_COMPLAINTS;
        wrong.truncate(MOST_COMPLAINTS);
        wrong.push(format!("and {more} more"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use detector_provoke::Provoked;

    use super::*;
    use crate::line::Line;

    /// As printed on Linux 6.12 for the case `single-child`.
    const KILL: &str = r#"{"type":"oom_kill","time":"2026-11-22T03:46:02.123456Z","boot_ns":7123456789,"cpu":1,
        "sequence":1,"incident":1,"incident_victim":1,"group_kill":false,"victim":{"pid":96,"tid":96,"comm":"oom-eater",
        "leader_comm":"oom-eater","started_boot_ns":7100000000,"uid":0,"oom_score_adj":0,"anon_bytes":30932992,
        "file_bytes":0,"shmem_bytes":0,"swap_bytes":0,"page_table_bytes":106496,"namespace_pid":96,"process":"unknown"},
        "cgroup":{"hierarchy":0,"id":42,"path":"/own"},"owner":{"kind":"cgroup","runtime":null,"container_id":null,
        "container":null,"pod_uid":null,"pod":null,"namespace":null,"qos":null,"unit":null},"limit":{"hit":"cgroup",
        "cgroup":{"hierarchy":0,"id":42,"path":"/own"},"bytes":31457280,"total_bytes":31457280,"constraint":"memcg",
        "order":0,"gfp":3264},"trigger":{"pid":96,"tid":96,"comm":"oom-eater","cgroup":null}}"#;

    fn kill() -> OomKill {
        match serde_json::from_str(KILL).expect("a line") {
            Line::OomKill(kill) => *kill,
            other => panic!("{other:?}"),
        }
    }

    fn expected() -> Expected {
        let victim = Victim { pid: 96, comm: EATER, cgroup: "/own".to_owned(), namespace_pid: None, role: Role::Plain };
        Expected {
            provoked: Provoked { victims: vec![victim], ..Provoked::default() },
            kernel_kills: 1,
            cgroup_kills: Some(1),
            hit: "cgroup",
            domains: vec!["/own".to_owned()],
            limit_bytes: Some(30 << 20),
            group_kill: false,
            incidents: 1,
            container: false,
            already_dying: 0,
        }
    }

    fn complaints(kills: &[OomKill]) -> String {
        seen(&expected(), Seen { kills, notices: &[] }).join("; ")
    }

    #[test]
    fn a_right_line_has_no_complaint() {
        assert_eq!(complaints(&[kill()]), "");
    }

    #[test]
    fn a_missing_kill_and_a_second_line_for_one_are_noticed() {
        assert!(complaints(&[]).contains("0 kills of process 96"));
        assert!(complaints(&[kill(), kill()]).contains("2 kills of process 96"));
    }

    #[test]
    fn a_kill_of_somebody_else_is_noticed() {
        let mut stranger = kill();
        stranger.victim.pid = Some(7);
        assert!(complaints(&[kill(), stranger]).contains("killed nobody: Some(7)"));
    }

    #[test]
    fn the_wrong_limit_domain_cgroup_and_owner_are_each_noticed() {
        let mut wrong = kill();
        wrong.limit.hit = "ancestor".to_owned();
        wrong.limit.cgroup = None;
        wrong.cgroup = None;
        wrong.owner.kind = "unit".to_owned();
        wrong.victim.comm = None;
        let text = complaints(&[wrong]);
        for what in ["limit.hit: ", "limit.cgroup: ", "cgroup: Some(\"/own\")", "owner: ", "comm: Some"] {
            assert!(text.contains(what), "{what} in {text}");
        }
    }

    #[test]
    fn victims_of_one_decision_must_share_an_incident() {
        let mut expected = expected();
        expected.provoked.victims.push(Victim { pid: 97, ..expected.provoked.victims[0].clone() });
        let mut second = kill();
        (second.victim.pid, second.victim.tid, second.victim.namespace_pid) = (Some(97), Some(97), Some(97));
        let together = [kill(), second.clone()];
        assert_eq!(seen(&expected, Seen { kills: &together, notices: &[] }), Vec::<String>::new());
        second.incident = 2;
        let apart = [kill(), second];
        assert_eq!(seen(&expected, Seen { kills: &apart, notices: &[] }), ["incidents: 1, not 2"]);
    }

    #[test]
    fn two_methods_that_disagree_are_told_by_the_field() {
        let mut other = kill();
        other.limit.hit = "node".to_owned();
        assert_eq!(disagreement("fentry", &[kill()], &[other]), ["limit.hit told by fentry: \"cgroup\", not \"node\""]);
    }

    #[test]
    fn a_wrong_provocation_is_the_kernels_complaint() {
        assert_eq!(kernel(&expected(), 1), Vec::<String>::new());
        assert_eq!(kernel(&expected(), 2), ["vmstat oom_kill: 1, not 2"]);
    }

    #[test]
    fn a_loss_in_the_last_line_is_noticed() {
        let line = r#"{"type":"summary","kills":3,"incidents":3,"already_dying":0,"duplicates":0,"unresolved":0,"lost":1,
            "lost_ring":{"oom_mark":1},"lost_decode":{},"kernel_kills":4,"unaccounted":1}"#;
        let Line::Summary(told) = serde_json::from_str(line).expect("a line") else { panic!("no summary") };
        let wrong = summary(&told, &Totals { printed: 3, kernel: 4, already_dying: 0 });
        assert_eq!(wrong, ["summary.lost: 0, not 1", "summary.unaccounted: Some(0), not Some(1)"]);
    }
}
