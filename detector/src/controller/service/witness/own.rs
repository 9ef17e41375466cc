//! What this replica has to say about each incident: all of it, each time.
//!
//! It is kept only while it is on its way: an excerpt of a log is large, and incidents may be open for days. What stands in the
//! object is read from there when there is more to say.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    contract::incident::{EvidenceEntry, KernelIncident},
    controller::incident::{
        Evidence, Fact, Testimony,
        testimony::{self, LEADER},
    },
};

/// Replicas whose words stand in one incident at most: each has up to four entries, and with those of the leader they have to
/// fit into [`crate::contract::incident::MAX_EVIDENCE`]. Pods of later roll-outs have new names.
const MAX_WITNESSES: usize = 12;

/// What was said by now.
#[derive(Debug, Default)]
pub(in crate::controller::service) struct Own {
    /// On its way, by incident.
    said: BTreeMap<String, Testimony>,
    /// Incidents in which something of ours stands, or may stand.
    told: BTreeSet<String>,
}

impl Own {
    /// Nothing is on its way.
    pub(in crate::controller::service) fn is_empty(&self) -> bool {
        self.said.is_empty()
    }

    /// Whether the object has to be read before more is said: only there all of it stands.
    pub(super) fn stands_elsewhere(&self, name: &str, known: &KernelIncident, witness: &str) -> bool {
        let here = self.said.contains_key(name);
        !here && (self.told.contains(name) || witnesses(known).contains(witness))
    }

    /// All there is to say about `incident` with `more`.
    pub(super) fn add(&mut self, name: &str, incident: &KernelIncident, witness: &str, more: Testimony) -> Testimony {
        let said = self.said.entry(name.to_owned()).or_insert_with(|| before(incident, witness));
        add(said, more);
        said.clone()
    }

    /// `testimony` stands, perhaps without its log, or never will; what was said since is still on its way.
    pub(super) fn ended(&mut self, name: &str, testimony: &Testimony) {
        let same = |said: &Testimony| {
            said.evidence == testimony.evidence && (testimony.log.is_none() || said.log == testimony.log)
        };
        if self.said.get(name).is_some_and(same) {
            self.forget(name);
        }
    }

    /// Nothing of it is on its way.
    pub(super) fn forget(&mut self, name: &str) {
        self.said.remove(name);
        self.told.insert(name.to_owned());
    }

    /// Only incidents that are open are spoken of.
    pub(super) fn retain(&mut self, is_open: impl Fn(&str) -> bool) {
        self.told.retain(|name| is_open(name));
    }
}

/// Who has said something, the leader left out.
fn witnesses(incident: &KernelIncident) -> BTreeSet<&str> {
    let evidence = incident.status.iter().flat_map(|status| &status.evidence);
    evidence.filter_map(|entry| entry.id.split_once('/')).map(|(who, _)| who).filter(|who| *who != LEADER).collect()
}

/// Whether `fact` adds nothing to what stands: a sign of life is one, and so is what ails who gives it, whoever heard it and
/// however its words change (`stuck for 22s!`, `stuck for 44s!`): an incident is open for days. Enough have told of a panic,
/// too.
pub(super) fn is_known(fact: &Evidence, incident: &KernelIncident, witness: &str) -> bool {
    let Fact::Spoke { findings, .. } = &fact.fact else { return false };
    let all = witnesses(incident);
    if all.len() >= MAX_WITNESSES && !all.contains(witness) {
        return true;
    }
    let stands = |new: &EvidenceEntry| {
        let mut evidence = incident.status.iter().flat_map(|status| &status.evidence);
        evidence.any(|old| old.kind == new.kind && old.confidence >= new.confidence)
    };
    findings.panic.is_none() && testimony::of(fact, witness).evidence.iter().all(stands)
}

/// What stands in the incident of ours.
fn before(incident: &KernelIncident, witness: &str) -> Testimony {
    let status = incident.status.clone().unwrap_or_default();
    let prefix = format!("{witness}/");
    let evidence = status.evidence.into_iter().filter(|entry| entry.id.starts_with(&prefix)).collect();
    let log = status.logs.into_iter().find(|log| log.id == witness);
    Testimony { evidence, log }
}

fn add(said: &mut Testimony, more: Testimony) {
    for entry in more.evidence {
        match said.evidence.iter_mut().find(|known| known.id == entry.id) {
            Some(known) => *known = newer(known, entry),
            None => said.evidence.push(entry),
        }
    }
    let spoke_of_panic = said.evidence.iter().any(|entry| entry.cause.is_some());
    match (&said.log, more.log) {
        // Lines of a kernel that lives are no last words.
        (Some(_), Some(log)) if spoke_of_panic && !log.text.contains("Kernel panic") => {}
        (_, Some(log)) => said.log = Some(log),
        (_, None) => {}
    }
}

/// A fact keeps the time at which it was first told.
fn newer(known: &EvidenceEntry, entry: EvidenceEntry) -> EvidenceEntry {
    EvidenceEntry { time: known.time.clone(), confidence: known.confidence.max(entry.confidence), ..entry }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::{
        contract::incident::{Confidence, KernelIncidentSpec, KernelIncidentStatus, LogExcerpt, MAX_EVIDENCE, Origin},
        controller::decode::Findings,
    };

    fn spoke(panic: Option<&str>, author: Confidence) -> Evidence {
        let findings = Findings { panic: panic.map(str::to_owned), ..Findings::default() };
        let log = if panic.is_some() { "Kernel panic - not syncing: x\n" } else { "" }.to_owned();
        let fact = Fact::Spoke { findings, author, log, lines_missing: 0 };
        Evidence { node: "node-a".to_owned(), at: Timestamp::UNIX_EPOCH, boot_id: None, fact }
    }

    fn incident(all: &[Testimony]) -> KernelIncident {
        let time = MicroTime(Timestamp::UNIX_EPOCH);
        let spec = KernelIncidentSpec { node: "node-a".to_owned(), node_uid: None, boot_id: None, time };
        let evidence = all.iter().flat_map(|one| one.evidence.clone()).collect();
        let logs = all.iter().filter_map(|one| one.log.clone()).collect();
        let status = KernelIncidentStatus { evidence, logs, ..KernelIncidentStatus::default() };
        KernelIncident { status: Some(status), ..KernelIncident::new("i", spec) }
    }

    #[test]
    fn a_sign_of_life_is_told_once_whoever_hears_it() {
        let life = spoke(None, Confidence::Low);
        assert!(!is_known(&life, &incident(&[]), "a"));
        let told = incident(&[testimony::of(&life, "a")]);
        assert!(is_known(&life, &told, "a") && is_known(&life, &told, "of-a-later-roll-out"));
        assert!(!is_known(&spoke(None, Confidence::Medium), &told, "b"), "one that is surer says more");
        assert!(!is_known(&spoke(Some("x"), Confidence::Low), &told, "b"), "a panic is no sign of life");
        let mut locked = spoke(None, Confidence::Low);
        if let Fact::Spoke { findings, .. } = &mut locked.fact {
            findings.signature = Some("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [cc1:911]".to_owned());
        }
        assert!(!is_known(&locked, &told, "a"), "it says what happens to it");
        let told = incident(&[testimony::of(&locked, "a")]);
        assert!(is_known(&locked, &told, "a") && is_known(&life, &told, "b"));
        if let Fact::Spoke { findings, .. } = &mut locked.fact {
            findings.signature = Some("watchdog: BUG: soft lockup - CPU#0 stuck for 44s! [cc1:911]".to_owned());
        }
        assert!(is_known(&locked, &told, "a"), "it says so every 20 s, for hours");
    }

    #[test]
    fn whatever_the_number_of_witnesses_all_evidence_fits_into_the_incident() {
        let panic = spoke(Some("x"), Confidence::Low);
        let mut all = Vec::new();
        for number in 0..100 {
            let witness = format!("replica-{number}");
            if !is_known(&panic, &incident(&all), &witness) {
                all.push(testimony::of(&panic, &witness));
            }
        }
        assert_eq!(all.len(), MAX_WITNESSES);
        assert!(!is_known(&panic, &incident(&all), "replica-3"), "who is among them goes on");
    }

    // KernelSpoke, Panic, Signature, LastWords of each; and of the leader one of each kind at most.
    const _: () = assert!(MAX_WITNESSES * 4 + 13 <= MAX_EVIDENCE);

    #[test]
    fn what_stands_is_kept_by_the_object_alone_and_taken_up_from_there() {
        let mut own = Own::default();
        let first = own.add("i", &incident(&[]), "a", testimony::of(&spoke(Some("x"), Confidence::Low), "a"));
        assert!(!own.stands_elsewhere("i", &incident(&[]), "a"), "it is on its way");
        own.ended("i", &first);
        assert!(own.is_empty() && own.stands_elsewhere("i", &incident(&[]), "a"), "though the watch has not told it");
        let life = testimony::of(&spoke(None, Confidence::Medium), "a");
        let all = own.add("i", &incident(std::slice::from_ref(&first)), "a", life);
        assert_eq!((all.evidence.len(), &all.log), (2, &first.log));
    }

    #[test]
    fn what_was_said_meanwhile_is_still_on_its_way() {
        let mut own = Own::default();
        let panic = |text: &str| testimony::of(&spoke(Some(text), Confidence::Low), "a");
        let first = own.add("i", &incident(&[]), "a", panic("x"));
        let second = own.add("i", &incident(&[]), "a", panic("y"));
        own.ended("i", &first);
        assert!(!own.is_empty());
        own.ended("i", &second);
        assert!(own.is_empty());
    }

    #[test]
    fn lines_of_a_kernel_that_lives_do_not_take_the_place_of_last_words() {
        let mut said = testimony::of(&spoke(Some("x"), Confidence::Low), "a");
        let words = said.log.clone();
        let text = "eth0: link is up\n".to_owned();
        let log = Some(LogExcerpt { id: "a".to_owned(), origin: Origin::Netconsole, text, lines_missing: 0 });
        said.evidence[0].cause = Some(crate::contract::incident::Cause::KernelPanic);
        add(&mut said, Testimony { evidence: Vec::new(), log });
        assert_eq!(said.log, words);
    }
}
