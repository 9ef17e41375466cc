//! What Node and Lease tell about one incident: the evidence that the leader adds. Pure.
//!
//! What was told stays as it is; only a fact that changes what all of it means is told anew: a Lease that is renewed after it
//! was stale, or is stale after it was renewed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    contract::{
        incident::{EvidenceEntry, EvidenceKind, KernelIncident},
        problem::previous_boot::{End, PreviousBoot},
    },
    controller::{
        decode::signature,
        incident::{
            Evidence, Fact, NodeFacts, PreviousEnd, Ready,
            merge::{self, Place},
            testimony::{self, LEADER},
            weigh::Weight,
        },
    },
};

/// A Node that says after this time of renewals that it has the same boot as before has it: a kubelet that starts tells its
/// boot with its first status, within seconds of its first renewal (`pkg/kubelet/kubelet.go`, `fastStatusUpdateOnce`).
pub(super) const SETTLED: Duration = Duration::from_secs(15);
/// A record that was found longer ago opens no incident: it was there before the controller, or was dealt with.
pub(super) const FOUND_FRESH: Duration = Duration::from_secs(24 * 3600);

/// What can be told about one incident now.
pub(super) struct Look<'a> {
    pub(super) incident: &'a KernelIncident,
    /// Its Node; `None`: there is none any more.
    pub(super) node: Option<&'a NodeFacts>,
    /// What its Lease tells, in the order in which it was seen
    /// ([`crate::controller::incident::lease_history::LeaseHistory::evidence`]).
    pub(super) lease: Vec<Evidence>,
    pub(super) now: Timestamp,
}

/// All evidence of the incident by now: what stands in it, and what the leader adds. Also when to look again by time alone.
pub(super) fn evidence(look: &Look<'_>) -> (Vec<EvidenceEntry>, Option<Timestamp>) {
    let standing = look.incident.status.as_ref().map(|status| status.evidence.clone()).unwrap_or_default();
    let mut all = All { entries: standing };
    // The boot that died cannot fall silent again: what is silent after another one was seen is that one.
    let buried = all.time(EvidenceKind::OtherBoot);
    let of_another = |at: Timestamp| buried.is_some_and(|buried| at > buried);
    let lease = |fact: &&Evidence| match fact.fact {
        Fact::LeaseStale { .. } => !of_another(fact.at),
        Fact::LeaseFresh { .. } => true,
        _ => false,
    };
    let mut changes = look.lease.iter().filter(lease).peekable();
    while let Some(fact) = changes.next() {
        all.lease(fact, changes.peek().is_none());
    }
    let Some(node) = look.node else {
        all.once(&look.fact(look.now, Fact::NodeDeleted));
        return (all.entries, None);
    };
    if node.ready == Ready::Unknown {
        let since = node.ready_since.unwrap_or(look.now);
        if !of_another(since) {
            all.once(&look.fact(since, Fact::ReadyUnknown { since }));
        }
    }
    if let Some(found) = found(node).filter(|found| belongs(found, node, look.incident)) {
        all.found(&found);
    }
    let again = all.boots(look, node);
    if all.has(EvidenceKind::SameBoot) {
        for fact in look.lease.iter().filter(|fact| matches!(fact.fact, Fact::ClockStood | Fact::ClockWentOn)) {
            all.once(fact);
        }
    }
    (all.entries, again)
}

/// The evidence of an incident that is closed, with what the node found since; `None`: nothing new.
pub(super) fn late(incident: &KernelIncident, node: &NodeFacts) -> Option<Vec<EvidenceEntry>> {
    let before = incident.status.as_ref().map(|status| status.evidence.clone()).unwrap_or_default();
    let found = found(node).filter(|found| belongs(found, node, incident))?;
    let mut all = All { entries: before.clone() };
    all.found(&found);
    (all.entries != before).then_some(all.entries)
}

/// What the agent of `node` found after the last reboot.
pub(in crate::controller::service) fn found(node: &NodeFacts) -> Option<Evidence> {
    let told = node.found.as_ref()?;
    let read = PreviousBoot::read(&told.message)?;
    let end = match read.end {
        End::Panic => PreviousEnd::Panic,
        End::Unclean => PreviousEnd::Unclean,
        End::Clean => PreviousEnd::Clean,
    };
    let findings = signature::of_texts(read.lines.iter().map(String::as_str));
    let fact = Fact::Found { end, findings, at: read.at, message: told.message.clone() };
    let at = read.at.or(told.since)?;
    Some(Evidence { node: node.name.clone(), at, boot_id: read.boot_id, fact })
}

/// Whether a finding is young enough to open an incident.
pub(in crate::controller::service) fn is_young(node: &NodeFacts, now: Timestamp) -> bool {
    let since = node.found.as_ref().and_then(|found| found.since);
    let limit = SignedDuration::try_from(FOUND_FRESH).unwrap_or(SignedDuration::MAX);
    since.is_some_and(|since| now.duration_since(since) < limit)
}

fn belongs(found: &Evidence, node: &NodeFacts, incident: &KernelIncident) -> bool {
    match merge::place(found, Some(node), [incident]) {
        Place::Existing(name) => Some(&name) == incident.metadata.name.as_ref(),
        Place::New { .. } | Place::Nowhere => false,
    }
}

impl Look<'_> {
    fn fact(&self, at: Timestamp, fact: Fact) -> Evidence {
        let boot_id = self.incident.spec.boot_id.clone();
        Evidence { node: self.incident.spec.node.clone(), at, boot_id, fact }
    }
}

/// Evidence that grows.
struct All {
    entries: Vec<EvidenceEntry>,
}

impl All {
    fn has(&self, kind: EvidenceKind) -> bool {
        self.entries.iter().any(|entry| entry.kind == kind)
    }

    fn time(&self, kind: EvidenceKind) -> Option<Timestamp> {
        self.entries.iter().filter(|entry| entry.kind == kind).map(|entry| entry.time.0).max()
    }

    fn put(&mut self, entry: EvidenceEntry) {
        match self.entries.iter_mut().find(|known| known.id == entry.id) {
            Some(known) => *known = entry,
            None => self.entries.push(entry),
        }
    }

    fn tell(&mut self, fact: &Evidence) {
        for entry in testimony::of(fact, LEADER).evidence {
            self.put(entry);
        }
    }

    /// A fact that stays as it was told first.
    fn once(&mut self, fact: &Evidence) {
        for entry in testimony::of(fact, LEADER).evidence {
            if !self.entries.iter().any(|known| known.id == entry.id) {
                self.entries.push(entry);
            }
        }
    }

    /// A change of the Lease that was not told; the last one also if what stands says the opposite. What was seen later gets
    /// the later time, whatever the clocks say of those who told the one and the other.
    fn lease(&mut self, fact: &Evidence, last: bool) {
        let is_stale = matches!(fact.fact, Fact::LeaseStale { .. });
        let fresh = self.time(EvidenceKind::LeaseFresh);
        let lost = Weight::of(&self.entries).lost();
        let back = fresh.is_some() && fresh > lost;
        let kind = if is_stale { EvidenceKind::LeaseStale } else { EvidenceKind::LeaseFresh };
        if self.has(kind) && !(last && is_stale == back) {
            return;
        }
        let before = if is_stale { fresh } else { lost };
        let after = before.filter(|_| last).and_then(|at| at.checked_add(Duration::from_micros(1)).ok());
        self.tell(&Evidence { at: after.map_or(fact.at, |after| fact.at.max(after)), ..fact.clone() });
    }

    /// A finding says more than one before it, or the same.
    fn found(&mut self, fact: &Evidence) {
        let told = testimony::of(fact, LEADER).evidence;
        let same = |one: &EvidenceEntry| {
            self.entries
                .iter()
                .any(|known| known.id == one.id && known.message == one.message && known.cause == one.cause)
        };
        // Of an incident that is closed only the outline is kept in memory.
        if !told.iter().all(same) {
            told.into_iter().for_each(|entry| self.put(entry));
        }
    }

    fn boots(&mut self, look: &Look<'_>, node: &NodeFacts) -> Option<Timestamp> {
        let (died, now) = (look.incident.spec.boot_id.as_deref()?, node.boot_id.as_deref()?);
        if died != now {
            self.once(&look.fact(look.now, Fact::OtherBoot { boot_id: now.to_owned() }));
            // It was believed too early.
            self.entries.retain(|entry| entry.kind != EvidenceKind::SameBoot);
            return None;
        }
        // A kubelet that has not spoken since the node was given up has not told its boot either.
        let weight = Weight::of(&self.entries);
        let fresh = weight.fresh?;
        let known = weight.same_boot && (weight.told.is_none() || weight.outlived);
        if node.ready == Ready::Unknown || known {
            return None;
        }
        let settled = fresh.checked_add(SETTLED).unwrap_or(Timestamp::MAX);
        if look.now < settled {
            return Some(settled);
        }
        // Later than what was lost, whatever the clocks say of those who told it.
        let after = weight.lost().and_then(|at| at.checked_add(Duration::from_micros(1)).ok());
        self.tell(&look.fact(after.map_or(look.now, |after| look.now.max(after)), Fact::SameBoot));
        None
    }
}
