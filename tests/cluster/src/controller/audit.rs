//! What was asked of the API server, by its own audit log (`xtask/src/cluster/plane.rs`): by whom, and of what.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::Rig;

/// Requests of one user since a moment.
pub struct Audit {
    log: PathBuf,
    user: String,
    from: u64,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `get`, `list`, `watch`, `create`, `patch`, `delete`.
    pub verb: String,
    /// `pods`, `pods/status`.
    pub resource: String,
    /// Namespace, if it has one.
    pub namespace: String,
    /// Name of the object; empty for lists.
    pub name: String,
    /// With its query.
    pub uri: String,
    /// Status code of the answer.
    pub code: u16,
}

impl Asked {
    /// Whether it is about the Lease of a node, not a leader's.
    #[must_use]
    pub fn is_of_node_lease(&self) -> bool {
        self.resource == "leases" && self.namespace == "kube-node-lease"
    }
}

impl Audit {
    /// From now on, of the service account.
    ///
    /// # Errors
    /// There is no log.
    pub fn begin(rig: &Rig, namespace: &str, account: &str) -> Result<Self> {
        let log = rig.facts.logs.join("audit.log");
        let from = std::fs::metadata(&log).with_context(|| format!("look at {}", log.display()))?.len();
        Ok(Self { log, user: format!("system:serviceaccount:{namespace}:{account}"), from })
    }

    /// What was asked since. The server writes a line before it answers.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn asked(&self) -> Result<Vec<Asked>> {
        let mut file = File::open(&self.log).with_context(|| format!("open {}", self.log.display()))?;
        file.seek(SeekFrom::Start(self.from)).context("skip what was before")?;
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(|| format!("read {}", self.log.display()))?;
        // The last line may be half written.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let mut asked = Vec::new();
        for line in lines {
            let entry: Line = serde_json::from_str(line).with_context(|| format!("understand {line}"))?;
            if entry.user.username == self.user && entry.is_told_once() {
                asked.push(entry.into());
            }
        }
        Ok(asked)
    }

    /// How often each was asked: `patch pods/status` → number.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn counts(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for Asked { verb, resource, .. } in self.asked()? {
            *counts.entry(format!("{verb} {resource}")).or_default() += 1;
        }
        Ok(counts)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    user: User,
    #[serde(rename = "requestURI")]
    uri: String,
    #[serde(default)]
    object_ref: Reference,
    #[serde(default)]
    response_status: Status,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reference {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

impl Line {
    /// A watch is told when it begins and when it ends.
    fn is_told_once(&self) -> bool {
        self.stage == if self.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" }
    }
}

impl From<Line> for Asked {
    fn from(line: Line) -> Self {
        let Reference { resource, subresource, namespace, name } = line.object_ref;
        let resource = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
        Self { verb: line.verb, resource, namespace, name, uri: line.uri, code: line.response_status.code }
    }
}
