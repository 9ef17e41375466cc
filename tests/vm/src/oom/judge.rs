//! Compares what must be seen of kills with what was seen. Pure: lines in, complaints out.

use std::collections::BTreeSet;

use detector_provoke::{
    Role, Victim,
    scenario::{EATER, THREAD},
};

use super::{acceptance::Acceptance, case::Expected};
use crate::{
    complaint::Complaints,
    kube,
    line::{Cgroup, Line, OomKill, Owner, Summary},
};

/// What one watcher printed about one case.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// Its method.
    pub(crate) method: &'a str,
    /// The kills.
    pub(crate) kills: &'a [OomKill],
    /// All else.
    pub(crate) others: &'a [Line],
}

/// Kills that a watcher printed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Printed {
    /// All of them.
    kills: u64,
    /// Those without a cgroup.
    unresolved: u64,
    /// Group kills. A watcher whose method does not know them may have had them from the log.
    group_kills: u64,
}

impl Printed {
    /// One more.
    pub(crate) fn count(&mut self, kill: &OomKill) {
        self.kills += 1;
        self.unresolved += u64::from(is_unresolved(kill));
        self.group_kills += u64::from(kill.group_kill == Some(true) && kill.incident_victim == 1);
    }
}

/// What a watcher must have told in its last line.
pub(crate) struct Totals {
    /// The kills before it.
    pub(crate) printed: Printed,
    /// What `vmstat` counted since it started.
    pub(crate) kernel: u64,
    /// Marks of tasks that were already dying; `None`: its method does not see them. Who does not know processes counts
    /// further threads of a victim as such.
    pub(crate) already_dying: Option<u64>,
    /// Whether its method knows group kills.
    pub(crate) groups: bool,
}

/// Complaints about the kernel's own counts: the provocation went wrong.
pub(crate) fn kernel(expected: &Expected, vmstat: u64) -> Vec<String> {
    let mut wrong = Complaints::default();
    wrong.differs("vmstat oom_kill", &expected.kernel_kills, &vmstat);
    if let Some(counted) = expected.cgroup_kills {
        wrong.differs("memory.events oom_kill", &expected.kernel_kills, &counted);
    }
    wrong.all()
}

/// Complaints about one watcher.
pub(crate) fn seen(expected: &Expected, seen: Seen<'_>, acceptance: Acceptance) -> Vec<String> {
    let mut wrong = Complaints::new(acceptance.lenient);
    for line in seen.others {
        wrong.unless(is_excused(line, acceptance), || line.unexpected());
    }
    let victims = &expected.provoked.victims;
    wrong.differs("kills", &victims.len(), &seen.kills.len());
    if !acceptance.lenient {
        let incidents: BTreeSet<_> = seen.kills.iter().map(|kill| kill.incident).collect();
        wrong.differs("incidents", &expected.incidents, &incidents.len());
    }
    for victim in victims {
        match seen.kills.iter().filter(|kill| is_of(victim, kill, acceptance)).collect::<Vec<_>>().as_slice() {
            [kill] => {
                let mut about = one(expected, victim, kill, acceptance);
                // What a lower method was not shown, the log tells in its place.
                let by_log = acceptance.lenient && kill.method == "kmsg";
                about.unless(by_log || kill.method == seen.method, || {
                    format!("method: {}, not {}", seen.method, kill.method)
                });
                wrong.of(victim.pid, about);
            }
            others => {
                wrong.unless(false, || format!("{} kills of process {} ({})", others.len(), victim.pid, victim.comm));
            }
        }
    }
    for kill in seen.kills {
        let of_one = victims.iter().any(|victim| is_of(victim, kill, acceptance));
        wrong.unless(of_one, || format!("killed nobody: {:?} {:?}", kill.victim.pid, kill.victim.comm));
    }
    wrong.shortened()
}

/// Complaints about two watchers that tell the same kills differently.
pub(crate) fn disagreement(other: &str, theirs: &[OomKill], ours: &[OomKill]) -> Vec<String> {
    let mut wrong = Complaints::default();
    for kill in ours {
        let same = theirs.iter().find(|candidate| candidate.victim.pid == kill.victim.pid);
        if let Some(same) = same {
            for ((what, theirs), (_, ours)) in facts(same).into_iter().zip(facts(kill)) {
                wrong.differs(&format!("{what} told by {other}"), &theirs, &ours);
            }
        }
    }
    wrong.shortened()
}

/// Complaints about the last line.
pub(crate) fn summary(summary: &Summary, totals: &Totals) -> Vec<String> {
    let mut wrong = Complaints::default();
    wrong.differs("summary.kills", &totals.printed.kills, &summary.kills);
    wrong.differs("summary.lost", &0, &summary.lost);
    wrong.differs("summary.unresolved", &totals.printed.unresolved, &summary.unresolved);
    wrong.differs("summary.kernel_kills", &Some(totals.kernel), &summary.kernel_kills);
    // Who does not know group kills cannot explain what the kernel counts twice, but for those that the log told.
    let explained = totals.printed.kills + totals.printed.group_kills;
    let twice = if totals.groups { 0 } else { totals.kernel.saturating_sub(explained).cast_signed() };
    wrong.differs("summary.unaccounted", &Some(twice), &summary.unaccounted);
    if let Some(marks) = totals.already_dying {
        let threads = !totals.groups && summary.already_dying > marks;
        wrong.unless(threads || summary.already_dying == marks, || {
            format!("summary.already_dying: {marks}, not {}", summary.already_dying)
        });
    }
    wrong.all()
}

/// Whether a line is about this victim.
pub(crate) fn is_of(victim: &Victim, kill: &OomKill, acceptance: Acceptance) -> bool {
    let told = &kill.victim;
    let thread = || victim.comm == THREAD && told.comm.as_deref() == Some(THREAD);
    match told.pid {
        Some(pid) => pid == victim.pid || acceptance.thread_for_process && thread(),
        None => acceptance.lenient && (told.tid == Some(victim.pid) || thread()),
    }
}

/// Whether a line that is no kill may stand between kills: a method that need not know may say so. What was lost or not
/// understood is never excused.
fn is_excused(line: &Line, acceptance: Acceptance) -> bool {
    let Line::Notice(notice) = line else { return false };
    // A guest without hardware help may be slower than a kill waits for names.
    // The log may be written faster than anybody reads it, which is told.
    let excused = ["names_slow", "log_overrun"].contains(&notice.kind.as_str());
    excused || acceptance.lenient && ["locate", "problem"].contains(&notice.stage.as_str())
}

/// Complaints about one kill.
fn one(expected: &Expected, victim: &Victim, kill: &OomKill, acceptance: Acceptance) -> Complaints {
    let mut wrong = Complaints::new(acceptance.lenient);
    who(&mut wrong, victim, kill, acceptance);
    place(&mut wrong, victim, kill);
    let unknown = "unknown";
    wrong.known("limit.hit", &expected.hit, &kill.limit.hit.as_str(), &unknown);
    wrong.known("limit.bytes", &expected.limit_bytes, &kill.limit.bytes, &None);
    let domain = kill.limit.cgroup.as_ref().map(|cgroup| cgroup.path.clone().unwrap_or_default());
    let right = domain.as_ref().map_or(expected.domains.is_empty(), |path| expected.domains.contains(path));
    let excused = acceptance.lenient && domain.is_none();
    wrong.unless(right || excused, || format!("limit.cgroup: one of {:?}, not {domain:?}", expected.domains));
    wrong.known("group_kill", &Some(expected.group_kill), &kill.group_kill, &None);
    // Whoever asked for memory is one of the provocation's processes.
    let trigger = kill.trigger.as_ref().map(|trigger| trigger.comm.as_str());
    wrong.told("trigger", trigger.as_ref());
    wrong.unless(trigger.is_none_or(|comm| comm.starts_with("oom-")), || {
        format!("trigger: one of the provocation's processes, not {trigger:?}")
    });
    wrong
}

/// The process and its part.
fn who(wrong: &mut Complaints, victim: &Victim, kill: &OomKill, acceptance: Acceptance) {
    let told = &kill.victim;
    wrong.differs("comm", &Some(victim.comm), &told.comm.as_deref());
    let thread = victim.comm == THREAD;
    let leader = if thread { EATER } else { victim.comm };
    wrong.known("leader_comm", &Some(leader), &told.leader_comm.as_deref(), &None);
    let both_known = told.pid.is_some() && told.tid.is_some();
    if !acceptance.thread_for_process && (both_known || !acceptance.lenient) {
        let wanted = if thread { "other than" } else { "like" };
        wrong.unless(thread != (told.tid == told.pid), || {
            format!("tid: {wanted} the pid {:?}, not {:?}", told.pid, told.tid)
        });
    }
    wrong.known("namespace_pid", &victim.namespace_pid.or(Some(victim.pid)), &told.namespace_pid, &None);
    let process = match (kube::owner_of(&victim.cgroup).kind.as_str(), victim.role) {
        ("container", Role::Init) => "init",
        ("container", Role::Child) => "child",
        _ => "unknown",
    };
    wrong.known("process", &process, &told.process.as_str(), &"unknown");
    wrong.told("started_boot_ns", told.started_boot_ns.as_ref());
    wrong.unless(told.started_boot_ns != Some(0), || "started_boot_ns is 0".to_owned());
    wrong.known("uid", &Some(0), &told.uid, &None);
    wrong.unless(told.anon_bytes.is_some() || !acceptance.memory, || "anon_bytes is unknown".to_owned());
}

/// Where it lived.
fn place(wrong: &mut Complaints, victim: &Victim, kill: &OomKill) {
    let path = kill.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
    wrong.known("cgroup", &Some(victim.cgroup.as_str()), &path, &None);
    wrong.known("owner", &kube::owner_of(&victim.cgroup), &kill.owner, &Owner::of_kind("unknown"));
    // An owner comes from a path, and a path has an owner.
    let unknown = kill.owner.kind == "unknown";
    wrong.unless(path.is_none() == unknown, || format!("owner {:?} of cgroup {path:?}", kill.owner.kind));
}

/// Whether the place of a kill is unknown, which the last line counts.
pub(crate) fn is_unresolved(kill: &OomKill) -> bool {
    kill.cgroup.as_ref().and_then(|Cgroup { path, .. }| path.as_ref()).is_none()
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

#[cfg(test)]
mod tests {
    use detector_provoke::Provoked;

    use super::*;

    /// As printed on Linux 6.12 for the case `single-child`.
    const KILL: &str = r#"{"type":"oom_kill","time":"2026-11-22T03:46:02.123456Z","boot_ns":7123456789,"cpu":1,
        "sequence":1,"method":"fentry","incident":1,"incident_victim":1,"group_kill":false,"victim":{"pid":96,"tid":96,"comm":"oom-eater",
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
            already_dying: 0,
        }
    }

    fn complaints(kills: &[OomKill]) -> String {
        by("fentry", kills)
    }

    fn by(method: &str, kills: &[OomKill]) -> String {
        let kills: Vec<_> = kills.iter().map(|kill| OomKill { method: method.to_owned(), ..kill.clone() }).collect();
        seen(&expected(), Seen { method, kills: &kills, others: &[] }, Acceptance::of(method, true)).join("; ")
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
    fn a_lower_rung_may_say_that_it_does_not_know_but_nothing_wrong() {
        let mut modest = kill();
        modest.cgroup = None;
        modest.owner = Owner::of_kind("unknown");
        (modest.limit.hit, modest.limit.cgroup, modest.limit.bytes) = ("unknown".to_owned(), None, None);
        (modest.group_kill, modest.trigger, modest.victim.started_boot_ns) = (None, None, None);
        assert_eq!(by("kmsg", &[modest.clone()]), "");
        assert!(!complaints(&[modest.clone()]).is_empty());
        assert!(is_unresolved(&modest));
        modest.limit.hit = "node".to_owned();
        assert!(by("kmsg", &[modest.clone()]).contains("limit.hit: "));
        modest.owner.kind = "container".to_owned();
        assert!(by("kmsg", &[modest]).contains("owner: "));
    }

    #[test]
    fn victims_of_one_decision_must_share_an_incident() {
        let mut expected = expected();
        expected.provoked.victims.push(Victim { pid: 97, ..expected.provoked.victims[0].clone() });
        let mut second = kill();
        (second.victim.pid, second.victim.tid, second.victim.namespace_pid) = (Some(97), Some(97), Some(97));
        let together = [kill(), second.clone()];
        let whole = Acceptance::of("fentry", true);
        assert_eq!(
            seen(&expected, Seen { method: "fentry", kills: &together, others: &[] }, whole),
            Vec::<String>::new()
        );
        second.incident = 2;
        let apart = [kill(), second];
        assert_eq!(
            seen(&expected, Seen { method: "fentry", kills: &apart, others: &[] }, whole),
            ["incidents: 1, not 2"]
        );
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
        let wrong = summary(&told(4, 1, 1), &Totals { kernel: 4, groups: true, ..TOTALS });
        assert_eq!(wrong, ["summary.lost: 0, not 1", "summary.unaccounted: Some(0), not Some(1)"]);
    }

    #[test]
    fn a_group_kill_that_the_log_told_explains_one_count_of_the_kernel() {
        let totals = Totals { kernel: 6, printed: Printed { group_kills: 1, ..PRINTED }, ..TOTALS };
        assert_eq!(summary(&told(6, 0, 2), &totals), Vec::<String>::new());
        assert_eq!(summary(&told(6, 0, 3), &totals), ["summary.unaccounted: Some(2), not Some(3)"]);
    }

    const PRINTED: Printed = Printed { kills: 3, unresolved: 0, group_kills: 0 };
    const TOTALS: Totals = Totals { printed: PRINTED, kernel: 3, already_dying: Some(0), groups: false };

    fn told(kernel: u64, lost: u64, unaccounted: i64) -> Summary {
        Summary {
            kills: 3,
            already_dying: 0,
            unresolved: 0,
            lost,
            kernel_kills: Some(kernel),
            unaccounted: Some(unaccounted),
        }
    }
}
