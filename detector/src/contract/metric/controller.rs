//! Metrics of the controller's receiver: names, labels and what they mean.

pub mod incidents;

use super::{Kind, Metric, reference::page, words};

words! {
    /// What became of a datagram.
    pub enum DatagramResult {
        /// It was looked at.
        Taken = "taken",
        /// Its source had sent too much.
        RateOfSource = "rate_source",
        /// All sources together had sent too much.
        RateInTotal = "rate_total",
        /// There was no room for one more source that is no Node's address.
        TableFull = "table_full",
        /// It was longer than any of a kernel.
        TooLong = "too_long",
        /// The kernel had no room for it: it came faster than they were read.
        KernelDropped = "kernel_dropped",
    }

    /// What is wrong with a datagram that has the shape of the extended format.
    pub enum FrameFault {
        /// It has no bytes.
        Empty = "empty",
        /// A number in its head is out of range.
        Number = "number",
        /// Its head does not end.
        Endless = "endless",
        /// The place of a fragment contradicts itself.
        Fragment = "fragment",
        /// The record would be too large.
        Excessive = "excessive",
    }

    /// Whose a record is.
    pub enum SenderResult {
        /// That of a Node, by name and secret.
        Signed = "signed",
        /// That of a Node, by the address alone.
        Address = "address",
        /// A piece of a record, from where signed ones came: the whole tells.
        Fragment = "fragment",
        /// Neither its address nor a name in it is a Node's.
        Unknown = "unknown",
        /// Its address is that of more than one Node.
        Ambiguous = "ambiguous",
        /// It names a Node, and its secret is another than that Node's.
        WrongSecret = "wrong_secret",
        /// It names a Node without proof, and comes from elsewhere.
        Contradicted = "contradicted",
        /// It claims to be from the controller's own node, which cannot send to itself.
        Own = "own",
    }

    /// What a line was.
    pub enum LineKind {
        /// The kernel's own, or in a format that does not tell.
        Kernel = "kernel",
        /// Written by a program through `/dev/kmsg`.
        Foreign = "foreign",
        /// A self test of the node that it came from.
        SelfTest = "self_test",
        /// Joined from fragments among those of a signed stream, and not signed itself.
        Unsigned = "unsigned",
    }

    /// What was not as it should be with records.
    pub enum Irregularity {
        /// A fragment was lost: the line was read without it.
        Torn = "torn",
        /// It was there already.
        Duplicate = "duplicate",
        /// It came after those that follow it.
        Late = "late",
        /// A fragment contradicted the others.
        Refused = "refused",
        /// Numbers or times began anew: another boot.
        Reboot = "reboot",
    }

    /// Why evidence was told.
    pub enum Telling {
        /// A panic.
        Panic = "panic",
        /// More became known of it.
        Growth = "growth",
        /// Its log is complete: silence, or no more room.
        Last = "last",
        /// A kernel with an open incident wrote something that is no panic.
        Life = "life",
    }

    /// Why a node's lines were forgotten.
    pub enum VoiceEnd {
        /// It was silent for long.
        Silent = "silent",
        /// Others needed the room.
        Room = "room",
        /// Node or address went to another.
        Moved = "moved",
    }

    /// Whether the address of a source is a Node's.
    pub enum SourceKind {
        /// It is.
        Known = "known",
        /// It is not.
        Unknown = "unknown",
    }
}

/// Datagrams.
pub const DATAGRAMS: Metric = Metric {
    name: "detector_receiver_datagrams_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("result", DatagramResult::WORDS)],
    help: "Datagrams at the netconsole port by what became of them. Anything but taken, for long: somebody floods the port, or \
           the buffer is too small.",
};

/// Frames.
pub const FRAMES_REFUSED: Metric = Metric {
    name: "detector_receiver_frames_refused_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("fault", FrameFault::WORDS)],
    help: "Datagrams that have the shape of the extended format and break its rules: no kernel sends such.",
};

/// Senders.
pub const RECORDS: Metric = Metric {
    name: "detector_receiver_records_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("sender", SenderResult::WORDS)],
    help: "Records and fragments by whose they are. Only signed and address are evidence; wrong_secret means a forger, or a \
           node whose annotation is old.",
};

/// Lines.
pub const LINES: Metric = Metric {
    name: "detector_receiver_lines_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("kind", LineKind::WORDS)],
    help: "Lines of Nodes by what they are. Only kernel is evidence.",
};

/// Irregular records.
pub const IRREGULAR: Metric = Metric {
    name: "detector_receiver_irregular_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("kind", Irregularity::WORDS)],
    help: "Records of Nodes that were torn, doubled, late or contradictory, and boots that began.",
};

/// Evidence.
pub const EVIDENCE: Metric = Metric {
    name: "detector_receiver_evidence_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("why", Telling::WORDS)],
    help: "Times that what a kernel said was handed on as evidence.",
};

/// Sources.
pub const SOURCES: Metric = Metric {
    name: "detector_receiver_sources",
    kind: Kind::Gauge,
    unit: None,
    labels: &[words("kind", SourceKind::WORDS)],
    help: "Sources of datagrams that are remembered.",
};

/// Voices.
pub const VOICES: Metric = Metric {
    name: "detector_receiver_voices",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Boots of Nodes whose lines are held.",
};

/// Memory of voices.
pub const VOICE_BYTES: Metric = Metric {
    name: "detector_receiver_voice_bytes",
    kind: Kind::Gauge,
    unit: Some("bytes"),
    labels: &[],
    help: "Memory that these lines take, roughly.",
};

/// Ends of voices.
pub const VOICES_ENDED: Metric = Metric {
    name: "detector_receiver_voices_ended_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("why", VoiceEnd::WORDS)],
    help: "Boots of Nodes whose lines were forgotten. What they said of a panic had been told before.",
};

/// The kernel's buffer.
pub const BUFFER: Metric = Metric {
    name: "detector_receiver_buffer_bytes",
    kind: Kind::Gauge,
    unit: Some("bytes"),
    labels: &[],
    help: "Size of the kernel's buffer for datagrams that were not read yet, as the kernel counts it. Small without \
           CAP_NET_ADMIN unless net.core.rmem_max is raised.",
};

/// All of them, in the order in which they are served.
pub const METRICS: &[&Metric] = &[
    &DATAGRAMS,
    &FRAMES_REFUSED,
    &RECORDS,
    &LINES,
    &IRREGULAR,
    &EVIDENCE,
    &SOURCES,
    &VOICES,
    &VOICE_BYTES,
    &VOICES_ENDED,
    &BUFFER,
];

/// The reference of these metrics, as a Markdown page.
#[must_use]
pub fn reference() -> String {
    page(PREFACE, &[incidents::METRICS, METRICS].concat())
}

const PREFACE: &str = "\
# Metrics of `detector controller`

Served at `/metrics` in the text format of OpenMetrics, or in that of Prometheus to who does not ask for the former. Names and
labels are renamed or removed only with a deprecation. Counters begin at zero with each start. Every replica hears and serves
what it heard; what the leader alone knows, it alone serves.
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_rules_of_the_format() {
        let mut seen = BTreeSet::new();
        for metric in METRICS.iter().chain(incidents::METRICS) {
            assert!(seen.insert(metric.family()), "{} stands twice", metric.name);
            assert!(super::super::METRICS.iter().all(|other| other.family() != metric.family()), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            if let Some(unit) = metric.unit {
                assert!(metric.family().ends_with(&format!("_{unit}")), "{} ends with its unit", metric.name);
            }
            assert!(!metric.help.contains(['\n', '\\']) && metric.help.ends_with('.'), "{}", metric.help);
        }
    }
}
