//! The file of `detector controller`: its settings, its keys, and the rules between them.

mod keys;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{
    Log, Mistakes,
    field::{DISABLED, write_time},
    reference,
    table::{Contradiction, Table},
};
use crate::{
    contract::netconsole::{CONTROLLER_PORT, PORT},
    controller::remediation::{Budget, Policy, Release},
};

/// All settings of `detector controller`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerConfig {
    /// Hearing dying kernels.
    pub netconsole: Netconsole,
    /// What may be done about dead nodes.
    pub policy: Policy,
    /// How long incidents are kept.
    pub retention: Retention,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// Health endpoints.
    pub health: Health,
    /// The controller's own log.
    pub log: Log,
}

/// Hearing dying kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netconsole {
    /// Where datagrams are taken; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Sources that are remembered, unknown ones included.
    pub sources: usize,
    /// How many datagrams are looked at.
    pub rate: Rate,
}

/// How many datagrams are looked at; what goes beyond is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Of one source in a second, in the long run.
    pub per_source: u32,
    /// Of one source at once.
    pub burst: u32,
    /// Of one known source at once, whatever the others send.
    pub guaranteed: u32,
    /// Of all sources in a second, and at once.
    pub total: u32,
}

/// How long incidents are kept. An incident that is not closed is always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Since it was closed.
    pub age: Duration,
    /// Closed ones at most; the oldest go first.
    pub number: u32,
}

/// Prometheus metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where they are served; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

/// Health endpoints `/livez`, `/readyz` and `/healthz`, and whether a self test was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where they are served; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

impl Default for Netconsole {
    fn default() -> Self {
        let rate = Rate { per_source: 500, burst: 4000, guaranteed: 500, total: 50_000 };
        // IPv4 as well, where the machine has both.
        Self { listen: Some(SocketAddr::from(([0_u16; 8], PORT))), sources: 16_384, rate }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(30 * 24 * 3600), number: 1000 }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: Some(listen()) }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { listen: Some(listen()) }
    }
}

/// One port serves both.
fn listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, CONTROLLER_PORT))
}

/// Nothing is done, and nothing would be done but what a person can take back.
impl Default for Policy {
    fn default() -> Self {
        Self {
            act: false,
            cordon: true,
            annotate: true,
            delete_pods: false,
            fail_pods: false,
            release: Release::Disabled,
            delete_node: false,
            pod_reason_keys: Vec::new(),
            node_reason_keys: Vec::new(),
            trust_address: false,
            control_plane_nodes: Vec::new(),
            reboot_window: Duration::from_secs(10 * 60),
            close_after: Duration::from_secs(5 * 60),
            budget: Budget::default(),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { nodes_at_once: 3, nodes_per_zone: 2, nodes_per_hour: 6, not_ready_percent: 30 }
    }
}

/// The file of `detector controller`.
pub const CONTROLLER: Table<ControllerConfig> = Table { sections: keys::SECTIONS, keys: keys::KEYS, contradictions };

/// The settings of `detector controller` in the file at `path`, with the rules of [`super::load`].
///
/// # Errors
///
/// All mistakes of the file at once.
pub fn load(path: &std::path::Path) -> Result<ControllerConfig, Mistakes> {
    CONTROLLER.load(path)
}

fn contradictions(config: &ControllerConfig) -> Vec<Contradiction> {
    let policy = &config.policy;
    let released = policy.release != Release::Disabled;
    let needs = [
        need("policy.deletePods", policy.delete_pods, PREPARED, policy.cordon && policy.annotate),
        need("policy.failPods", policy.fail_pods, &["policy.deletePods"], policy.delete_pods),
        need("policy.release", released, PREPARED, policy.cordon && policy.annotate),
        need("policy.deleteNode", policy.delete_node, &["policy.release"], released),
    ];
    let rules = [
        not_above(
            ("policy.budget.nodesPerZone", policy.budget.nodes_per_zone),
            ("policy.budget.nodesAtOnce", policy.budget.nodes_at_once),
        ),
        not_above(
            ("policy.budget.nodesAtOnce", policy.budget.nodes_at_once),
            ("policy.budget.nodesPerHour", policy.budget.nodes_per_hour),
        ),
        not_above(
            ("netconsole.rate.guaranteed", config.netconsole.rate.guaranteed),
            ("netconsole.rate.burst", config.netconsole.rate.burst),
        ),
        not_above(
            ("netconsole.rate.perSource", config.netconsole.rate.per_source),
            ("netconsole.rate.total", config.netconsole.rate.total),
        ),
        super::listeners(config.metrics.listen, config.health.listen),
        window(policy),
    ];
    needs.into_iter().chain(rules).flatten().collect()
}

/// What must go before pods are deleted: else nobody knows why, and what replaces them may come to the dead node.
const PREPARED: &[&str] = &["policy.cordon", "policy.annotate"];

fn need(key: &'static str, wanted: bool, needed: &[&'static str], there: bool) -> Option<Contradiction> {
    (wanted && !there).then(|| {
        let names = needed.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ");
        let keys = std::iter::once(key).chain(needed.iter().copied()).collect();
        Contradiction { keys, rule: format!("`{key}` needs {names}") }
    })
}

fn not_above(less: (&'static str, u32), more: (&'static str, u32)) -> Option<Contradiction> {
    (less.1 > more.1).then(|| Contradiction {
        keys: vec![less.0, more.0],
        rule: format!("`{}` must not be above `{}`: they are {} and {}", less.0, more.0, less.1, more.1),
    })
}

/// The control plane gives up a node after 50 s, and a machine takes minutes to boot.
fn window(policy: &Policy) -> Option<Contradiction> {
    const LEAST: Duration = Duration::from_secs(120);
    (policy.delete_node && policy.reboot_window < LEAST).then(|| Contradiction {
        keys: vec!["policy.rebootWindow", "policy.deleteNode"],
        rule: format!(
            "with `policy.deleteNode` it must be {} or longer: a node that reboots would be deleted",
            write_time(LEAST)
        ),
    })
}

/// The default file of `detector controller`, with its comments.
#[must_use]
pub fn default_file() -> String {
    reference::default_file(&CONTROLLER, FILE_PREFACE)
}

/// The page `docs/config-controller.md`.
#[must_use]
pub fn page() -> String {
    let mut page = PREFACE.replace("DISABLED", DISABLED);
    reference::write_keys(&mut page, &CONTROLLER);
    page
}

const FILE_PREFACE: &str = "\
Settings of `detector controller`, all with their defaults: a file needs only those that differ.
`detector config check --for controller FILE` tells all mistakes of a file at once.";

const PREFACE: &str = "\
# Configuration of the controller

One YAML file, with the rules of [the agent's](config.md): every key has a default, an empty file is valid, a file is right as
a whole or not used at all. [config-controller-default.yaml](config-controller-default.yaml), which `detector config default
--for controller` prints, has all keys; `detector config check --for controller FILE…` tells all mistakes at once.

Nothing is done to nodes or pods before `policy.mode` is `act`. Until then each step is written into the incident as `Told`, and
told as an event: what would have been done, when, and to how many pods. So a policy can be tried on real deaths.

| to get | set |
|---|---|
| reasons on pods and Nodes, no new pods on a dead node | `policy.mode: act` |
| Deployments replaced within seconds | also `policy.deletePods: true` |
| Jobs that go on uncharged | also `policy.failPods: true`, and in the Job a `podFailurePolicy` that ignores `DisruptionTarget` or `detector.dev/KernelCrash` |
| StatefulSets and volumes that move | also `policy.release: outOfService` (or `forceDelete`) |
| Nodes that are removed | also `policy.deleteNode: true` |

Each builds on those above it; what contradicts is refused. Where nothing is wanted, the word is `DISABLED`.

A node or a namespace with the label `detector.dev/remediation: disabled` is left alone, whatever the policy says.
";

#[cfg(test)]
mod tests;
