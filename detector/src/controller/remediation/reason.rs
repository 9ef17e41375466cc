//! The reason that stands on pods and Node: why they are gone, in words that outlive neither and say where to read on. Pure.

use jiff::Timestamp;

use crate::{
    contract::{
        incident::{Confidence, EvidenceKind, KernelIncident, KernelIncidentStatus, MAX_MESSAGE_BYTES},
        remediation::{REASON_LOST, REASON_PANIC},
    },
    controller::incident::{assess::sentence, weigh::Weight},
    text,
};

/// Bytes of the kernel's own words in a reason at most, so that suspect and incident always have room.
const WORDS_BYTES: usize = 256;

/// Bytes of the suspect's name at most.
const SUSPECT_BYTES: usize = 320;

/// The word for machines: `status.reason` of pods and reason of their conditions.
#[must_use]
pub fn word(status: &KernelIncidentStatus) -> &'static str {
    if Weight::of(&status.evidence).panicked() { REASON_PANIC } else { REASON_LOST }
}

/// The reason for people, of at most [`MAX_MESSAGE_BYTES`]:
///
/// ```text
/// kernel panic on node-a at 2026-11-22T12:00:00Z: Fatal exception; suspect shop/cart-0/php (high); incident node-a-0f3c7a5211aa
/// ```
#[must_use]
pub fn text(incident: &KernelIncident) -> String {
    let (spec, status) = (&incident.spec, incident.status.as_ref());
    let panicked = status.is_some_and(|status| Weight::of(&status.evidence).panicked());
    let what = if panicked { "kernel panic" } else { "death without words" };
    // The second is precise enough for people, and the object has the rest.
    let at: Timestamp = spec.time.0;
    let mut reason = format!("{what} on {} at {at:.0}", spec.node);
    if let Some(words) = status.and_then(|status| words(status, panicked)) {
        reason.push_str(&format!(": {words}"));
    }
    if let Some(suspect) = status.and_then(suspect) {
        reason.push_str(&format!("; {suspect}"));
    }
    reason.push_str(&format!("; incident {}", incident.metadata.name.as_deref().unwrap_or_default()));
    text::cut(&text::harmless(&reason), MAX_MESSAGE_BYTES)
}

/// What the kernel said itself, by the best witness; else what we made of the evidence.
fn words(status: &KernelIncidentStatus, panicked: bool) -> Option<String> {
    let told = status.evidence.iter().filter(|entry| entry.kind == EvidenceKind::Panic && !entry.message.is_empty());
    // Of equally good witnesses the first by key, so that the reason does not change with the order.
    let told = told.min_by_key(|entry| (std::cmp::Reverse(entry.confidence), &entry.id));
    let made = || status.cause.map(|cause| sentence(cause).to_owned());
    let words = told.filter(|_| panicked).map(|entry| entry.message.clone()).or_else(made)?;
    Some(text::cut(&words, WORDS_BYTES))
}

/// Nobody is named of whom nothing is known but that he was there.
fn suspect(status: &KernelIncidentStatus) -> Option<String> {
    let suspect = status.suspect.as_ref()?;
    let sure = match suspect.confidence {
        Confidence::Unknown => return None,
        Confidence::Low => "low",
        Confidence::Medium => "medium",
        Confidence::High => "high",
    };
    Some(format!("suspect {} ({sure})", text::cut(&suspect.name, SUSPECT_BYTES)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use proptest::prelude::*;

    use super::*;
    use crate::contract::incident::{Cause, EvidenceEntry, KernelIncidentSpec, Origin, Suspect};

    fn incident(message: &str, suspect: Option<Suspect>, kind: EvidenceKind) -> KernelIncident {
        let time = MicroTime("2026-11-22T12:00:00.123456Z".parse().expect("a time"));
        let spec = KernelIncidentSpec { node: "node-a".to_owned(), node_uid: None, boot_id: None, time: time.clone() };
        let evidence = EvidenceEntry {
            id: "r/Panic".to_owned(),
            kind,
            origin: Origin::Netconsole,
            confidence: Confidence::Medium,
            time,
            message: message.to_owned(),
            cause: None,
            boot_id: None,
            suspect: None,
        };
        let status = KernelIncidentStatus {
            cause: Some(Cause::Silent),
            suspect,
            evidence: vec![evidence],
            ..KernelIncidentStatus::default()
        };
        KernelIncident { status: Some(status), ..KernelIncident::new("node-a-0f3c7a5211aa", spec) }
    }

    fn suspect(confidence: Confidence) -> Option<Suspect> {
        Some(Suspect { name: "shop/cart-0/php".to_owned(), confidence, ..Suspect::default() })
    }

    #[test]
    fn a_panic_is_told_in_the_kernels_words_with_its_suspect() {
        let incident = incident("Fatal exception", suspect(Confidence::High), EvidenceKind::Panic);
        assert_eq!(
            text(&incident),
            "kernel panic on node-a at 2026-11-22T12:00:00Z: Fatal exception; suspect shop/cart-0/php (high); incident \
             node-a-0f3c7a5211aa"
        );
        assert_eq!(word(&incident.status.expect("a status")), "KernelPanic");
    }

    #[test]
    fn a_silent_death_is_no_panic_and_names_nobody() {
        let incident = incident("", suspect(Confidence::Unknown), EvidenceKind::LeaseStale);
        assert_eq!(
            text(&incident),
            "death without words on node-a at 2026-11-22T12:00:00Z: the node went silent without last words; incident \
             node-a-0f3c7a5211aa"
        );
        assert_eq!(word(&incident.status.expect("a status")), "NodeLost");
    }

    proptest! {
        #[test]
        fn a_reason_is_one_bounded_line_that_names_the_incident(message in ".{0,3000}", name in ".{0,1000}") {
            let suspect = Suspect { name, confidence: Confidence::Low, ..Suspect::default() };
            let text = text(&incident(&message, Some(suspect), EvidenceKind::Panic));
            prop_assert!(text.len() <= MAX_MESSAGE_BYTES, "{}", text.len());
            prop_assert!(text.ends_with("; incident node-a-0f3c7a5211aa"), "{text}");
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
