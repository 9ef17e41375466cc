//! Where the rig is: the file that `cargo xtask` writes for the tests (`xtask/src/cluster/rig.rs`).

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Variable with the path of the file. Without it the developer's rig of this source tree is looked for.
const VARIABLE: &str = "DETECTOR_RIG";

/// The developer's rig, below the directory of build output (`cargo xtask cluster up`).
const DEVELOPERS: &str = "rig/rig.json";

/// What starts a rig, for messages.
const HINT: &str =
    "`cargo xtask test cluster` runs these tests with a rig of their own, `cargo xtask cluster up` starts one";

/// All that tests know about a rig.
#[derive(Clone, Debug, Deserialize)]
pub struct Facts {
    /// Kubeconfig of an administrator.
    pub kubeconfig: PathBuf,
    /// URL of the API server on this machine.
    pub server: String,
    /// Certificate of the rig's authority, PEM.
    pub authority: PathBuf,
    /// The program kubectl.
    pub kubectl: PathBuf,
    /// Directory of the logs of all servers and guests.
    pub logs: PathBuf,
    /// Directory of the chart's manifests with each set of values that a user may set, as `VALUES.yaml`.
    pub renderings: PathBuf,
    /// Images that all nodes have, by purpose.
    #[serde(default)]
    pub images: Images,
    /// Nodes with a real kubelet; none in a rig without virtual machines.
    pub nodes: Vec<NodeFacts>,
}

/// Names of images that were imported into the nodes. Use them with `imagePullPolicy: Never`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Images {
    /// The product, from our release build; none if the rig was started without it.
    pub detector: Option<String>,
    /// busybox's tools in `/bin`; `/provoke` (`tests/provoke`); `/contained eat`, which takes memory until it is killed
    /// (`tests/vm/src/bin/contained.rs`).
    pub provoke: String,
}

/// One node.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeFacts {
    /// Name of its Node object.
    pub name: String,
    /// Series of its kernel, such as `6.1`.
    pub kernel: String,
    /// Whether its kubelet kills single processes (KubeletConfiguration `singleProcessOOMKill`) instead of all of a
    /// container.
    pub single_process_oom_kill: bool,
    /// Whether all pods together have a limit; without it the machine itself may run out of memory.
    pub limits_all_pods: bool,
    /// Ports of the guest and where this machine reaches them, on the loopback interface.
    pub ports: BTreeMap<u16, u16>,
    /// Port of this machine for commands to the guest.
    pub command_port: u16,
    /// Port of this machine for orders to the virtual machine itself (QMP).
    pub monitor_port: u16,
    /// Its console.
    pub console: PathBuf,
}

impl Facts {
    /// Reads the file.
    ///
    /// # Errors
    /// There is no rig, or it was written by another version of xtask.
    pub fn read() -> Result<Self> {
        let path = path()?;
        let text = fs::read(&path).with_context(|| format!("find a rig: read {} ({HINT})", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))
    }
}

fn path() -> Result<PathBuf> {
    if let Some(path) = env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("find the root of the source tree")?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
    Ok(target.join(DEVELOPERS))
}
