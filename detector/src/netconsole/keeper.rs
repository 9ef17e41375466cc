//! Keeps the targets as they should be: looks at receivers, ways and configfs, and carries out what the plan says.
//!
//! Does nothing by itself: it is told what changed, and asked to look.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use super::{
    chain,
    configfs::{Configfs, ConfigfsError, Deed, Directory, module},
    metric::Metrics,
    path::{self, Network as _, NoPath, RouteKind, Tables, socket::provoke},
    plan::{self, Endpoint, Identity, Receiver, Standing, Target, Wanted, receiver},
    root,
};
use crate::{
    config::netconsole::NetconsoleConfig,
    contract::metric::{NetconsoleChange, NetconsoleTargets},
    ops::http::Readiness,
};

/// What readiness waits for.
pub(super) const TARGETS: &str = "targets";

/// How long after a refusal of the kernel the same target is tried again.
const REFUSED: Duration = Duration::from_secs(300);

/// How long at the least, when devices or their addresses changed.
const REFUSED_AT_LEAST: Duration = Duration::from_secs(10);

/// How long a pod is not ready for want of a target. Some nodes can never have one, and must not hold up an update.
const PATIENCE: Duration = Duration::from_secs(60);

/// Refusals that are remembered: one for each receiver, before and after a change.
const MAX_REFUSALS: usize = 2 * plan::RECEIVERS;

/// What came of a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// A target was made or told who we are.
    pub(super) changed: bool,
    /// Some way is not known yet, and was asked for.
    pub(super) asked: bool,
}

/// The targets and what they depend on.
pub(super) struct Keeper {
    config: NetconsoleConfig,
    identity: Identity,
    tables: Tables,
    metrics: Metrics,
    readiness: Readiness,
    /// Who should have a target.
    receivers: Vec<Receiver>,
    /// Who will, and when.
    pending: Option<(Vec<Receiver>, Instant)>,
    /// Index of each device that a way leads by.
    devices: BTreeSet<u32>,
    /// What the kernel refused.
    refused: Vec<Refusal>,
    /// What was told last of each receiver without a way, so that it is told once.
    told: BTreeMap<SocketAddr, String>,
    told_missing: Option<String>,
    /// Receivers whose target is enabled.
    served: Vec<SocketAddr>,
    wait: Wait,
}

/// A target that the kernel refused.
struct Refusal {
    target: Target,
    why: String,
    at: Instant,
    /// It is not tried again before.
    until: Instant,
}

/// Whether a target is still waited for.
#[derive(Default)]
struct Wait {
    since: Option<Instant>,
    over: bool,
}

impl Wait {
    fn goes_on(&mut self, now: Instant, there: bool) -> bool {
        let since = *self.since.get_or_insert(now);
        self.over |= there || now.duration_since(since) >= PATIENCE;
        !self.over
    }
}

impl Keeper {
    pub(super) fn new(
        config: NetconsoleConfig,
        identity: Identity,
        tables: Tables,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Self {
        Self {
            config,
            identity,
            tables,
            metrics,
            readiness,
            receivers: Vec::new(),
            pending: None,
            devices: BTreeSet::new(),
            refused: Vec::new(),
            told: BTreeMap::new(),
            told_missing: None,
            served: Vec::new(),
            wait: Wait::default(),
        }
    }

    /// Whether a change of a neighbour behind the device with this index matters.
    pub(super) fn knows_device(&self, index: u32) -> bool {
        self.devices.contains(&index)
    }

    /// Receivers that have a target as it should be.
    pub(super) fn served(&self) -> &[SocketAddr] {
        &self.served
    }

    /// When the receivers change, if they are to.
    pub(super) fn turns_at(&self) -> Option<Instant> {
        self.pending.as_ref().map(|(_, at)| *at)
    }

    /// Devices or their addresses changed: the kernel may take now what it refused before.
    pub(super) fn hear_of_devices(&mut self, now: Instant) {
        for refusal in &mut self.refused {
            refusal.until = refusal.until.min(now.max(refusal.at + REFUSED_AT_LEAST));
        }
    }

    /// Takes in where receivers may be. Who has a target waits for its turn.
    pub(super) fn hear_of(&mut self, endpoints: &[Endpoint], now: Instant) {
        let chosen = choose(&self.identity.node, endpoints, &self.tables);
        if chosen.is_empty() {
            // Those that were known may come back at the same place; none would be no better.
            warn!(known = endpoints.len(), "there is no receiver but this node: targets stay as they are");
            return;
        }
        if are_same(&chosen, &self.receivers) {
            self.pending = None;
            return;
        }
        if self.pending.as_ref().is_some_and(|(pending, _)| are_same(pending, &chosen)) {
            return;
        }
        let turn = receiver::turn(&self.identity.node, &chosen);
        let wait = if self.served.is_empty() { Duration::ZERO } else { self.config.receivers.spread * turn / 1000 };
        info!(
            receivers = shown(&chosen),
            after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "receivers change"
        );
        self.pending = Some((chosen, now + wait));
    }

    /// Looks at everything and does what is to be done. `ask` also where an answer of the next hop is old.
    pub(super) fn look(&mut self, now: Instant, ask: bool) -> Looked {
        if let Some((chosen, _)) = self.pending.take_if(|(_, at)| *at <= now) {
            self.receivers = chosen;
        }
        let directory = match module::provide(root(), self.config.modules.load) {
            Ok(directory) => directory,
            Err(error) => {
                self.missing(chain(&error), now);
                return Looked::default();
            }
        };
        let configfs = Configfs::new(directory);
        let (wanted, asked) = self.wanted(now, ask);
        match self.settle(&configfs, &wanted, now) {
            Ok((changed, standing)) => {
                self.count(&wanted, &standing, now);
                Looked { changed, asked }
            }
            Err(error) => {
                self.missing(chain(&error), now);
                Looked { changed: false, asked }
            }
        }
    }

    /// The targets that should be, as far as the ways are known; whether one had to be asked for.
    fn wanted(&mut self, now: Instant, ask: bool) -> (Vec<Wanted>, bool) {
        self.refused.retain(|refusal| refusal.until > now);
        let local_port = u16::try_from(self.config.targets.local_port).unwrap_or_default();
        let (mut wanted, mut asked) = (Vec::new(), false);
        let (mut devices, mut told) = (BTreeSet::new(), BTreeMap::new());
        for Receiver { addresses, .. } in &self.receivers {
            let target = match path::find(&self.tables, addresses, local_port, &mut devices) {
                Ok(way) => {
                    if ask && !way.confirmed {
                        provoke(way.target.local, way.target.remote.ip()).ok();
                    }
                    Some(way.target)
                }
                Err(error) => {
                    if let NoPath::Unresolved { local, .. } = &error {
                        let same_family = addresses.iter().find(|one| one.is_ipv4() == local.is_ipv4());
                        asked |= same_family.is_some_and(|to| provoke(*local, to.ip()).is_ok());
                    }
                    told.extend(addresses.first().map(|first| (*first, chain(&error))));
                    None
                }
            };
            let is_refused = |target: &Target| self.refused.iter().any(|refusal| refusal.target == *target);
            wanted.push(Wanted { addresses: addresses.clone(), target: target.filter(|target| !is_refused(target)) });
        }
        for (receiver, reason) in told.iter().filter(|(receiver, reason)| self.told.get(receiver) != Some(reason)) {
            warn!(receiver = receiver.to_string(), reason, "there is no way to a receiver now");
        }
        (self.devices, self.told) = (devices, told);
        (wanted, asked)
    }

    /// Carries out the plan; whether something new speaks, and what stands then.
    fn settle(
        &mut self,
        configfs: &Configfs<Directory>,
        wanted: &[Wanted],
        now: Instant,
    ) -> Result<(bool, Vec<Standing>), ConfigfsError> {
        let standing = configfs.standing()?;
        let plan = plan::plan(wanted, &standing, &self.identity);
        debug!(receivers = wanted.len(), standing = standing.len(), nothing_to_do = plan.is_empty(), "looked");
        if plan.is_empty() {
            return Ok((false, standing));
        }
        let (mut changed, metrics, refused) = (false, &self.metrics, &mut self.refused);
        configfs.carry_out(&plan, &self.identity, |deed, done| {
            tell(metrics, deed, &done);
            match (deed, done) {
                (Deed::Made(_, target), Err(error)) if refused.len() < MAX_REFUSALS => {
                    let why = format!("{}: {}", target.remote, chain(&error));
                    refused.push(Refusal { target: target.clone(), why, at: now, until: now + REFUSED });
                }
                (Deed::Made(..) | Deed::Labelled(_), Ok(())) => changed = true,
                _ => {}
            }
        });
        Ok((changed, configfs.standing()?))
    }

    fn count(&mut self, wanted: &[Wanted], standing: &[Standing], now: Instant) {
        let enabled: Vec<_> = standing.iter().filter(|one| one.enabled).collect();
        let targets: BTreeSet<_> = wanted.iter().filter_map(|one| one.target.as_ref()).collect();
        let right = |one: &&&Standing| one.target.as_ref().is_some_and(|target| targets.contains(target));
        self.served = enabled.iter().filter(right).filter_map(|one| Some(one.target.as_ref()?.remote)).collect();
        self.metrics.targets(NetconsoleTargets::Wanted, wanted.len());
        self.metrics.targets(NetconsoleTargets::Enabled, self.served.len());
        self.metrics.targets(NetconsoleTargets::Other, enabled.len() - self.served.len());
        self.told_missing = None;
        if wanted.is_empty() {
            self.tell_readiness("no receiver is known yet".to_owned(), now);
        } else {
            let why = self.told.values().chain(self.refused.iter().map(|refusal| &refusal.why));
            let why: Vec<_> = why.map(String::as_str).collect();
            self.tell_readiness(format!("no target is enabled: {}", why.join("; ")), now);
        }
    }

    /// `why`: why no receiver has a target, if none has.
    fn tell_readiness(&mut self, why: String, now: Instant) {
        if self.wait.goes_on(now, !self.served.is_empty()) {
            self.readiness.gone(TARGETS, why);
        } else {
            self.readiness.there(TARGETS);
        }
    }

    /// netconsole cannot be configured at all.
    fn missing(&mut self, why: String, now: Instant) {
        if self.told_missing.as_deref() != Some(&why) {
            warn!(reason = why, "the kernel cannot be told to speak");
        }
        self.served.clear();
        self.metrics.targets(NetconsoleTargets::Wanted, self.receivers.len());
        self.metrics.targets(NetconsoleTargets::Enabled, 0);
        self.tell_readiness(why.clone(), now);
        self.told_missing = Some(why);
    }
}

/// Whether two lists name the same receivers: their order changes with what is ready, and no target depends on it.
fn are_same(one: &[Receiver], other: &[Receiver]) -> bool {
    one.len() == other.len() && one.iter().all(|receiver| other.contains(receiver))
}

/// The receivers of the node named `own`. An endpoint of which no node is known may still be this machine.
pub(super) fn choose(own: &str, endpoints: &[Endpoint], tables: &Tables) -> Vec<Receiver> {
    let here = |endpoint: &&Endpoint| {
        let route = tables.route(endpoint.address.ip()).ok().flatten();
        endpoint.node.is_some() || route.is_none_or(|route| route.kind != RouteKind::Local)
    };
    let endpoints: Vec<_> = endpoints.iter().filter(here).cloned().collect();
    receiver::choose(own, &endpoints)
}

fn tell(metrics: &Metrics, deed: Deed<'_>, done: &Result<(), ConfigfsError>) {
    let (change, name, to) = match deed {
        Deed::Made(name, target) => (NetconsoleChange::Made, name, Some(target.to_string())),
        Deed::Labelled(name) => (NetconsoleChange::Labelled, name, None),
        Deed::Removed(name) => (NetconsoleChange::Removed, name, None),
    };
    match done {
        Ok(()) => {
            metrics.changed(change);
            info!(target = name.as_str(), change = change.word(), to, "a target");
        }
        Err(error) => {
            metrics.changed(NetconsoleChange::Failed);
            warn!(target = name.as_str(), to, error = chain(error), "a target");
        }
    }
}

fn shown(receivers: &[Receiver]) -> String {
    let one = |receiver: &Receiver| {
        let address = receiver.addresses.first().map(SocketAddr::to_string).unwrap_or_default();
        receiver.node.as_ref().map_or_else(|| address.clone(), |node| format!("{address} ({node})"))
    };
    receivers.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn keeper(refused: Vec<Refusal>) -> Keeper {
        let identity = Identity { node: "n".into(), boot: "b".into(), secret: "s".into() };
        let tables = Tables::open().expect("a socket");
        let (metrics, readiness) = (Metrics::default(), Readiness::new([TARGETS]));
        Keeper { refused, ..Keeper::new(NetconsoleConfig::default(), identity, tables, metrics, readiness) }
    }

    fn target() -> Target {
        let remote = "10.0.0.2:6666".parse().expect("an address");
        let mac = plan::Mac([2, 0, 0, 0, 0, 1]);
        Target { device: "eth0".into(), local: [10, 0, 0, 1].into(), local_port: 6665, mac, remote }
    }

    #[test]
    fn a_target_is_waited_for_a_minute_and_its_loss_is_no_want_of_readiness() {
        let (begin, mut wait) = (clock::monotonic_now(), Wait::default());
        assert!(wait.goes_on(begin, false) && wait.goes_on(begin + PATIENCE / 2, false));
        assert!(!wait.goes_on(begin + PATIENCE, false) && !wait.goes_on(begin + PATIENCE * 2, false));
        let mut wait = Wait::default();
        assert!(!wait.goes_on(begin, true) && !wait.goes_on(begin + PATIENCE / 2, false));
    }

    #[test]
    fn why_the_kernel_refuses_is_told_until_it_is_tried_again() {
        let now = clock::monotonic_now();
        let refusal = Refusal { target: target(), why: "no netpoll".into(), at: now, until: now + REFUSED };
        let mut keeper = keeper(vec![refusal]);
        let wanted = Wanted { addresses: vec![target().remote], target: None };
        keeper.count(&[wanted], &[], now);
        let missing = keeper.readiness.missing();
        assert!(missing.iter().any(|(_, why)| why.ends_with("no netpoll")), "{missing:?}");
    }

    #[test]
    fn what_was_refused_is_tried_again_soon_after_devices_changed() {
        let now = clock::monotonic_now();
        let mut keeper = keeper(vec![Refusal { target: target(), why: String::new(), at: now, until: now + REFUSED }]);
        keeper.wanted(now + REFUSED_AT_LEAST, false);
        assert_eq!(keeper.refused.len(), 1);
        keeper.hear_of_devices(now);
        keeper.wanted(now, false);
        assert_eq!(keeper.refused.len(), 1);
        keeper.wanted(now + REFUSED_AT_LEAST, false);
        assert!(keeper.refused.is_empty());
    }

    #[test]
    fn the_order_of_receivers_changes_nothing() {
        let of = |address: &str| Receiver { node: None, addresses: vec![address.parse().expect("an address")] };
        let (one, other) = (of("10.0.0.1:6666"), of("10.0.0.2:6666"));
        assert!(are_same(&[one.clone(), other.clone()], &[other.clone(), one.clone()]));
        let alone = std::slice::from_ref(&one);
        assert!(!are_same(alone, std::slice::from_ref(&other)) && !are_same(alone, &[one.clone(), other.clone()]));
    }
}
