//! All incidents that stand, as far as they are needed in memory.
//!
//! Of each the excerpts of the log are dropped, and the server's notes on managers; of a closed one also its pods, and what
//! was said for people. Whoever writes to a closed one reads it first.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};

use crate::{
    cluster::watch::Update,
    contract::incident::{KernelIncident, Phase},
};

/// Incidents that are kept.
pub const MAX_INCIDENTS: usize = 5_000;

/// What the watch tells.
pub type IncidentUpdate = Update<SeenIncident>;

/// An incident as the watch sees it.
#[derive(Clone, Debug, PartialEq)]
pub enum SeenIncident {
    /// It can be read.
    Readable(Box<KernelIncident>),
    /// It has something in it that this version does not know: a later version wrote it.
    Unreadable {
        /// Its name.
        name: String,
        /// What is not known.
        reason: String,
    },
}

/// All incidents by name.
#[derive(Debug, Default)]
pub struct Incidents {
    known: BTreeMap<String, KernelIncident>,
    /// Names seen since a list began, while it has not ended.
    listed: Option<BTreeSet<String>>,
    complete: bool,
    passed_over: u64,
    unreadable: u64,
}

impl Incidents {
    /// Takes an update; names of those that are different now or gone.
    pub fn take(&mut self, update: IncidentUpdate) -> Vec<String> {
        match update {
            Update::ListBegins => self.listed = Some(BTreeSet::new()),
            Update::Seen(SeenIncident::Readable(incident)) => return self.seen(*incident).into_iter().collect(),
            Update::Seen(SeenIncident::Unreadable { name, .. }) => {
                self.unreadable += 1;
                return self.remove(name).into_iter().collect();
            }
            Update::Gone(SeenIncident::Readable(incident)) => {
                return incident.metadata.name.and_then(|name| self.remove(name)).into_iter().collect();
            }
            Update::Gone(SeenIncident::Unreadable { name, .. }) => return self.remove(name).into_iter().collect(),
            Update::ListEnds => {
                let listed = self.listed.take().unwrap_or_default();
                self.complete = true;
                let gone: Vec<String> = self.known.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                self.known.retain(|name, _| listed.contains(name));
                return gone;
            }
            Update::Refused { .. } | Update::Failed { .. } => {}
        }
        Vec::new()
    }

    /// Takes what a write was answered with, before the watch tells it.
    pub fn wrote(&mut self, incident: KernelIncident) {
        self.seen(incident);
    }

    /// What a write was answered with and what the watch tells come in any order: the older of two is passed over. Versions
    /// are numbers that grow (KEP-5504); a list is believed as it is.
    fn is_older(&self, incident: &KernelIncident) -> bool {
        let version = |incident: &KernelIncident| incident.metadata.resource_version.as_deref()?.parse::<u64>().ok();
        let known = incident.metadata.name.as_ref().and_then(|name| self.known.get(name)).and_then(version);
        self.listed.is_none() && version(incident).zip(known).is_some_and(|(new, known)| new < known)
    }

    fn seen(&mut self, incident: KernelIncident) -> Option<String> {
        let name = incident.metadata.name.clone()?;
        if self.is_older(&incident) {
            return None;
        }
        if let Some(listed) = &mut self.listed {
            listed.insert(name.clone());
        }
        if !self.known.contains_key(&name) && self.known.len() >= MAX_INCIDENTS && !self.make_room(&incident) {
            self.passed_over += 1;
            return None;
        }
        let incident = trimmed(incident);
        if self.known.get(&name) == Some(&incident) {
            return None;
        }
        self.known.insert(name.clone(), incident);
        Some(name)
    }

    /// The oldest that is closed gives way, unless the new one is closed as well.
    fn make_room(&mut self, incident: &KernelIncident) -> bool {
        let oldest = self.known.values().filter(|known| is_closed(known)).min_by_key(|known| known.spec.time.0);
        let Some(name) = oldest.and_then(|known| known.metadata.name.clone()).filter(|_| !is_closed(incident)) else {
            return false;
        };
        self.passed_over += 1;
        self.known.remove(&name).is_some()
    }

    fn remove(&mut self, name: String) -> Option<String> {
        self.known.remove(&name).map(|_| name)
    }

    /// The incident of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&KernelIncident> {
        self.known.get(name)
    }

    /// All incidents, by name.
    pub fn iter(&self) -> impl Iterator<Item = &KernelIncident> + Clone {
        self.known.values()
    }

    /// Those that are not closed.
    pub fn open(&self) -> impl Iterator<Item = &KernelIncident> + Clone {
        self.iter().filter(|incident| !is_closed(incident))
    }

    /// Whether a list has come to its end: before, an incident that is not known may stand.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Sightings that did not fit into [`MAX_INCIDENTS`].
    #[must_use]
    pub const fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// Sightings of incidents that could not be read.
    #[must_use]
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

/// Whether it is over.
#[must_use]
pub fn is_closed(incident: &KernelIncident) -> bool {
    incident.status.as_ref().is_some_and(|status| status.phase == Some(Phase::Closed))
}

fn trimmed(mut incident: KernelIncident) -> KernelIncident {
    let closed = is_closed(&incident);
    incident.metadata.managed_fields = None;
    if let Some(status) = &mut incident.status {
        status.logs = Vec::new();
        if closed {
            status.pods = Vec::new();
            for entry in &mut status.evidence {
                entry.message = String::new();
            }
            for step in &mut status.steps {
                step.message = String::new();
            }
        }
        status.pods.shrink_to_fit();
        status.evidence.shrink_to_fit();
    }
    incident
}

/// An incident of an answer. What cannot be read must not keep the others from being seen.
#[derive(Clone, Debug)]
pub(super) struct WatchedIncident {
    metadata: ObjectMeta,
    seen: SeenIncident,
}

impl<'de> Deserialize<'de> for WatchedIncident {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let object = serde_json::Value::deserialize(from)?;
        let text = |key: &str| object.get("metadata").and_then(|all| all.get(key)?.as_str()).map(str::to_owned);
        let (name, resource_version) = (text("name"), text("resourceVersion"));
        let metadata = ObjectMeta { name: name.clone(), resource_version, ..ObjectMeta::default() };
        let seen = match serde_json::from_value(object) {
            Ok(incident) => SeenIncident::Readable(Box::new(incident)),
            Err(error) => SeenIncident::Unreadable { name: name.unwrap_or_default(), reason: error.to_string() },
        };
        Ok(Self { metadata, seen })
    }
}

impl From<Update<WatchedIncident>> for IncidentUpdate {
    fn from(update: Update<WatchedIncident>) -> Self {
        match update {
            Update::ListBegins => Self::ListBegins,
            Update::Seen(object) => Self::Seen(object.seen),
            Update::Gone(object) => Self::Gone(object.seen),
            Update::ListEnds => Self::ListEnds,
            Update::Refused { reason } => Self::Refused { reason },
            Update::Failed { reason } => Self::Failed { reason },
        }
    }
}

impl WatchedIncident {
    pub(super) const fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    pub(super) const fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, MicroTime};

    use super::*;
    use crate::contract::incident::{
        AffectedPod, EvidenceEntry, KernelIncidentSpec, KernelIncidentStatus, LogExcerpt, Origin,
    };

    fn incident(name: &str, version: u64, phase: Phase, second: i64) -> KernelIncident {
        let time = MicroTime(jiff::Timestamp::from_second(second).expect("a time"));
        let spec = KernelIncidentSpec { node: "node-a".to_owned(), node_uid: None, boot_id: None, time };
        let pod = AffectedPod {
            namespace: "n".to_owned(),
            name: "p".to_owned(),
            uid: "u".to_owned(),
            controller: None,
            left: None,
        };
        let log = LogExcerpt { id: "r".to_owned(), origin: Origin::Netconsole, text: "x".to_owned(), lines_missing: 0 };
        let status = KernelIncidentStatus {
            phase: Some(phase),
            pods: vec![pod],
            logs: vec![log],
            evidence: Vec::<EvidenceEntry>::new(),
            ..KernelIncidentStatus::default()
        };
        let mut incident = KernelIncident { status: Some(status), ..KernelIncident::new(name, spec) };
        incident.metadata.resource_version = Some(version.to_string());
        incident.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
        incident
    }

    fn seen(incident: KernelIncident) -> IncidentUpdate {
        Update::Seen(SeenIncident::Readable(Box::new(incident)))
    }

    #[test]
    fn logs_are_not_kept_and_pods_only_of_what_is_open() {
        let mut incidents = Incidents::default();
        assert_eq!(incidents.take(seen(incident("open", 1, Phase::Dead, 1))), ["open"]);
        incidents.take(seen(incident("closed", 1, Phase::Closed, 1)));
        let pods = |name: &str| {
            let kept = incidents.get(name).expect("it is known");
            assert_eq!(kept.metadata.managed_fields, None);
            let status = kept.status.as_ref().expect("a status");
            assert!(status.logs.is_empty());
            status.pods.len()
        };
        assert_eq!((pods("open"), pods("closed")), (1, 0));
        assert_eq!(incidents.open().count(), 1);
    }

    #[test]
    fn what_comes_late_does_not_hide_what_is_newer_but_a_list_is_believed() {
        let mut incidents = Incidents::default();
        let phase = |incidents: &Incidents| incidents.get("a").and_then(|one| one.status.as_ref()?.phase);
        incidents.wrote(incident("a", 10, Phase::Returned, 1));
        assert_eq!(incidents.take(seen(incident("a", 9, Phase::Dead, 1))), [""; 0]);
        assert_eq!(phase(&incidents), Some(Phase::Returned));
        assert_eq!(incidents.take(seen(incident("a", 10, Phase::Returned, 1))), [""; 0], "nothing new");
        assert_eq!(incidents.take(seen(incident("a", 11, Phase::Dead, 1))), ["a"]);
        // The server was set back to a backup.
        incidents.take(Update::ListBegins);
        assert_eq!(incidents.take(seen(incident("a", 3, Phase::Suspected, 1))), ["a"]);
        assert_eq!(phase(&incidents), Some(Phase::Suspected));
    }

    #[test]
    fn who_is_missing_in_a_whole_list_is_gone() {
        let mut incidents = Incidents::default();
        for name in ["a", "b"] {
            incidents.take(seen(incident(name, 1, Phase::Dead, 1)));
        }
        incidents.take(Update::ListBegins);
        incidents.take(seen(incident("b", 1, Phase::Dead, 1)));
        assert_eq!(incidents.take(Update::ListEnds), ["a"]);
        assert_eq!(incidents.iter().count(), 1);
    }

    #[test]
    fn when_there_are_too_many_the_oldest_closed_ones_give_way() {
        let mut incidents = Incidents::default();
        for number in 0..MAX_INCIDENTS {
            let (phase, second) = if number < 2 { (Phase::Closed, 100 - number as i64) } else { (Phase::Dead, 1) };
            incidents.take(seen(incident(&format!("n-{number}"), 1, phase, second)));
        }
        assert_eq!(incidents.take(seen(incident("closed", 1, Phase::Closed, 500))), [""; 0]);
        assert_eq!(incidents.take(seen(incident("open", 1, Phase::Dead, 500))), ["open"]);
        assert!(incidents.get("n-1").is_none() && incidents.get("n-0").is_some());
        assert_eq!((incidents.iter().count(), incidents.passed_over()), (MAX_INCIDENTS, 2));
    }
}
