//! Evidence for tests.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::contract::incident::{Confidence, EvidenceEntry, EvidenceKind, Origin};

/// One entry of the leader's, of medium confidence.
pub(in crate::controller) fn entry(kind: EvidenceKind, second: i64) -> EvidenceEntry {
    EvidenceEntry {
        id: format!("leader/{kind:?}"),
        kind,
        origin: Origin::Netconsole,
        confidence: Confidence::Medium,
        time: MicroTime(Timestamp::from_second(second).expect("a time")),
        message: String::new(),
        cause: None,
        boot_id: None,
        suspect: None,
    }
}
