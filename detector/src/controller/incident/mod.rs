//! Evidence → which node, which incident, how sure. Pure but for `store`.
//!
//! ```text
//! lines + address ─▶ sender: which Node ─┐
//! Nodes, Leases ─────────────────────────┴▶ evidence ─▶ merge: which incident ─▶ store: the object
//!                                                        assess, lifecycle: all evidence → status
//! ```

pub mod assess;
#[cfg(test)]
pub(super) mod fixture;
pub mod hearing;
pub mod lease_history;
pub mod lifecycle;
pub mod merge;
pub mod sender;
pub mod store;
pub mod testimony;
pub mod weigh;

use jiff::Timestamp;

use super::decode::Findings;
pub use super::source::node_facts::{Found, NodeFacts, Ready};
use crate::contract::incident::{Confidence, EvidenceEntry, LogExcerpt};

/// A fact about a node as this replica learned it.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Name of the Node.
    pub node: String,
    /// When it happened, by the clock of this replica.
    pub at: Timestamp,
    /// The boot that it is about, if known.
    pub boot_id: Option<String>,
    /// The fact.
    pub fact: Fact,
}

/// A fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// The kernel spoke over netconsole.
    Spoke {
        /// What it said by now, all of it.
        findings: Findings,
        /// How sure it is that it was this node's kernel: `Medium` with identity and secret, `Low` by address alone or in
        /// basic format.
        author: Confidence,
        /// The lines.
        log: String,
        /// Lines known to be missing.
        lines_missing: u64,
    },
    /// The Lease was not renewed at least twice. `renewed`: when it was, last.
    LeaseStale {
        /// Last renewal.
        renewed: Timestamp,
    },
    /// The Lease was renewed after evidence of a death.
    LeaseFresh {
        /// Last renewal.
        renewed: Timestamp,
    },
    /// Ready is Unknown since then.
    ReadyUnknown {
        /// `lastTransitionTime`.
        since: Timestamp,
    },
    /// `status.nodeInfo.bootID` differs from the incident's.
    OtherBoot {
        /// The new one.
        boot_id: String,
    },
    /// The node is back with the boot of the incident.
    SameBoot,
    /// It is back, and its clock lags by about the time of its silence.
    ClockStood,
    /// It is back, and its clock went on.
    ClockWentOn,
    /// The agent's condition on the Node tells how the boot before ended ([`crate::contract::problem`]).
    Found {
        /// How it ended.
        end: PreviousEnd,
        /// What the record says, decoded like last words.
        findings: Findings,
        /// Time of the record.
        at: Option<Timestamp>,
        /// The condition's message.
        message: String,
    },
    /// The Node object is gone.
    NodeDeleted,
}

/// How the boot before ended, by what the node found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousEnd {
    /// A record of a panic.
    Panic,
    /// No shutdown and no record.
    Unclean,
    /// A shutdown.
    Clean,
}

/// What one replica has to say about one incident: all of it, each time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Testimony {
    /// Its entries.
    pub evidence: Vec<EvidenceEntry>,
    /// Its excerpt of the log.
    pub log: Option<LogExcerpt>,
}
