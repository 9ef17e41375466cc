//! What holds of the whole service for any order of datagrams, of what Nodes and Leases tell, of restarts and cuts: what is
//! destroyed was surely dead, and never more at once than the budget allows.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use proptest::{
    prelude::*,
    test_runner::{TestCaseResult, TestRunner},
};

use super::{
    world::{Cut, Deed, State},
    *,
};
use crate::controller::remediation::{Budget, budget::UNDER_WAY};

const NODES: [&str; 5] = ["node-a", "node-b", "node-c", "node-d", "node-e"];

const BUDGET: Budget = Budget { nodes_at_once: 2, nodes_per_zone: 2, nodes_per_hour: 3, not_ready_percent: 100 };

/// Renewals of a Lease are ten seconds apart, and a node that missed two of them has been silent for so long.
const SILENCE: i64 = 20;

const CASES: u32 = 32;

/// Something happens in the world, or to the replica. Numbers stand for nodes.
#[derive(Clone, Debug)]
enum Happening {
    /// A datagram tells of a panic: of the boot that runs or ran last.
    Told(usize, Confidence),
    /// The same of the boot before all.
    ToldOfFirstBoot(usize),
    /// It renews its Lease no more.
    Silent(usize),
    /// It dies and tells so.
    Panics(usize),
    /// The control plane says so, right or wrong.
    GivenUp(usize),
    /// It renews its Lease again, in another boot or not.
    Back(usize, bool),
    /// The API server keeps all Leases as they are.
    AllStand,
    /// The replica is killed, and another begins.
    Restarts,
    /// It is killed before or after one of its next writes.
    CutAt(usize, bool),
    Later(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let node = 0..NODES.len();
    let author = prop::sample::select(vec![Confidence::Low, Confidence::Medium]);
    prop_oneof![
        3 => (node.clone(), author).prop_map(|(node, author)| Happening::Told(node, author)),
        1 => node.clone().prop_map(Happening::ToldOfFirstBoot),
        2 => node.clone().prop_map(Happening::Silent),
        5 => node.clone().prop_map(Happening::Panics),
        4 => node.clone().prop_map(Happening::GivenUp),
        3 => (node, any::<bool>()).prop_map(|(node, another)| Happening::Back(node, another)),
        1 => Just(Happening::AllStand),
        2 => Just(Happening::Restarts),
        2 => (1_usize..12, any::<bool>()).prop_map(|(write, after)| Happening::CutAt(write, after)),
        8 => (1_u64..90).prop_map(Happening::Later),
        1 => (600_u64..1800).prop_map(Happening::Later),
    ]
}

fn policy() -> Policy {
    Policy { delete_node: true, budget: BUDGET, ..acting() }
}

/// Whoever lives through all of it.
struct Story {
    world: World,
    begun: Instant,
    replica: Option<Replica>,
    started: usize,
    boots: Vec<usize>,
    /// Boots of which a panic was told with identity.
    told: BTreeSet<(String, String)>,
}

impl Story {
    fn begin() -> Self {
        let (world, begun) = (World::new(&NODES), now());
        for node in NODES {
            world.pod(node, "shop", &format!("web-{node}"), "ReplicaSet");
            world.pod(node, "shop", &format!("db-{node}"), "StatefulSet");
            world.pod(node, "kube-system", &format!("log-{node}"), "DaemonSet");
        }
        let mut story =
            Self { world, begun, replica: None, started: 0, boots: vec![0; NODES.len()], told: BTreeSet::new() };
        story.restart();
        story
    }

    fn restart(&mut self) {
        self.replica = None;
        {
            let mut state = self.world.lock();
            (state.cut, state.was_cut) = (None, false);
        }
        self.started += 1;
        self.replica = Some(Replica::start(&self.world, &format!("replica-{}", self.started), self.begun, policy()));
    }

    fn now(&self) -> i64 {
        second(self.begun)
    }

    fn boot(&self, node: usize) -> String {
        match self.boots[node] {
            0 => format!("boot-{}", NODES[node]),
            number => format!("boot-{}-{number}", NODES[node]),
        }
    }

    fn hear(&mut self, node: usize, boot: String, author: Confidence) {
        if let Some(replica) = &self.replica {
            replica.hears_of(NODES[node], &boot, author);
        }
        if author >= Confidence::Medium {
            self.told.insert((NODES[node].to_owned(), boot));
        }
    }

    async fn happen(&mut self, happening: &Happening) {
        // A process that was cut off is one that was killed.
        if self.world.lock().was_cut {
            self.restart();
        }
        match *happening {
            Happening::Told(node, author) => self.hear(node, self.boot(node), author),
            Happening::ToldOfFirstBoot(node) => self.hear(node, format!("boot-{}", NODES[node]), Confidence::Medium),
            Happening::Silent(node) => self.silence(node),
            Happening::Panics(node) => {
                self.silence(node);
                self.hear(node, self.boot(node), Confidence::Medium);
            }
            Happening::GivenUp(node) => {
                if self.exists(node) {
                    self.world.ready_since(NODES[node], "Unknown", self.now());
                }
            }
            Happening::Back(node, another) => {
                if self.exists(node) {
                    self.boots[node] += usize::from(another);
                    self.world.revive(NODES[node], &self.boot(node));
                }
            }
            Happening::AllStand => (0..NODES.len()).for_each(|node| self.silence(node)),
            Happening::Restarts => self.restart(),
            Happening::CutAt(write, after) => {
                let mut state = self.world.lock();
                let write = state.writes + write;
                state.cut = Some(if after { Cut::After(write) } else { Cut::Before(write) });
            }
            Happening::Later(seconds) => sleep(Duration::from_secs(seconds)).await,
        }
        sleep(Duration::from_millis(700)).await;
    }

    fn exists(&self, node: usize) -> bool {
        self.world.node(NODES[node]).is_object()
    }

    /// A node dies once.
    fn silence(&self, node: usize) {
        if !self.world.is_dead(NODES[node]) {
            self.world.kill(NODES[node], self.now());
        }
    }
}

/// Whether `deed` cannot be taken back, and needs the control plane's word too.
fn weight(deed: &Deed) -> (bool, bool) {
    let (delete, end) =
        (deed.what.starts_with("delete "), ["phase ", "remove "].iter().any(|what| deed.what.starts_with(what)));
    (delete || end, end)
}

/// Nodes that are being remediated by the last of `deeds`: cordoned lately, and not uncordoned since.
fn at_once(deeds: &[Deed]) -> BTreeSet<&str> {
    let begun = deeds.last().map_or(0, |last| last.second - UNDER_WAY.as_secs().cast_signed());
    let mut nodes = BTreeSet::new();
    for deed in deeds.iter().filter(|deed| deed.second > begun && deed.what.starts_with("cordon ")) {
        if deed.what.ends_with(" true") {
            nodes.insert(deed.node.as_str());
        } else {
            nodes.remove(deed.node.as_str());
        }
    }
    nodes
}

fn check(state: &State, told: &BTreeSet<(String, String)>) -> TestCaseResult {
    let mut annotated = BTreeSet::new();
    for deed in &state.deeds {
        let (destroys, ends) = weight(deed);
        let object = deed.what.split(' ').nth(1).unwrap_or_default();
        if deed.what.starts_with("annotate ") {
            annotated.insert(object);
        }
        if !destroys {
            continue;
        }
        prop_assert!(!object.starts_with("log-"), "a pod of a DaemonSet: {deed:?}");
        prop_assert!(annotated.contains(object), "without a reason: {deed:?}");
        prop_assert!(told.contains(&(deed.node.clone(), deed.boot.clone())), "nobody told of this boot: {deed:?}");
        let silent = deed.died.is_some_and(|renewed| deed.second - renewed >= SILENCE);
        prop_assert!(silent, "it lives, or may: {deed:?}");
        prop_assert!(!ends || deed.given_up, "the control plane has not given it up: {deed:?}");
    }
    let cordoned: Vec<_> =
        state.deeds.iter().filter(|deed| deed.what.starts_with("cordon ") && deed.what.ends_with(" true")).collect();
    for last in &cordoned {
        let lately = cordoned.iter().filter(|deed| (last.second - 3599..=last.second).contains(&deed.second));
        let nodes: BTreeSet<_> = lately.map(|deed| &deed.node).collect();
        prop_assert!(nodes.len() <= BUDGET.nodes_per_hour as usize, "too many in an hour: {nodes:?}, {last:?}");
    }
    for (place, last) in state.deeds.iter().enumerate() {
        let at_once = at_once(&state.deeds[..=place]);
        prop_assert!(at_once.len() <= BUDGET.nodes_at_once as usize, "over budget: {at_once:?}, {last:?}");
    }
    let removed: Vec<_> = state.effects.iter().filter(|effect| effect.starts_with("remove ")).collect();
    prop_assert_eq!(removed.iter().collect::<BTreeSet<_>>().len(), removed.len(), "each is removed once");
    Ok(())
}

#[test]
fn in_any_order_nothing_is_destroyed_that_may_live_and_never_more_at_once_than_allowed() {
    let destroyed = AtomicUsize::new(0);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: CASES, max_shrink_iters: 200, ..ProptestConfig::default() });
    let tried = runner.run(&prop::collection::vec(happening(), 5..40), |happenings| {
        let result = RefCell::new(Ok(()));
        run(|| async {
            let mut story = Story::begin();
            sleep(Duration::from_secs(5)).await;
            for happening in &happenings {
                story.happen(happening).await;
            }
            sleep(Duration::from_secs(60)).await;
            let state = story.world.lock();
            destroyed.fetch_add(state.deeds.iter().filter(|deed| weight(deed).0).count(), Ordering::Relaxed);
            *result.borrow_mut() = check(&state, &story.told);
        });
        result.into_inner()
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
    assert!(destroyed.into_inner() > 0, "no order led to a step that destroys anything: this shows nothing");
}
