//! Pods that eat memory until the kernel kills them, on a cue: so a test can look at what stands before the kill.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{Namespace, Rig};

/// Limit of a container that eats.
pub const LIMIT: &str = "48Mi";

/// Name of the process that is killed.
pub const PROCESS: &str = "tail";

/// Waits on a FIFO, so that nothing runs before the cue; at each cue a child eats until it is killed.
const ON_CUE: &str = "mkfifo /tmp/cue; while true; do read word < /tmp/cue; tail /dev/zero; done";

/// A container whose first process starts a child at each [`Namespace::cue`], which eats until it is killed.
pub fn on_cue(rig: &Rig, name: &str) -> Value {
    shell(rig, name, ON_CUE)
}

/// A container with [`LIMIT`] that runs a script.
pub fn shell(rig: &Rig, name: &str, script: &str) -> Value {
    json!({
        "name": name, "image": rig.facts.images.provoke, "command": ["/bin/sh", "-c", script],
        "resources": { "requests": { "memory": "16Mi" }, "limits": { "memory": LIMIT } },
    })
}

/// Command that gives a container's script the cue it waits for. A container runs before its script has made the pipe.
pub fn cue(word: &str) -> String {
    format!("until [ -p /tmp/cue ]; do sleep 0.1; done; echo {word} > /tmp/cue")
}

impl Namespace {
    /// Makes a container of [`on_cue`] eat.
    ///
    /// # Errors
    /// It does not run.
    pub async fn cue(&self, pod: &str, container: &str) -> Result<()> {
        let words = ["--namespace", &self.name, "exec", pod, "--container", container, "--", "/bin/sh", "-c"];
        self.rig().kubectl(&[&words[..], &[&cue("go")]].concat()).await.map(drop)
    }
}
