//! A fact → the entry of the incident that tells it, within the bounds of the object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Evidence, Fact, PreviousEnd, Testimony};
use crate::{
    contract::{
        incident::{
            Cause, Confidence, EvidenceEntry, EvidenceKind, LogExcerpt, MAX_LOG_BYTES, MAX_MESSAGE_BYTES, Origin,
            Suspect,
        },
        last_words::{LastWords, Role, Sureness},
    },
    controller::decode::Findings,
    text,
};

/// Key of what Node and Lease tell, whoever leads.
pub const LEADER: &str = "leader";

/// What `witness` (the replica, or [`LEADER`] for facts of Node and Lease) has to say by `evidence`.
#[must_use]
pub fn of(evidence: &Evidence, witness: &str) -> Testimony {
    match &evidence.fact {
        Fact::Spoke { findings, author, log: lines, lines_missing } => {
            let excerpt = LogExcerpt {
                id: witness.to_owned(),
                origin: Origin::Netconsole,
                text: newest(lines, MAX_LOG_BYTES),
                lines_missing: i64::try_from(*lines_missing).unwrap_or(i64::MAX),
            };
            let told = told(evidence, witness, Origin::Netconsole, EvidenceKind::Panic, *author, findings);
            Testimony { evidence: told, log: Some(excerpt).filter(|one| !one.text.is_empty()) }
        }
        Fact::Found { end, findings, message, .. } => {
            let kind = match end {
                PreviousEnd::Panic => EvidenceKind::FoundPanic,
                PreviousEnd::Unclean => EvidenceKind::FoundUnclean,
                PreviousEnd::Clean => EvidenceKind::FoundClean,
            };
            let mut told = told(evidence, witness, Origin::Agent, kind, Confidence::Medium, findings);
            if let Some(first) = told.first_mut() {
                first.message = text::start(message, MAX_MESSAGE_BYTES).to_owned();
            }
            Testimony { evidence: told, log: None }
        }
        fact => Testimony { evidence: plain(evidence, witness, fact).into_iter().collect(), log: None },
    }
}

/// Entries of what a kernel said: the end itself, what went before it, and whom it named.
fn told(
    evidence: &Evidence,
    witness: &str,
    origin: Origin,
    end: EvidenceKind,
    author: Confidence,
    findings: &Findings,
) -> Vec<EvidenceEntry> {
    let entry = |kind: EvidenceKind, message: &str| EvidenceEntry {
        id: format!("{witness}/{kind:?}"),
        kind,
        origin,
        confidence: author,
        time: MicroTime(evidence.at),
        message: text::start(message, MAX_MESSAGE_BYTES).to_owned(),
        cause: None,
        boot_id: evidence.boot_id.clone(),
        suspect: None,
    };
    let mut all = Vec::new();
    if findings.panic.is_some() || origin == Origin::Agent {
        let suspect = findings.last_words.is_none().then(|| bystander(findings)).flatten();
        let message = findings.panic.as_deref().unwrap_or_default();
        let cause = findings.cause.or(findings.panic.is_some().then_some(Cause::KernelPanic));
        all.push(EvidenceEntry { cause, suspect, ..entry(end, message) });
    } else {
        all.push(entry(EvidenceKind::KernelSpoke, "its kernel wrote to its log"));
    }
    if let Some(signature) = &findings.signature {
        all.push(entry(EvidenceKind::Signature, signature));
    }
    if let Some(words) = &findings.last_words {
        let suspect = suspect(words, author);
        all.push(EvidenceEntry { suspect: Some(suspect.clone()), ..entry(EvidenceKind::LastWords, &suspect.name) });
    }
    all
}

/// Whom our own line names. Nobody can be surer of it than of the line's author, but for what the kernel itself chose.
fn suspect(words: &LastWords, author: Confidence) -> Suspect {
    let sure = match words.confidence {
        Sureness::Unknown => Confidence::Unknown,
        Sureness::Low => Confidence::Low,
        Sureness::Medium => Confidence::Medium,
        Sureness::High => Confidence::High,
    };
    let doubted = author <= Confidence::Low;
    let comm = words.comm.clone();
    let name = match (&words.pod, &comm, words.cgroup) {
        (Some((namespace, pod, container)), _, _) => format!("{namespace}/{pod}/{container}"),
        (None, Some(comm), _) => comm.clone(),
        (None, None, Some(cgroup)) => format!("cgroup {cgroup}"),
        (None, None, None) => "unknown".to_owned(),
    };
    Suspect {
        name: text::start(&name, 512).to_owned(),
        confidence: if doubted { sure.min(Confidence::Low) } else { sure },
        role: Some(words.role.word().to_owned()),
        pid: words.pid.map(i64::from),
        comm,
        namespace: words.pod.as_ref().map(|pod| pod.0.clone()),
        pod: words.pod.as_ref().map(|pod| pod.1.clone()),
        pod_uid: words.pod_uid.clone(),
        container: words.pod.as_ref().map(|pod| pod.2.clone()),
    }
}

/// Without our own line: the task on the dying CPU, who is the culprit only of some panics.
fn bystander(findings: &Findings) -> Option<Suspect> {
    let (pid, comm) = findings.task.as_ref()?;
    let confidence = match findings.cause {
        Some(Cause::Oops | Cause::StackCorruption | Cause::SysRq) => Confidence::Low,
        // khungtaskd, the watchdog, the allocator, an interrupted task: somebody else did it.
        _ => Confidence::Unknown,
    };
    Some(Suspect {
        name: text::start(comm, 512).to_owned(),
        confidence,
        role: Some(Role::Current.word().to_owned()),
        pid: Some(i64::from(*pid)),
        comm: Some(comm.clone()),
        ..Suspect::default()
    })
}

/// The entry of a fact that is told in few words; `None`: what a kernel said is not.
fn plain(evidence: &Evidence, witness: &str, fact: &Fact) -> Option<EvidenceEntry> {
    let (kind, origin, message) = match fact {
        Fact::LeaseStale { renewed } => {
            (EvidenceKind::LeaseStale, Origin::Lease, format!("not renewed since {renewed:.3}"))
        }
        Fact::LeaseFresh { renewed } => (EvidenceKind::LeaseFresh, Origin::Lease, format!("renewed at {renewed:.3}")),
        Fact::ReadyUnknown { since } => (EvidenceKind::ReadyUnknown, Origin::Node, format!("since {since:.0}")),
        Fact::OtherBoot { boot_id } => (EvidenceKind::OtherBoot, Origin::Node, boot_id.clone()),
        Fact::SameBoot => (EvidenceKind::SameBoot, Origin::Node, String::new()),
        Fact::ClockStood => (EvidenceKind::ClockStood, Origin::Lease, String::new()),
        Fact::ClockWentOn => (EvidenceKind::ClockWentOn, Origin::Lease, String::new()),
        Fact::NodeDeleted => (EvidenceKind::NodeDeleted, Origin::Node, String::new()),
        Fact::Spoke { .. } | Fact::Found { .. } => return None,
    };
    Some(EvidenceEntry {
        id: format!("{witness}/{kind:?}"),
        kind,
        origin,
        confidence: Confidence::High,
        time: MicroTime(evidence.at),
        message: text::start(&message, MAX_MESSAGE_BYTES).to_owned(),
        cause: None,
        boot_id: evidence.boot_id.clone(),
        suspect: None,
    })
}

/// The last `bytes` bytes, from the begin of a line.
fn newest(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let tail = text.get(text.ceil_char_boundary(text.len() - bytes)..).unwrap_or_default();
    tail.split_once('\n').map_or(tail, |(_, whole)| whole).to_owned()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn spoke(findings: Findings, author: Confidence) -> Evidence {
        let fact = Fact::Spoke { findings, author, log: "a\nb\n".to_owned(), lines_missing: 2 };
        Evidence { node: "node-a".to_owned(), at: Timestamp::UNIX_EPOCH, boot_id: None, fact }
    }

    fn words() -> LastWords {
        LastWords {
            role: Role::Current,
            confidence: Sureness::High,
            pid: Some(7),
            cgroup: Some(9),
            pod: Some(("shop".to_owned(), "cart-0".to_owned(), "php".to_owned())),
            pod_uid: Some("u".to_owned()),
            comm: Some("php-fpm".to_owned()),
        }
    }

    #[test]
    fn a_panic_with_our_line_names_its_suspect() {
        let findings = Findings {
            panic: Some("Fatal exception".to_owned()),
            cause: Some(Cause::Oops),
            last_words: Some(words()),
            ..Findings::default()
        };
        let testimony = of(&spoke(findings.clone(), Confidence::Medium), "controller-0");
        let kinds: Vec<_> = testimony.evidence.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [EvidenceKind::Panic, EvidenceKind::LastWords]);
        assert_eq!(testimony.evidence[0].id, "controller-0/Panic");
        let suspect = testimony.evidence[1].suspect.as_ref().expect("a suspect");
        assert_eq!((suspect.name.as_str(), suspect.confidence), ("shop/cart-0/php", Confidence::High));
        let weak = of(&spoke(findings, Confidence::Low), "controller-0");
        assert_eq!(weak.evidence[1].suspect.as_ref().map(|one| one.confidence), Some(Confidence::Low));
    }

    #[test]
    fn who_ran_on_the_dying_cpu_is_no_culprit_of_a_hung_task_panic() {
        let findings = Findings {
            panic: Some("hung_task: blocked tasks".to_owned()),
            cause: Some(Cause::HungTask),
            task: Some((30, "khungtaskd".to_owned())),
            ..Findings::default()
        };
        let testimony = of(&spoke(findings, Confidence::Medium), "controller-0");
        assert_eq!(testimony.evidence[0].suspect.as_ref().map(|one| one.confidence), Some(Confidence::Unknown));
    }

    #[test]
    fn lines_that_are_no_panic_are_a_sign_of_life() {
        let testimony = of(&spoke(Findings::default(), Confidence::Medium), "controller-0");
        assert_eq!(testimony.evidence[0].kind, EvidenceKind::KernelSpoke);
    }

    #[test]
    fn nothing_is_longer_than_the_object_takes() {
        let mut evidence = spoke(Findings { panic: Some("ü".repeat(5000)), ..Findings::default() }, Confidence::Medium);
        if let Fact::Spoke { log, .. } = &mut evidence.fact {
            *log = "line of a log\n".repeat(10_000);
        }
        let testimony = of(&evidence, "controller-0");
        assert!(testimony.evidence[0].message.len() <= MAX_MESSAGE_BYTES);
        let log = testimony.log.expect("a log").text;
        assert!(log.len() <= MAX_LOG_BYTES && log.starts_with("line of"), "{}", log.len());
    }
}
