//! One rig: control plane and nodes, and the file that tells tests where they are.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};

use super::{
    go,
    guest::{self, Parts},
    node::{self, Node, Spec},
    pki::SERVICE_ADDRESS,
    plane::{GivesUp, Plane},
};
use crate::{
    build, deploy, image,
    image::{layout, rig as images},
    process,
    toolchain::{debian, unpacked},
    vm::{self, qemu},
    workspace,
};

/// File in a rig's directory that tells tests all they need; `tests/cluster/src/facts.rs` reads it.
const FACTS: &str = "rig.json";

/// Directory of the chart's manifests with each set of values, in a rig's directory.
const RENDERINGS: &str = "renderings";

/// Variable by which tests find that file.
pub(crate) const VARIABLE: &str = "DETECTOR_RIG";

/// Debian packages that are unpacked, not installed: installed they would start servers on this machine.
const PACKAGES: [&str; 7] =
    ["etcd-server", "containerd", "runc", "libc6", "libseccomp2", "busybox-static", "containernetworking-plugins"];

/// What a rig consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The control plane.
    Api,
    /// The control plane, which gives no node up: for thousands of Nodes whose Leases nobody can renew in time.
    Patient,
    /// The control plane and nodes that have no image of the product.
    Nodes,
    /// The control plane and nodes with the product's image.
    All,
}

/// A running rig. It ends when dropped, nodes before the control plane.
pub(crate) struct Rig {
    nodes: Vec<Node>,
    plane: Plane,
    tools: go::Tools,
    extent: Extent,
    directory: PathBuf,
}

impl Extent {
    const fn has_nodes(self) -> bool {
        matches!(self, Self::Nodes | Self::All)
    }

    const fn gives_up(self) -> GivesUp {
        match self {
            Self::Api => GivesUp::AsUsual,
            Self::Patient => GivesUp::Never,
            Self::Nodes | Self::All => GivesUp::Soon,
        }
    }
}

impl Rig {
    /// Starts a rig whose files are in `directory`, which is made anew. Nodes only begin to boot; [`Rig::wait`] waits for them. `binary` takes the place of our release build in the
    /// product's image.
    pub(crate) fn start(directory: &Path, extent: Extent, binary: Option<&Path>) -> Result<Self> {
        let tools = go::ensure_tools()?;
        let cache = workspace::cache()?.join("vm");
        fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
        let packages = unpacked::provide(&cache, "cluster", &PACKAGES)?;
        if directory.exists() {
            fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))?;
        }
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let specs = if extent.has_nodes() { Spec::all()? } else { Vec::new() };
        let names: Vec<_> = specs.iter().map(|spec| spec.name.clone()).collect();
        let etcd = packages.join("usr/bin/etcd");
        let plane = Plane::start(&tools, &etcd, directory, &names, extent.gives_up())
            .with_context(|| format!("start a control plane (its logs: {}/logs)", directory.display()))?;
        write_kubectl(directory, &tools.path("kubectl"), &plane.kubeconfig)?;
        let mut rig = Self { nodes: Vec::new(), plane, tools, extent, directory: directory.to_owned() };
        if extent.has_nodes() {
            rig.start_nodes(&cache, &packages, specs, binary).context("start the nodes")?;
        }
        deploy::write_renderings(&directory.join(RENDERINGS)).context("render the chart for the tests")?;
        rig.write_facts()?;
        Ok(rig)
    }

    fn start_nodes(&mut self, cache: &Path, packages: &Path, specs: Vec<Spec>, binary: Option<&Path>) -> Result<()> {
        if debian::is_debian() {
            debian::ensure(&["e2fsprogs"])?;
        }
        qemu::require(cache)?;
        let kernels = node::kernels(cache, &specs)?;
        let (init, provoke) = (vm::program("node")?, build::provoke()?);
        let archive = self.directory.join("images.tar");
        let programs = images::Programs {
            busybox: packages.join("bin/busybox"),
            provoke: provoke.clone(),
            contained: vm::program("contained")?,
        };
        let mut all = Vec::from(images::images(&programs)?);
        if self.extent == Extent::All {
            all.push(image::detector(&binary.map_or_else(build::detector, |path| Ok(path.to_owned()))?)?);
        }
        layout::write(&all, &archive)?;
        let kubelet = self.tools.path("kubelet");
        let parts = Parts { packages, kubelet: &kubelet, provoke: &provoke, images: &archive };
        let disk = guest::make_disk(&self.directory, &parts)?;
        let (directory, api_port) = (self.directory.clone(), self.plane.port);
        let (init, disk, pki) = (&*init, &*disk, &self.plane.pki);
        let start = node::Start { directory: &directory, init, disk, pki, api_port, cache };
        for (spec, kernel) in specs.into_iter().zip(&kernels) {
            process::say(format_args!("boot {} with {}", spec.name, kernel.package));
            self.nodes.push(start.node(spec, kernel)?);
        }
        Ok(())
    }

    /// Waits until all kubelets run, if there are any.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.nodes.iter_mut().try_for_each(Node::wait)?;
        if self.extent.has_nodes() {
            process::say(format_args!("all kubelets run after {} more", process::seconds(begun.elapsed())));
        }
        Ok(())
    }

    /// An error, if a part of the rig has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        self.plane.must_run()?;
        self.nodes.iter_mut().try_for_each(Node::must_run)
    }

    /// The file that tells tests all they need.
    pub(crate) fn facts(&self) -> PathBuf {
        self.directory.join(FACTS)
    }

    /// Where servers and guests write their logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    fn write_facts(&self) -> Result<()> {
        let product = (self.extent == Extent::All).then(image::detector_name);
        let facts = json!({
            "pid": std::process::id(),
            "kubeconfig": self.plane.kubeconfig,
            "server": format!("https://127.0.0.1:{}", self.plane.port),
            "authority": self.plane.pki.path("ca.crt"),
            "service_address": SERVICE_ADDRESS,
            "kubectl": self.tools.path("kubectl"),
            "logs": self.directory.join("logs"),
            "renderings": self.directory.join(RENDERINGS),
            "images": { "detector": product, "provoke": images::PROVOKE },
            "nodes": self.nodes.iter().map(Node::facts).collect::<Vec<_>>(),
        });
        let path = self.facts();
        fs::write(&path, format!("{facts:#}\n")).with_context(|| format!("write {}", path.display()))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Without the file nobody takes this rig for one that runs; what could not be removed names a dead process.
        fs::remove_file(self.facts()).ok();
        process::say("end the rig");
    }
}

/// The process that keeps the rig of this directory, if it lives.
pub(crate) fn running(directory: &Path) -> Option<Pid> {
    let facts: Value = serde_json::from_slice(&fs::read(directory.join(FACTS)).ok()?).ok()?;
    let pid = Pid::from_raw(i32::try_from(facts.get("pid")?.as_i64()?).ok()?)?;
    let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
    let is_ours = String::from_utf8_lossy(&command).contains("xtask");
    (is_ours && test_kill_process(pid).is_ok()).then_some(pid)
}

/// A script that is kubectl with the rig's kubeconfig.
fn write_kubectl(directory: &Path, kubectl: &Path, kubeconfig: &Path) -> Result<()> {
    let path = directory.join("kubectl");
    let script = format!("#!/bin/sh\nexec '{}' --kubeconfig '{}' \"$@\"\n", kubectl.display(), kubeconfig.display());
    fs::write(&path, script)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("write {}", path.display()))
}
