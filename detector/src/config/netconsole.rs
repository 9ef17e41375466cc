//! The file of `detector netconsole`: its keys, and the rules between them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    Log, LogFormat, LogLevel,
    field::Field,
    reference,
    table::{Applies::AtRestart, Contradiction, Key, Section, Table},
};
use crate::contract::netconsole::{CONTROLLER_PORT, RECEIVER_PORT_NAME};

/// Addresses in `receivers.fixed` at most.
const MAX_FIXED: usize = 16;

/// Settings of `detector netconsole`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetconsoleConfig {
    /// Who is spoken to.
    pub receivers: Receivers,
    /// The targets in configfs.
    pub targets: Targets,
    /// The kernel's modules.
    pub modules: Modules,
    /// The test that a line arrives.
    pub self_test: SelfTest,
    /// Health and metrics.
    pub health: Health,
    /// What survives a restart.
    pub state: State,
    /// The program's own log.
    pub log: Log,
}

/// Who is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receivers {
    /// The Service whose EndpointSlices name them.
    pub service: Service,
    /// Addresses that take the place of the Service, if there are any.
    pub fixed: Vec<SocketAddr>,
    /// Time over which the fleet turns to other receivers.
    pub spread: Duration,
}

/// A headless Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of its port.
    pub port: String,
}

/// The targets in configfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Port that datagrams come from.
    pub local_port: u32,
    /// How often all is looked at although nothing was told.
    pub poll: Duration,
}

/// The kernel's modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    /// Load netconsole, and mount configfs, if they are not there.
    pub load: bool,
}

/// The test that a line arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfTest {
    /// Do it at all.
    pub enabled: bool,
    /// How often.
    pub every: Duration,
    /// Port at which receivers say what they heard.
    pub port: u32,
}

/// Health and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where they are served; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

/// What survives a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Directory of the secret and the lock; `None`: the secret is another after each start, and nothing is locked.
    pub directory: Option<PathBuf>,
}

impl Default for Receivers {
    fn default() -> Self {
        Self { service: Service::default(), fixed: Vec::new(), spread: seconds(30) }
    }
}

impl Default for Service {
    fn default() -> Self {
        let [namespace, name] = ["detector", "detector-controller-netconsole"].map(str::to_owned);
        Self { namespace, name, port: RECEIVER_PORT_NAME.to_owned() }
    }
}

impl Default for Targets {
    fn default() -> Self {
        // The port that the kernel takes by default.
        Self { local_port: 6665, poll: seconds(30) }
    }
}

impl Default for SelfTest {
    fn default() -> Self {
        Self { enabled: true, every: seconds(600), port: CONTROLLER_PORT.into() }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 20258))) }
    }
}

impl Default for State {
    fn default() -> Self {
        Self { directory: Some("/run/detector".into()) }
    }
}

/// The file of `detector netconsole`.
pub const NETCONSOLE: Table<NetconsoleConfig> = Table { sections: SECTIONS, keys: KEYS, contradictions };

const SECTIONS: &[Section] = &[
    Section { path: "receivers", meaning: "Who hears this node's kernel: two of these." },
    Section {
        path: "receivers.service",
        meaning: "The headless Service whose EndpointSlices name the receivers. Needs the right to list and watch \
            EndpointSlices in its namespace.",
    },
    Section { path: "targets", meaning: "What is kept in configfs, below names that begin with `detector-`." },
    Section { path: "modules", meaning: "The kernel's modules." },
    Section {
        path: "selfTest",
        meaning: "A marked line in the node's log, of which each receiver is asked whether it came.",
    },
    Section { path: "health", meaning: "The endpoints `/livez`, `/readyz`, `/healthz` and `/metrics`." },
    Section { path: "state", meaning: "What survives a restart." },
    Section { path: "log", meaning: "The program's own log, on standard error." },
];

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const KEYS: &[Key<NetconsoleConfig>] = &[
    Key {
        path: "receivers.service.namespace",
        field: Field::Name(|config| &mut config.receivers.service.namespace),
        applies: AtRestart,
        meaning: "Its namespace.",
    },
    Key {
        path: "receivers.service.name",
        field: Field::Name(|config| &mut config.receivers.service.name),
        applies: AtRestart,
        meaning: "Its name.",
    },
    Key {
        path: "receivers.service.port",
        field: Field::Name(|config| &mut config.receivers.service.port),
        applies: AtRestart,
        meaning: "Name of its port.",
    },
    Key {
        path: "receivers.fixed",
        field: Field::Addresses(MAX_FIXED, |config| &mut config.receivers.fixed),
        applies: AtRestart,
        meaning: "Addresses that take the place of the Service, if there are any: real addresses on the wire, not those \
            of a Service, for netconsole's frames pass no proxy. This node's own are left out.",
    },
    Key {
        path: "receivers.spread",
        field: Field::Time(seconds(0)..=seconds(600), |config| &mut config.receivers.spread),
        applies: AtRestart,
        meaning: "When the receivers change, each node turns to the new ones at some time within this, so that not all do \
            it at once. A node without any target does not wait.",
    },
    Key {
        path: "targets.localPort",
        field: Field::Number(1..=65535, |config| &mut config.targets.local_port),
        applies: AtRestart,
        meaning: "UDP port that datagrams come from.",
    },
    Key {
        path: "targets.poll",
        field: Field::Time(seconds(5)..=seconds(600), |config| &mut config.targets.poll),
        applies: AtRestart,
        meaning: "How often routes, neighbours and targets are looked at although the kernel told of no change, and the \
            next hop is asked whether it is still there.",
    },
    Key {
        path: "modules.load",
        field: Field::Flag(|config| &mut config.modules.load),
        applies: AtRestart,
        meaning: "Have the kernel load the module `netconsole`, and mount configfs, if they are not there. Needs \
            CAP_SYS_MODULE. Otherwise the node's owner does it, and readiness waits for it.",
    },
    Key {
        path: "selfTest.enabled",
        field: Field::Flag(|config| &mut config.self_test.enabled),
        applies: AtRestart,
        meaning: "Do it at all. Needs the right to write the kernel's log.",
    },
    Key {
        path: "selfTest.every",
        field: Field::Time(seconds(60)..=seconds(24 * 3600), |config| &mut config.self_test.every),
        applies: AtRestart,
        meaning: "How often. Each change of targets is followed by one as well.",
    },
    Key {
        path: "selfTest.port",
        field: Field::Number(1..=65535, |config| &mut config.self_test.port),
        applies: AtRestart,
        meaning: "TCP port of the receivers' health endpoints.",
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
        meaning: "Directory of the node's secret and of the lock. `disabled`: the secret is another after each start.",
    },
    Key {
        path: "log.format",
        field: Field::Word {
            words: || LogFormat::ALL.map(LogFormat::name).to_vec(),
            get: |config| config.log.format.name(),
            set: |config, word| config.log.format = LogFormat::of_name(word).unwrap_or(config.log.format),
        },
        applies: AtRestart,
        meaning: "`json` for programs, one object a line; `text` for people.",
    },
    Key {
        path: "log.level",
        field: Field::Word {
            words: || LogLevel::ALL.map(LogLevel::name).to_vec(),
            get: |config| config.log.level.name(),
            set: |config, word| config.log.level = LogLevel::of_name(word).unwrap_or(config.log.level),
        },
        applies: AtRestart,
        meaning: "`error`: what keeps the kernel from being heard. `warn`: also what goes wrong once. `info`: also each \
            change of targets. `debug`: also each look at them.",
    },
];

fn contradictions(config: &NetconsoleConfig) -> Vec<Contradiction> {
    let wrong = config.self_test.enabled && config.self_test.every < config.receivers.spread;
    let rule = "must not be less than `receivers.spread`: receivers would be tested before they are turned to";
    let rule = Contradiction { keys: vec!["selfTest.every", "receivers.spread"], rule: rule.to_owned() };
    wrong.then_some(rule).into_iter().collect()
}

/// The default file of `detector netconsole`, with its comments.
#[must_use]
pub fn default_file() -> String {
    reference::default_file(&NETCONSOLE, FILE_PREFACE)
}

/// The keys as a Markdown page.
#[must_use]
pub fn page() -> String {
    let mut page = PREFACE.to_owned();
    reference::write_keys(&mut page, &NETCONSOLE);
    page
}

const FILE_PREFACE: &str = "\
Settings of `detector netconsole`, all with their defaults: a file needs only those that differ.
`detector config check --for netconsole FILE` tells all mistakes of a file at once.";

const PREFACE: &str = "\
# Configuration of `detector netconsole`

One YAML file, with the rules of [the agent's](config.md): every key has a default, an empty file is valid, a file is right as
a whole or not used at all. [config-netconsole-default.yaml](config-netconsole-default.yaml), which `detector config default
--for netconsole` prints, has all keys; `detector config check --for netconsole FILE…` tells all mistakes at once. A change
applies at restart: targets stay meanwhile. [netconsole.md](netconsole.md) tells what the program does.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        NETCONSOLE.parse("f", text.as_bytes()).expect_err("mistakes").to_string()
    }

    #[test]
    fn the_default_file_says_what_holds_without_one() {
        let read = NETCONSOLE.parse("f", default_file().as_bytes()).expect("no mistakes");
        assert_eq!(read, NetconsoleConfig::default());
    }

    #[test]
    fn all_keys_are_read() {
        let text = r#"
receivers:
  service: {namespace: ops, name: ears, port: nc}
  fixed: [10.0.0.1:6666, "[fd00::1]:6666"]
  spread: 5s
targets: {localPort: 7000, poll: 10s}
modules: {load: true}
selfTest: {enabled: false, every: 60s, port: 80}
health: {listen: disabled}
state: {directory: disabled}
log: {format: text, level: debug}
"#;
        let read = NETCONSOLE.parse("f", text.as_bytes()).expect("no mistakes");
        assert_eq!(read.receivers.fixed.len(), 2);
        assert_eq!(NETCONSOLE.differences(&NetconsoleConfig::default(), &read).len(), KEYS.len());
    }

    #[test]
    fn mistakes_are_told_with_their_places() {
        assert_eq!(
            refused("receivers: {fixed: [10.0.0.1, 10.0.0.1:1, 10.0.0.1:1]}\nselfTest: {every: 1s}"),
            "f:1:21: receivers.fixed: `10.0.0.1`: must be an IP address with a port from 1 to 65535\n\
             f:1:43: receivers.fixed: `10.0.0.1:1`: must stand once\n\
             f:2:19: selfTest.every: `1s`: must be a time from 1m to 24h in whole `h`, `m` and `s`"
        );
        assert!(refused("receivers: {service: {name: My_Service}}").contains("RFC 1123"));
        assert!(refused("receivers: {spread: 5m}\nselfTest: {every: 1m}").contains("must not be less than"));
    }
}
