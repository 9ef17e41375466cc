//! The file of `detector agent`: its keys, and the rules between them.

use std::{path::Path, time::Duration};

use super::{
    Config, LogFormat, LogLevel,
    field::{DISABLED, Field, write_time},
    mistake::nearest::listed,
    reference,
    table::{
        Applies::{AtOnce, AtRestart},
        Contradiction, Key, Section, Table,
    },
};
use crate::agent::options::{Choice, Chosen, Detector};

/// Namespaces in which the API server takes events about a Node.
const NODE_NAMESPACES: [&str; 2] = ["default", "kube-system"];

/// Names in `conditions.runtimeProcesses` at most.
const MAX_RUNTIME_PROCESSES: usize = 64;

/// The file of `detector agent`.
pub const AGENT: Table<Config> = Table { sections: SECTIONS, keys: KEYS, contradictions };

const SECTIONS: &[Section] = &[
    Section { path: "detectors", meaning: "What is watched for, and how." },
    Section { path: "lastWords", meaning: "What a dying kernel says of its suspect." },
    Section { path: "locate", meaning: "Finding out whose a cgroup is." },
    Section { path: "conditions", meaning: "Conditions of the Node." },
    Section { path: "events", meaning: "Kubernetes events." },
    Section { path: "events.nodeBudget", meaning: "Writes about all subjects of this node together." },
    Section { path: "events.podBudget", meaning: "Writes about one pod, so that none takes all of the node's." },
    Section { path: "metrics", meaning: "Prometheus metrics." },
    Section { path: "health", meaning: "The endpoints `/livez`, `/readyz` and `/healthz`." },
    Section { path: "state", meaning: "What survives a restart." },
    Section { path: "previousBoot", meaning: "What is told of the boot before, after the machine has booted." },
    Section { path: "log", meaning: "The agent's own log, on standard error." },
];

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const KEYS: &[Key<Config>] = &[
    Key {
        path: "detectors.oom",
        field: Field::Word {
            words: || choices(Detector::Oom),
            get: |config| choice_word(config.detectors.oom),
            set: |config, word| config.detectors.oom = choice(Detector::Oom, word),
        },
        applies: AtRestart,
        meaning: "OOM kills. `best`: by the best method that works; without any it stays off, that is told, and the agent \
            is ready as long as another detector works. `required`: the same, but without any the agent ends, or is not \
            ready if it loses the last one. `disabled`: not at all. Anything else is a method: it is required, and no \
            other is tried.",
    },
    Key {
        path: "detectors.hungTask",
        field: Field::Word {
            words: || choices(Detector::HungTask),
            get: |config| choice_word(config.detectors.hung_task),
            set: |config, word| config.detectors.hung_task = choice(Detector::HungTask, word),
        },
        applies: AtRestart,
        meaning: "Hung tasks; as `detectors.oom`.",
    },
    Key {
        path: "detectors.panic",
        field: Field::Word {
            words: || choices(Detector::Panic),
            get: |config| choice_word(config.detectors.panic),
            set: |config, word| config.detectors.panic = choice(Detector::Panic, word),
        },
        applies: AtRestart,
        meaning: "The line about the suspect that a dying kernel writes (`docs/last-words.md`); as `detectors.oom`, but the \
            agent does not count it among the detectors that work.",
    },
    Key {
        path: "lastWords.printByKernel",
        field: Field::Flag(|config| &mut config.last_words.print_by_kernel),
        applies: AtRestart,
        meaning: "Set `kernel.ftrace_dump_on_oops` to 2, without which the line stays in the dead kernel's memory: the kernel \
            then prints the trace buffer of the dying CPU, with all that is in it. The former value is kept in \
            `state.directory`, and `detector cleanup` sets it again.",
    },
    Key {
        path: "locate.podWatch",
        field: Field::Flag(|config| &mut config.locate.pod_watch),
        applies: AtRestart,
        meaning: "Watch the pods of this node by the API. Needs the right to list and watch pods; without it names come \
            from the container runtime's files.",
    },
    Key {
        path: "locate.hold",
        field: Field::Time(seconds(0)..=seconds(30), |config| &mut config.locate.hold),
        applies: AtRestart,
        meaning: "How long a kill waits for names before it is told without them.",
    },
    Key {
        path: "conditions.enabled",
        field: Field::Flag(|config| &mut config.conditions.enabled),
        applies: AtRestart,
        meaning: "Write them at all.",
    },
    Key {
        path: "conditions.heartbeat",
        field: Field::Time(seconds(60)..=seconds(24 * 3600), |config| &mut config.conditions.heartbeat),
        applies: AtOnce,
        meaning: "How often they are written though nothing changed. Each agent spreads its own over a tenth of it.",
    },
    Key {
        path: "conditions.runtimeProcesses",
        field: Field::Comms(MAX_RUNTIME_PROCESSES, |config| &mut config.conditions.runtime_processes),
        applies: AtOnce,
        meaning: "Names of processes whose hang is a `KernelDeadlock`: kubelet, container runtimes, their shims, init. \
            Any other hung task is a `TaskHung`.",
    },
    Key {
        path: "events.enabled",
        field: Field::Flag(|config| &mut config.events.enabled),
        applies: AtRestart,
        meaning: "Write them at all.",
    },
    Key {
        path: "events.nodeNamespace",
        field: Field::Word {
            words: || NODE_NAMESPACES.to_vec(),
            get: |config| &config.events.node_namespace,
            set: |config, word| word.clone_into(&mut config.events.node_namespace),
        },
        applies: AtOnce,
        meaning: "Namespace of events about the Node. The API server refuses others.",
    },
    Key {
        path: "events.series",
        field: Field::Time(seconds(1)..=seconds(3600), |config| &mut config.events.series),
        applies: AtOnce,
        meaning: "Happenings of one kind to one container within this time become one series.",
    },
    Key {
        path: "events.nodeBudget.burst",
        field: Field::Number(1..=1000, |config| &mut config.events.node_budget.burst),
        applies: AtOnce,
        meaning: "Writes at once, half of them kept for first events.",
    },
    Key {
        path: "events.nodeBudget.every",
        field: Field::Time(seconds(1)..=seconds(3600), |config| &mut config.events.node_budget.every),
        applies: AtOnce,
        meaning: "One more write is allowed after each such time.",
    },
    Key {
        path: "events.podBudget.burst",
        field: Field::Number(1..=1000, |config| &mut config.events.pod_budget.burst),
        applies: AtOnce,
        meaning: "Writes at once, half of them kept for first events; not more than `events.nodeBudget.burst`.",
    },
    Key {
        path: "events.podBudget.every",
        field: Field::Time(seconds(1)..=seconds(3600), |config| &mut config.events.pod_budget.every),
        applies: AtOnce,
        meaning: "One more write is allowed after each such time; not less than `events.nodeBudget.every`.",
    },
    Key {
        path: "metrics.listen",
        field: Field::Address(|config| &mut config.metrics.listen),
        applies: AtRestart,
        meaning: "Where they are served. May be the same as `health.listen`: then one listener serves both.",
    },
    Key {
        path: "metrics.keep",
        field: Field::Time(seconds(1)..=seconds(24 * 3600), |config| &mut config.metrics.keep),
        applies: AtRestart,
        meaning: "How long the series of a pod are kept after it is gone. Longer than two scrapes, so that its last kill \
            is seen.",
    },
    Key {
        path: "metrics.series",
        field: Field::Size(100..=1_000_000, |config| &mut config.metrics.series),
        applies: AtRestart,
        meaning: "Series of one metric at most. What goes beyond is counted in `detector_series_refused_total`.",
    },
    Key {
        path: "health.listen",
        field: Field::Address(|config| &mut config.health.listen),
        applies: AtRestart,
        meaning: "Where they are served.",
    },
    Key {
        path: "state.directory",
        field: Field::Directory(|config| &mut config.state.directory),
        applies: AtRestart,
        meaning: "Directory of the state file and the spool. `disabled`: nothing survives.",
    },
    Key {
        path: "state.pins",
        field: Field::Directory(|config| &mut config.state.pins),
        applies: AtRestart,
        meaning: "Directory on a bpffs below which maps and programs are pinned. `disabled`: they go with the process.",
    },
    Key {
        path: "state.boots",
        field: Field::Directory(|config| &mut config.state.boots),
        applies: AtRestart,
        meaning: "File that says which boot the agent saw last and whether it was told to stop, so that after a crash of the \
            machine that is known. On a disk, and not in `state.directory`. `disabled`: a boot that ended without a shutdown \
            is not noticed, and a record of a panic is taken for one of the boot before only if it was made in the half \
            hour before this boot.",
    },
    Key {
        path: "previousBoot.keep",
        field: Field::Time(seconds(60)..=seconds(30 * 24 * 3600), |config| &mut config.previous_boot.keep),
        applies: AtRestart,
        meaning: "How long after the boot the condition `PreviousBootCrash` is True, if the boot before ended so.",
    },
    Key {
        path: "log.format",
        field: Field::Word {
            words: || LogFormat::ALL.map(LogFormat::name).to_vec(),
            get: |config| config.log.format.name(),
            set: |config, word| {
                config.log.format = LogFormat::of_name(word).unwrap_or(config.log.format);
            },
        },
        applies: AtRestart,
        meaning: "`json` for programs, one object a line; `text` for people.",
    },
    Key {
        path: "log.level",
        field: Field::Word {
            words: || LogLevel::ALL.map(LogLevel::name).to_vec(),
            get: |config| config.log.level.name(),
            set: |config, word| {
                config.log.level = LogLevel::of_name(word).unwrap_or(config.log.level);
            },
        },
        applies: AtOnce,
        meaning: "`error`: what keeps the agent from its work. `warn`: also what is lost or goes wrong once. `info`: \
            also problems, changes of methods, start and end. `debug`: also each write to the API.",
    },
];

/// Words for what is chosen for `detector`.
fn choices(detector: Detector) -> Vec<&'static str> {
    let words = [Choice::Best, Choice::Required, Choice::Off].map(choice_word);
    words.into_iter().chain(detector.methods().iter().map(|method| method.name())).collect()
}

const fn choice_word(choice: Choice) -> &'static str {
    match choice {
        Choice::Best => "best",
        Choice::Required => "required",
        Choice::Forced(method) => method.name(),
        Choice::Off => DISABLED,
    }
}

/// `word` is one of [`choices`].
fn choice(detector: Detector, word: &str) -> Choice {
    let words = [Choice::Required, Choice::Off];
    let forced = || detector.method_of_name(word).map_or(Choice::Best, Choice::Forced);
    words.into_iter().find(|choice| choice_word(*choice) == word).unwrap_or_else(forced)
}

fn contradictions(config: &Config) -> Vec<Contradiction> {
    let rules = [
        nothing_to_watch(config.detectors),
        burst(config),
        refill(config),
        super::listeners(config.metrics.listen, config.health.listen),
        places(config),
        boots(config),
        printing(config),
    ];
    rules.into_iter().flatten().collect()
}

fn nothing_to_watch(chosen: Chosen) -> Option<Contradiction> {
    let mut telling = Detector::ALL.into_iter().filter(|detector| detector.tells());
    let off = telling.all(|detector| chosen.of(detector) == Choice::Off);
    let keys = ["detectors.oom", "detectors.hungTask"];
    off.then(|| Contradiction {
        keys: keys.to_vec(),
        rule: format!("one of {} must not be `{DISABLED}`: there is nothing to watch for", listed(&keys)),
    })
}

/// What is changed on a machine is remembered, so that it can be undone.
fn printing(config: &Config) -> Option<Contradiction> {
    (config.last_words.print_by_kernel && config.state.directory.is_none()).then(|| Contradiction {
        keys: vec!["lastWords.printByKernel", "state.directory"],
        rule: format!("the former value of the kernel's setting needs a place: the directory must not be `{DISABLED}`"),
    })
}

fn burst(config: &Config) -> Option<Contradiction> {
    let (node, pod) = (config.events.node_budget.burst, config.events.pod_budget.burst);
    (pod > node).then(|| Contradiction {
        keys: vec!["events.podBudget.burst", "events.nodeBudget.burst"],
        rule: format!("one pod's burst must not be above the node's: they are {pod} and {node}"),
    })
}

fn refill(config: &Config) -> Option<Contradiction> {
    let (node, pod) = (config.events.node_budget.every, config.events.pod_budget.every);
    (pod < node).then(|| Contradiction {
        keys: vec!["events.podBudget.every", "events.nodeBudget.every"],
        rule: format!(
            "one pod must not be allowed writes more often than the node: they are {} and {}",
            write_time(pod),
            write_time(node)
        ),
    })
}

/// The state's files have names of their own, and its directory is emptied by `detector cleanup`.
fn boots(config: &Config) -> Option<Contradiction> {
    let (file, files): (&Path, &Path) = (config.state.boots.as_deref()?, config.state.directory.as_deref()?);
    (file.starts_with(files) || files.starts_with(file)).then(|| Contradiction {
        keys: vec!["state.boots", "state.directory"],
        rule:
            "the file must not lie in the directory, nor be it: it has to outlive the machine, the directory need not"
                .to_owned(),
    })
}

fn places(config: &Config) -> Option<Contradiction> {
    let (files, pins): (&Path, &Path) = (config.state.directory.as_deref()?, config.state.pins.as_deref()?);
    (files.starts_with(pins) || pins.starts_with(files)).then(|| Contradiction {
        keys: vec!["state.directory", "state.pins"],
        rule: "neither must lie in the other: a bpffs takes no files, and another file system no pins".to_owned(),
    })
}

/// The default file of `detector agent`, with its comments.
#[must_use]
pub fn default_file() -> String {
    reference::default_file(&AGENT, FILE_PREFACE)
}

/// The page `docs/config.md`.
#[must_use]
pub fn page() -> String {
    let mut page = PREFACE.to_owned();
    reference::write_keys(&mut page, &AGENT);
    page
}

const FILE_PREFACE: &str = "\
Settings of `detector agent`, all with their defaults: a file needs only those that differ.
`detector config check FILE` tells all mistakes of a file at once.";

const PREFACE: &str = "\
# Configuration of the agent

One YAML file. Every key has a default, so that a file needs only what differs, and an empty file is valid.
[config-default.yaml](config-default.yaml), which `detector config default` prints, has them all.

```yaml
log:
  level: debug
events:
  podBudget:
    burst: 5
```

**Values.** A time is a whole number with `s`, `m` or `h`, or several of them: `90s`, `10m`, `1h30m`. Booleans are `true` and
`false`, not `yes` or `off`. Where nothing is wanted, the word is `disabled`: an empty value or `null` is refused, because
tools that make YAML drop it, and the default would hold. Anchors, aliases and tags are refused; so are files of more than
256 KiB and a second document.

**Mistakes.** A file is right as a whole or not used at all. `detector config check FILE…` (`-` is standard input) tells all
mistakes at once, each with file, line, column, key, value and rule, and ends with code 64, or 0 if there are none:

```text
agent.yaml:2:10: log.level: `verbose`: must be `error`, `warn`, `info` or `debug`
agent.yaml:4:3: events.podBuget: there is no such key: did you mean `podBudget`?
```

`--output json` tells the same to programs: `{\"files\": [{\"file\", \"valid\", \"left_out\", \"mistakes\": [{\"line\", \"column\", \"key\",
\"value\", \"rule\"}]}]}`; `left_out` counts what is beyond the first 100 mistakes of a file.

**At start** a wrong file ends the agent with code 64; the mistakes stand on standard error and in the pod's termination
message, which `kubectl describe pod` shows.

**At run time** the agent notices by itself that the file changed: a ConfigMap's volume is updated about a minute after the
ConfigMap. Of a right file those keys apply at once that say so below; the others apply at restart, and the agent tells
which. A wrong file changes nothing: what was in force stays, the mistakes are told and counted. SIGHUP has the file read
again where its change cannot be seen, as with a link that leads to another directory. A ConfigMap mounted with `subPath` is
never updated.
";

#[cfg(test)]
mod tests;
