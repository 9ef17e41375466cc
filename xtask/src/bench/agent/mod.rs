//! The agent on a full node, beside a real API server, against the limits that it has to keep.
//!
//! ```text
//! node     a fake node: cgroups and files of 110 pods        rest   memory, wake-ups, API writes, scrapes
//! running  a running agent beside the rig's API server       storm  1,000 kills in one container
//! exposition  its metrics                                    delay  from the kernel to a watch of the API
//! ```

mod delay;
mod exposition;
mod node;
mod rest;
mod running;
mod storm;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};

use super::table::{Row, Table};
use crate::{
    build,
    cluster::{Extent, Rig},
    process, workspace,
};
use node::Node;
use running::{Agent, Place};

/// Directory of the rig below `target`, and that of the agent's files in it.
const DIRECTORY: &str = "bench-rig";
const FILES: &str = "agent";

/// What of the agent.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Parts to measure; all if none is named.
    #[arg(value_name = "PART")]
    parts: Vec<Part>,
    /// Measure this program instead of a release build.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Memory, wake-ups, API writes and scrapes at rest.
    Rest,
    /// 1,000 kills in one container.
    Storm,
    /// From the kernel to a watch of the API.
    Delay,
}

/// What each part finds when it begins.
struct Scene<'a> {
    place: Place<'a>,
    node: Node,
    provoke: PathBuf,
    kubectl: PathBuf,
}

impl Options {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let root = rustix::process::geteuid().is_root();
        ensure!(root, "measure the agent: attaching probes and making cgroups needs root");
        let detector = self.binary.as_ref().map_or_else(build::detector, |path| Ok(path.canonicalize()?))?;
        let provoke = build::provoke()?;
        let directory = workspace::target().join(DIRECTORY);
        let mut rig = Rig::start(&directory, Extent::Api, None)?;
        rig.wait()?;
        let kubeconfig = directory.join("pki/admin.kubeconfig");
        let kubectl = directory.join("kubectl");
        make_node_object(&kubectl, &directory)?;
        let files = directory.join(FILES);
        let place = Place { detector: &detector, kubeconfig: &kubeconfig, directory: &files };
        fs::create_dir_all(place.run()).with_context(|| format!("make {}", place.run().display()))?;
        let node = Node::make(&place.run()).context("make a fake node")?;
        let scene = Scene { place, node, provoke, kubectl };
        let mut table = Table::new();
        let done = self.measure(&scene, &mut table);
        print!("{}", table.render());
        done.with_context(|| format!("measure the agent (its logs: {})", files.display()))?;
        Ok(ExitCode::SUCCESS)
    }

    fn measure(&self, scene: &Scene<'_>, table: &mut Table) -> Result<()> {
        let mut add = |rows: Vec<Row>| rows.into_iter().for_each(|row| table.add(row));
        if self.wants(Part::Rest) || self.wants(Part::Storm) {
            let mut agent = Agent::start(&scene.place, "defaults", "").context("start an agent")?;
            rest::wait_for_names(&mut agent)?;
            if self.wants(Part::Rest) {
                process::say("measure at rest");
                add(rest::measure(&agent)?);
            }
            if self.wants(Part::Storm) {
                add(storm::measure(&mut agent, scene)?);
            }
        }
        if self.wants(Part::Delay) {
            add(delay::measure(scene)?);
        }
        Ok(())
    }

    fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}

/// The Node whose conditions the agent writes.
fn make_node_object(kubectl: &Path, directory: &Path) -> Result<()> {
    let object = serde_json::json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": running::NODE } });
    let path = directory.join("node.json");
    fs::write(&path, object.to_string()).with_context(|| format!("write {}", path.display()))?;
    process::capture(Command::new(kubectl).arg("apply").arg("-f").arg(&path), "make a Node object").map(drop)
}
