//! The keys of the controller's file, in their order.

use std::time::Duration;

use super::ControllerConfig;
use crate::{
    config::{
        LogFormat, LogLevel,
        field::{DISABLED, Field, is_subdomain},
        table::{
            Applies::{self, AtOnce, AtRestart},
            Key, Section,
        },
        texts::{Texts, is_annotation_key},
    },
    controller::remediation::{Policy, Release},
};

/// Further keys with the reason, on pods and on Nodes each.
const MAX_REASON_KEYS: usize = 8;

/// Names in `policy.controlPlaneNodes` at most.
const MAX_CONTROL_PLANE_NODES: usize = 64;

pub(super) const SECTIONS: &[Section] = &[
    Section { path: "netconsole", meaning: "Hearing dying kernels." },
    Section {
        path: "netconsole.rate",
        meaning: "How many datagrams are looked at. What goes beyond is dropped and counted.",
    },
    Section { path: "policy", meaning: "What may be done about dead nodes. Each step builds on those above it." },
    Section {
        path: "policy.budget",
        meaning: "How much may be done. What goes beyond is held, not forgotten; a hold is told as an event with its \
            reason.",
    },
    Section { path: "retention", meaning: "How long closed incidents are kept. One that is not closed stays." },
    Section { path: "metrics", meaning: "Prometheus metrics." },
    Section { path: "health", meaning: "The endpoints `/livez`, `/readyz` and `/healthz`." },
    Section { path: "log", meaning: "The controller's own log, on standard error." },
];

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// A number of the budget or of the rates.
const fn number(
    path: &'static str,
    most: u32,
    at: fn(&mut ControllerConfig) -> &mut u32,
    applies: Applies,
    meaning: &'static str,
) -> Key<ControllerConfig> {
    Key { path, field: Field::Number(1..=most, at), applies, meaning }
}

/// A step of the policy, or not.
const fn step(
    path: &'static str,
    at: fn(&mut ControllerConfig) -> &mut bool,
    meaning: &'static str,
) -> Key<ControllerConfig> {
    Key { path, field: Field::Flag(at), applies: AtOnce, meaning }
}

/// Further annotations with the reason.
const fn reason_keys(
    path: &'static str,
    at: fn(&mut ControllerConfig) -> &mut Vec<String>,
    meaning: &'static str,
) -> Key<ControllerConfig> {
    let what = "keys of annotations with their prefix, such as `pod.titus.netflix.com/pod-termination-reason`, and not \
                below `detector.dev/`";
    let fits = |key: &str| is_annotation_key(key) && !key.starts_with("detector.dev/");
    let field = Field::Texts(Texts { most: MAX_REASON_KEYS, what, fits, at });
    Key { path, field, applies: AtOnce, meaning }
}

pub(super) const KEYS: &[Key<ControllerConfig>] = &[
    Key {
        path: "netconsole.listen",
        field: Field::Address(|config| &mut config.netconsole.listen),
        applies: AtRestart,
        meaning: "Where datagrams are taken (UDP). `[::]` takes IPv4 as well.",
    },
    Key {
        path: "netconsole.sources",
        field: Field::Size(64..=262_144, |config| &mut config.netconsole.sources),
        applies: AtRestart,
        meaning: "Senders that are remembered. More than there are addresses of Nodes, by a third.",
    },
    number(
        "netconsole.rate.perSource",
        100_000,
        |config| &mut config.netconsole.rate.per_source,
        AtRestart,
        "Of one source in a second, in the long run.",
    ),
    number(
        "netconsole.rate.burst",
        1_000_000,
        |config| &mut config.netconsole.rate.burst,
        AtRestart,
        "Of one source at once. A panic is 40 to 150 lines; with a dump of all tasks it is thousands.",
    ),
    number(
        "netconsole.rate.guaranteed",
        1_000_000,
        |config| &mut config.netconsole.rate.guaranteed,
        AtRestart,
        "Of one known source at once, whatever the others send.",
    ),
    number(
        "netconsole.rate.total",
        10_000_000,
        |config| &mut config.netconsole.rate.total,
        AtRestart,
        "Of all sources together in a second, and at once.",
    ),
    Key {
        path: "policy.mode",
        field: Field::Word {
            words: || vec!["dryRun", "act"],
            get: |config| if config.policy.act { "act" } else { "dryRun" },
            set: |config, word| config.policy.act = word == "act",
        },
        applies: AtOnce,
        meaning: "`dryRun`: tell what would be done, and do nothing. `act`: do it.",
    },
    step(
        "policy.cordon",
        |config| &mut config.policy.cordon,
        "Keep new pods from a dead node. Our cordon is taken back when the node is back; a person's is left alone.",
    ),
    step(
        "policy.annotate",
        |config| &mut config.policy.annotate,
        "Write the reason on the Node and its pods, with the pods' condition `detector.dev/KernelCrash`.",
    ),
    step(
        "policy.deletePods",
        |config| &mut config.policy.delete_pods,
        "Delete the pods of a node that told of its panic and missed two renewals of its Lease, with their own grace: \
         Deployments replace them at once. Needs `policy.cordon` and `policy.annotate`.",
    ),
    step(
        "policy.failPods",
        |config| &mut config.policy.fail_pods,
        "On proof of death set pods to `Failed` with the condition `DisruptionTarget`, so that Jobs go on and are not \
         charged. Needs `policy.deletePods`.",
    ),
    Key {
        path: "policy.release",
        field: Field::Word {
            words: || vec![DISABLED, "outOfService", "forceDelete"],
            get: |config| release_word(&config.policy),
            set: |config, word| config.policy.release = release_of(word),
        },
        applies: AtOnce,
        meaning: "On proof of death let StatefulSets and volumes go. `outOfService`: by the taint \
            `node.kubernetes.io/out-of-service`, which also ends pods of DaemonSets and detaches volumes at once. \
            `forceDelete`: delete the pods without grace. Needs `policy.cordon` and `policy.annotate`.",
    },
    step(
        "policy.deleteNode",
        |config| &mut config.policy.delete_node,
        "Delete the Node once it has been lost for `policy.rebootWindow`. Needs `policy.release`.",
    ),
    step(
        "policy.trustAddress",
        |config| &mut config.policy.trust_address,
        "Delete on the word of a panic, too, whose sender is known by its address alone: kernels before 6.9 cannot say \
         more. Only where the network drops packets with forged source addresses.",
    ),
    reason_keys(
        "policy.podReasonKeys",
        |config| &mut config.policy.pod_reason_keys,
        "Further annotations of pods that get the reason.",
    ),
    reason_keys(
        "policy.nodeReasonKeys",
        |config| &mut config.policy.node_reason_keys,
        "Further annotations of Nodes that get the reason.",
    ),
    Key {
        path: "policy.controlPlaneNodes",
        field: Field::Texts(Texts {
            most: MAX_CONTROL_PLANE_NODES,
            what: "names of Nodes (RFC 1123)",
            fits: is_subdomain,
            at: |config| &mut config.policy.control_plane_nodes,
        }),
        applies: AtOnce,
        meaning: "Nodes of the control plane that may be remediated all the same. Others of it are never touched.",
    },
    Key {
        path: "policy.rebootWindow",
        field: Field::Time(minutes(0)..=minutes(24 * 60), |config| &mut config.policy.reboot_window),
        applies: AtOnce,
        meaning: "How long a Node must be lost before it may be deleted: longer than the slowest machine takes to boot. A \
            node that is back is held, not finished off.",
    },
    Key {
        path: "policy.closeAfter",
        field: Field::Time(minutes(1)..=minutes(24 * 60), |config| &mut config.policy.close_after),
        applies: AtOnce,
        meaning: "An incident is closed when its node has been back for so long.",
    },
    number(
        "policy.budget.nodesAtOnce",
        1000,
        |config| &mut config.policy.budget.nodes_at_once,
        AtOnce,
        "Nodes under remediation: with a step under way, or one that ended less than ten minutes ago.",
    ),
    number(
        "policy.budget.nodesPerZone",
        1000,
        |config| &mut config.policy.budget.nodes_per_zone,
        AtOnce,
        "The same in one zone (label `topology.kubernetes.io/zone`; nodes without one are one zone).",
    ),
    number(
        "policy.budget.nodesPerHour",
        1000,
        |config| &mut config.policy.budget.nodes_per_hour,
        AtOnce,
        "Nodes on which remediation began within an hour. The one beyond pulls the brake, which only `detector brake \
         release` releases.",
    ),
    number(
        "policy.budget.notReadyPercent",
        100,
        |config| &mut config.policy.budget.not_ready_percent,
        AtOnce,
        "Hold everything while more than this share of all nodes is not ready: the fault may be the network's or ours.",
    ),
    Key {
        path: "retention.age",
        field: Field::Time(minutes(60)..=minutes(5 * 365 * 24 * 60), |config| &mut config.retention.age),
        applies: AtOnce,
        meaning: "Since it was closed.",
    },
    number(
        "retention.number",
        // Fewer than are held in memory (`store::known`): beyond that nobody would see which are too many.
        4_000,
        |config| &mut config.retention.number,
        AtOnce,
        "Closed incidents at most; the oldest go first.",
    ),
    Key {
        path: "metrics.listen",
        field: Field::Address(|config| &mut config.metrics.listen),
        applies: AtRestart,
        meaning: "Where they are served. May be the same as `health.listen`: then one listener serves both.",
    },
    Key {
        path: "health.listen",
        field: Field::Address(|config| &mut config.health.listen),
        applies: AtRestart,
        meaning: "Where they are served.",
    },
    Key {
        path: "log.format",
        field: Field::Word {
            words: || LogFormat::ALL.map(LogFormat::name).to_vec(),
            get: |config| config.log.format.name(),
            set: |config, word| config.log.format = LogFormat::of_name(word).unwrap_or(config.log.format),
        },
        applies: AtRestart,
        meaning: "`json`: one object a line. `text`: for people.",
    },
    Key {
        path: "log.level",
        field: Field::Word {
            words: || LogLevel::ALL.map(LogLevel::name).to_vec(),
            get: |config| config.log.level.name(),
            set: |config, word| config.log.level = LogLevel::of_name(word).unwrap_or(config.log.level),
        },
        applies: AtOnce,
        meaning: "`error`: what keeps the controller from its work. `warn`: also what is lost or goes wrong once. `info`: \
            also incidents, steps, start and end. `debug`: also each write to the API.",
    },
];

const fn release_word(policy: &Policy) -> &'static str {
    match policy.release {
        Release::Disabled => DISABLED,
        Release::OutOfService => "outOfService",
        Release::ForceDelete => "forceDelete",
    }
}

/// `word` is one of the key's.
fn release_of(word: &str) -> Release {
    match word {
        "outOfService" => Release::OutOfService,
        "forceDelete" => Release::ForceDelete,
        _ => Release::Disabled,
    }
}
