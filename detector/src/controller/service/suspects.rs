//! Nodes whose Lease is looked at, because they are suspected to be dead; and a few others, to know whether it is us who see
//! nothing. Pure.
//!
//! | what is seen | then a Lease that stands still is |
//! |---|---|
//! | another node's Lease was renewed after this one should have been | the silence of that node |
//! | no Lease of any other node was | no evidence: we may be blind, or the API server's storage stands |
//! | there is no other node | the silence of that node: nobody can tell it from our blindness |
//!
//! No more are looked at than Leases can be read: nodes with an open incident first, of these those that seem to be back, so
//! that theirs are closed and give room.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    contract::incident::KernelIncident,
    controller::{
        incident::{Evidence, Fact, Ready, lease_history::LeaseHistory, weigh::Weight},
        source::{
            lease::{Ask, LeaseView, MAX_SUSPECTS, Reading},
            nodes::Nodes,
        },
    },
};

/// Other nodes that are looked at.
const SAMPLES: usize = 3;

/// All who are looked at.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    suspects: BTreeMap<String, Suspect>,
    samples: BTreeMap<String, LeaseHistory>,
    /// Nodes of the cluster.
    cluster: usize,
    /// Whose Lease is being read.
    followed: BTreeSet<String>,
}

#[derive(Debug)]
struct Suspect {
    history: LeaseHistory,
    /// When it was told to be stale while we could see.
    confirmed: Option<Timestamp>,
    /// What is held against it, the latest last.
    charges: Vec<Charge>,
    /// What its Node said when it was chosen last.
    ready: Option<Ready>,
}

/// Charges that are remembered of one node; one that is forgotten and made again only delays a sign of life.
const MAX_CHARGES: usize = 16;

/// An incident of a node: signs of life from before it was opened, or before a panic was told, tell nothing about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) incident: String,
    /// A panic was told.
    pub(super) told: bool,
}

impl Charge {
    pub(super) fn of(incident: &KernelIncident) -> Self {
        let told = incident.status.as_ref().is_some_and(|status| Weight::of(&status.evidence).told.is_some());
        Self { incident: incident.metadata.name.clone().unwrap_or_default(), told }
    }
}

impl Suspect {
    fn accuse(&mut self, charge: Charge, now: Duration) {
        if self.charges.contains(&charge) {
            return;
        }
        if self.charges.len() >= MAX_CHARGES {
            self.charges.remove(0);
        }
        self.charges.push(charge);
        self.history.accuse(now);
    }

    /// What it tells, without a silence that may be ours.
    fn evidence(&self, boot_id: Option<&str>, same_boot: bool) -> Vec<Evidence> {
        let mut all = self.history.evidence(boot_id, same_boot);
        let confirmed = self.confirmed;
        all.retain(|one| !matches!(one.fact, Fact::LeaseStale { .. }) || Some(one.at) == confirmed);
        all
    }

    fn stale_since(&self) -> Option<Timestamp> {
        let is_stale = |one: &Evidence| matches!(one.fact, Fact::LeaseStale { .. });
        let told = self.history.evidence(None, false).into_iter().find(is_stale);
        told.filter(|_| self.history.is_stale()).map(|one| one.at)
    }

    /// Its silence is its own.
    fn is_decided(&self) -> bool {
        self.stale_since().is_some_and(|since| self.confirmed == Some(since))
    }
}

impl Suspects {
    /// From now on those are suspected that the control plane gave up, and `open`, who have an open incident; as many as fit.
    /// Tells whose Lease has to be read therefore, and whose no more; each has to be [`Self::asked`] then, or comes again. One
    /// whose Node says something else than before is read at once.
    pub(super) fn choose(&mut self, open: &BTreeSet<String>, nodes: &Nodes, now: Duration) -> Vec<Ask> {
        self.cluster = nodes.iter().count();
        let wanted = self.wanted(open, nodes);
        self.suspects.retain(|node, _| wanted.contains(node));
        let mut changed = Vec::new();
        for node in wanted {
            let ready = nodes.get(&node).map(|node| node.ready);
            let history = LeaseHistory::new(&node, now);
            let suspect = self.suspects.entry(node.clone()).or_insert_with(|| Suspect {
                history,
                confirmed: None,
                charges: Vec::new(),
                ready,
            });
            if std::mem::replace(&mut suspect.ready, ready) != ready && self.followed.contains(&node) {
                changed.push(node);
            }
        }
        self.choose_samples(nodes, now);
        let after: BTreeSet<String> = self.suspects.keys().chain(self.samples.keys()).cloned().collect();
        let leave = self.followed.difference(&after).cloned().map(Ask::Leave);
        let follow = after.difference(&self.followed).cloned().chain(changed).map(Ask::Follow);
        leave.chain(follow).collect()
    }

    /// `charge` is held against `node`.
    pub(super) fn accuse(&mut self, node: &str, charge: Charge, now: Duration) {
        if let Some(suspect) = self.suspects.get_mut(node) {
            suspect.accuse(charge, now);
        }
    }

    /// The reader was told.
    pub(super) fn asked(&mut self, ask: &Ask) {
        match ask {
            Ask::Follow(node) => drop(self.followed.insert(node.clone())),
            Ask::Leave(node) => drop(self.followed.remove(node)),
        }
    }

    fn wanted(&self, open: &BTreeSet<String>, nodes: &Nodes) -> BTreeSet<String> {
        let wanted = nodes.iter().filter(|node| node.ready == Ready::Unknown || open.contains(&node.name));
        let mut wanted: Vec<_> = wanted
            .map(|node| {
                let opened = open.contains(&node.name);
                let back = opened && node.ready == Ready::True;
                // Of equal ones those stay that are looked at already: what is known of them would be lost.
                ((!opened, !back, !self.suspects.contains_key(&node.name)), &node.name)
            })
            .collect();
        wanted.sort_unstable();
        wanted.into_iter().take(MAX_SUSPECTS - SAMPLES).map(|(_, name)| name.clone()).collect()
    }

    fn choose_samples(&mut self, nodes: &Nodes, now: Duration) {
        if self.suspects.values().all(|suspect| suspect.is_decided() || suspect.history.is_fresh()) {
            self.samples.clear();
            return;
        }
        self.samples.retain(|node, _| !self.suspects.contains_key(node) && nodes.get(node).is_some());
        // Those that live first; if none seems to, any.
        for lives in [true, false] {
            for node in nodes.iter().filter(|node| (node.ready == Ready::True) == lives) {
                let enough = self.samples.len() >= SAMPLES || (!lives && !self.samples.is_empty());
                if enough {
                    return;
                }
                if !self.suspects.contains_key(&node.name) && !self.samples.contains_key(&node.name) {
                    self.samples.insert(node.name.clone(), LeaseHistory::new(&node.name, now));
                }
            }
        }
    }

    /// Takes a reading; nodes of which there is more to say now.
    pub(super) fn take(&mut self, reading: &Reading) -> Vec<String> {
        let mut news = Vec::new();
        if let Some(sample) = self.samples.get_mut(&reading.node) {
            sample.take(reading);
        }
        if let Some(suspect) = self.suspects.get_mut(&reading.node) {
            let before = suspect.told();
            suspect.history.take(reading);
            if suspect.told() != before {
                news.push(reading.node.clone());
            }
        }
        news.extend(self.confirm());
        news
    }

    /// Believes what stands still, if we see.
    fn confirm(&mut self) -> Vec<String> {
        let one_node = self.cluster <= 1;
        let all: Vec<&LeaseHistory> =
            self.samples.values().chain(self.suspects.values().map(|suspect| &suspect.history)).collect();
        let of_its_own = |suspect: &Suspect| one_node || suspect.history.is_alone(all.iter().copied());
        let news = self.suspects.iter().filter_map(|(node, suspect)| {
            let since = suspect.stale_since().filter(|_| !suspect.is_decided() && of_its_own(suspect))?;
            Some((node.clone(), since))
        });
        let news: Vec<_> = news.collect();
        let mut confirmed = Vec::new();
        for (node, since) in news {
            if let Some(suspect) = self.suspects.get_mut(&node) {
                suspect.confirmed = Some(since);
                confirmed.push(node);
            }
        }
        confirmed
    }

    /// What the Lease of `node` tells by now.
    pub(super) fn evidence(&self, node: &str, boot_id: Option<&str>, same_boot: bool) -> Vec<Evidence> {
        self.suspects.get(node).map(|suspect| suspect.evidence(boot_id, same_boot)).unwrap_or_default()
    }

    /// The Lease of `node` for plans. One whose silence may be our blindness is as good as unread.
    pub(super) fn view(&self, node: &str) -> LeaseView {
        match self.suspects.get(node) {
            Some(suspect) if suspect.history.is_stale() && !suspect.is_decided() => LeaseView::Unread,
            Some(suspect) => suspect.history.view(),
            None => LeaseView::Unread,
        }
    }

    /// The Lease of `node` is stale, and we see.
    pub(super) fn is_silent(&self, node: &str) -> bool {
        self.suspects.get(node).is_some_and(Suspect::is_decided)
    }

    /// How many are suspected.
    pub(super) fn len(&self) -> usize {
        self.suspects.len()
    }

    /// Nobody is looked at any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Suspect {
    /// What tells one state from another.
    fn told(&self) -> (bool, usize, Option<Timestamp>) {
        let all = self.history.evidence(None, true);
        let last = all.iter().map(|one| one.at).max();
        (self.history.is_stale(), all.len(), last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Moment,
        cluster::watch::Update,
        controller::{incident::NodeFacts, source::lease::Lease},
    };

    const NOW: Duration = Duration::from_secs(100);

    fn nodes(number: usize, ready: impl Fn(usize) -> Ready) -> Nodes {
        let mut nodes = Nodes::default();
        for place in 0..number {
            let name = format!("node-{place:04}");
            nodes.take(Update::Seen(NodeFacts { name, ready: ready(place), ..NodeFacts::default() }));
        }
        nodes
    }

    fn choose(suspects: &mut Suspects, open: &BTreeSet<String>, nodes: &Nodes) -> usize {
        chosen(suspects, open, nodes, NOW).len()
    }

    /// The reader is told each of them.
    fn chosen(suspects: &mut Suspects, open: &BTreeSet<String>, nodes: &Nodes, now: Duration) -> Vec<Ask> {
        let asks = suspects.choose(open, nodes, now);
        asks.iter().for_each(|ask| suspects.asked(ask));
        asks
    }

    #[test]
    fn of_too_many_those_with_an_open_incident_are_looked_at_and_those_that_are_back_first() {
        let nodes = nodes(3000, |place| if place == 2999 { Ready::True } else { Ready::Unknown });
        let open = ["node-2000", "node-2999"].map(str::to_owned).into();
        let mut suspects = Suspects::default();
        assert!(choose(&mut suspects, &open, &nodes) <= MAX_SUSPECTS, "the reader refuses nobody");
        assert!(open.iter().all(|node| suspects.suspects.contains_key(node)));
        let all: BTreeSet<_> = nodes.iter().map(|node| node.name.clone()).collect();
        choose(&mut suspects, &all, &nodes);
        assert!(suspects.suspects.contains_key("node-2999"), "it is back, and gives room once it is closed");
    }

    #[test]
    fn whoever_found_no_room_is_looked_at_once_there_is_some() {
        let mut suspects = Suspects::default();
        let nodes = nodes(1500, |_| Ready::Unknown);
        choose(&mut suspects, &BTreeSet::new(), &nodes);
        assert!(!suspects.suspects.contains_key("node-1400"));
        let mut fewer = Nodes::default();
        for node in nodes.iter().skip(1000) {
            fewer.take(Update::Seen(node.clone()));
        }
        let asks = suspects.choose(&BTreeSet::new(), &fewer, NOW);
        assert!(asks.contains(&Ask::Follow("node-1400".to_owned())));
    }

    #[test]
    fn what_the_reader_was_not_told_is_told_again() {
        let nodes = nodes(2, |place| if place == 0 { Ready::Unknown } else { Ready::True });
        let mut suspects = Suspects::default();
        let first = suspects.choose(&BTreeSet::new(), &nodes, NOW);
        assert_eq!((first.len(), suspects.choose(&BTreeSet::new(), &nodes, NOW)), (2, first), "a suspect and a sample");
        assert_eq!(
            (choose(&mut suspects, &BTreeSet::new(), &nodes), choose(&mut suspects, &BTreeSet::new(), &nodes)),
            (2, 0)
        );
    }

    const INTERVAL: Duration = Duration::from_secs(10);

    fn moment(second: u64) -> Moment {
        let since = Duration::from_secs(second);
        Moment { monotonic: since, boot: since, wall: Timestamp::from_second(second.cast_signed()).expect("a time") }
    }

    /// Five nodes; those of these names are suspected from second 0.
    fn five(suspected: &[&str]) -> (Suspects, Nodes, BTreeSet<String>) {
        let node = |name: &str| NodeFacts { name: name.to_owned(), ready: Ready::True, ..NodeFacts::default() };
        let mut nodes = Nodes::default();
        for name in ["a", "b", "c", "d", "e"] {
            nodes.take(Update::Seen(node(name)));
        }
        (Suspects::default(), nodes, suspected.iter().map(|name| (*name).to_owned()).collect())
    }

    /// All Leases that are followed are read at `second`; those of `silent` were renewed last at 0, the others every 10 s.
    fn read_all(suspects: &mut Suspects, silent: &[&str], second: u64) -> Vec<String> {
        let mut news = Vec::new();
        for node in suspects.followed.clone() {
            let renewed = if silent.contains(&node.as_str()) { 0 } else { second / 10 * 10 };
            let lease = Lease::There { renewed: moment(renewed).wall, interval: INTERVAL };
            news.extend(suspects.take(&Reading { node, asked: moment(second), answered: moment(second), lease }));
        }
        news
    }

    #[test]
    fn a_few_others_are_read_only_until_it_is_known_who_is_silent() {
        let (mut suspects, nodes, wanted) = five(&["a"]);
        assert_eq!(chosen(&mut suspects, &wanted, &nodes, Duration::ZERO).len(), 1 + SAMPLES);
        for second in [0, 5, 10, 15, 20] {
            read_all(&mut suspects, &["a"], second);
        }
        assert!(!suspects.is_silent("a"));
        let news = read_all(&mut suspects, &["a"], 22);
        assert!(!news.is_empty() && news.iter().all(|node| node == "a"), "{news:?}");
        assert!(suspects.is_silent("a"));
        let asks = chosen(&mut suspects, &wanted, &nodes, Duration::from_secs(22));
        assert_eq!(asks, ["b", "c", "d"].map(|node| Ask::Leave(node.to_owned())));
    }

    #[test]
    fn nobody_else_is_read_for_one_that_is_seen_to_live() {
        let (mut suspects, nodes, wanted) = five(&["a"]);
        chosen(&mut suspects, &wanted, &nodes, Duration::ZERO);
        for second in [0, 5, 10, 15, 20] {
            read_all(&mut suspects, &[], second);
        }
        assert_eq!(chosen(&mut suspects, &wanted, &nodes, Duration::from_secs(20)).len(), SAMPLES);
        assert_eq!(suspects.followed.len(), 1);
    }

    #[test]
    fn if_all_are_silent_nobody_is() {
        let (mut suspects, nodes, wanted) = five(&["a", "b"]);
        chosen(&mut suspects, &wanted, &nodes, Duration::ZERO);
        for second in (0..120).step_by(5) {
            read_all(&mut suspects, &["a", "b", "c", "d", "e"], second);
        }
        assert!(!suspects.is_silent("a") && !suspects.is_silent("b"));
        assert_eq!(suspects.view("a"), LeaseView::Unread);
    }

    #[test]
    fn one_whose_node_says_something_else_is_read_at_once() {
        let (mut suspects, mut nodes, wanted) = five(&["a"]);
        chosen(&mut suspects, &wanted, &nodes, Duration::ZERO);
        assert_eq!(chosen(&mut suspects, &wanted, &nodes, Duration::ZERO), []);
        let lost = NodeFacts { name: "a".to_owned(), ready: Ready::Unknown, ..NodeFacts::default() };
        nodes.take(Update::Seen(lost));
        assert_eq!(chosen(&mut suspects, &wanted, &nodes, Duration::ZERO), [Ask::Follow("a".to_owned())]);
    }
}
