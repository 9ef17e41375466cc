//! A node: a guest in QEMU with a real kubelet, and the ports by which this machine reaches it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{guest, pki::Pki, port, server::Server};
use crate::vm::{
    initramfs,
    kernels::{self, Kernel},
    qemu::QEMU,
};

/// Port of the guest for tests' commands.
pub(crate) const COMMAND_PORT: u16 = 2222;

/// Ports of the agent in the guest: node-problem-detector's health and metrics.
const AGENT_PORTS: [u16; 2] = [20256, 20257];

/// Memory of a guest in MiB: system and kubelet take 130, the rest is for pods.
const MEMORY_MIB: u32 = 1024;

/// What a node's kernel needs to speak over the network when it dies, besides what every guest with a disk has.
const MODULES: [&str; 1] = ["netconsole"];

/// Size of the store in which a dying kernel leaves its last words, as the firmware of a server has one (ERST).
const STORE: &str = "64K";

/// What goes to the kernel. Level 4 keeps the OOM killer's own report off the slow console.
const COMMAND_LINE: &str = "console=ttyS0 rdinit=/init quiet loglevel=4 panic=-1 mitigations=off random.trust_cpu=on \
    no_timer_check";

/// What process 1 of the guest says once kubelet runs.
const STARTED: &str = "kubelet is healthy";

/// How long that may take. Measured: 63 s on a busy machine, and machines differ.
const START_PATIENCE: Duration = Duration::from_secs(600);

/// What one node is like.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// Name of its Node object; the API server resolves it to this machine.
    pub(crate) name: String,
    /// Series of its kernel.
    pub(crate) series: String,
    /// Whether kubelet lets a container live when one of its processes is killed.
    pub(crate) single_process_oom_kill: bool,
    /// Whether all pods together have a limit, as kubelet has it by default.
    pub(crate) limits_all_pods: bool,
    /// Whether `kernel.perf_event_paranoid` is 2, as the kernel itself has it: then an agent without `SYS_ADMIN` may attach
    /// kprobes, which the one on `panic` is. Debian's own level forbids that.
    pub(crate) opens_kprobes: bool,
    /// Port of kubelet, the same in the guest and here: a Node object tells only one.
    pub(crate) kubelet_port: u16,
}

/// A running guest; it ends when dropped.
pub(crate) struct Node {
    spec: Spec,
    server: Server,
    console: PathBuf,
    ports: BTreeMap<u16, u16>,
    /// Port of this machine for orders to QEMU.
    monitor: u16,
}

impl Spec {
    /// The nodes of every rig: an old and a newer kernel, each kind of kubelet. Not the newest: from 7.0 on a thread speaks
    /// over netconsole, and of a panic's lines those may be lost that it has not sent when its CPU is stopped.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let ports: [u16; 2] = port::free()?;
        let node = |name: &str, series: &str, single, kubelet_port| Self {
            name: name.to_owned(),
            series: series.to_owned(),
            single_process_oom_kill: single,
            limits_all_pods: single,
            opens_kprobes: !single,
            kubelet_port,
        };
        Ok(vec![node("node-a", "6.1", true, ports[0]), node("node-b", "6.12", false, ports[1])])
    }

    fn command_line(&self) -> String {
        let level = if self.opens_kprobes { " sysctl.kernel.perf_event_paranoid=2" } else { "" };
        format!("{COMMAND_LINE}{level}")
    }
}

/// Kernels of these nodes.
pub(crate) fn kernels(cache: &Path, specs: &[Spec]) -> Result<Vec<Kernel>> {
    let names: Vec<_> = specs.iter().map(|spec| spec.series.clone()).collect();
    kernels::provide(cache, &kernels::select(&names)?)
}

/// What all nodes of a rig have in common while they start.
pub(crate) struct Start<'a> {
    /// The rig's directory.
    pub(crate) directory: &'a Path,
    /// Process 1 of the guests.
    pub(crate) init: &'a Path,
    /// Disk of all of them.
    pub(crate) disk: &'a Path,
    /// Who signs their certificates.
    pub(crate) pki: &'a Pki,
    /// Port of the API server on this machine.
    pub(crate) api_port: u16,
    /// Where kernels and their modules are kept.
    pub(crate) cache: &'a Path,
}

/// The parts of one machine.
struct Machine<'a> {
    kernel: &'a Kernel,
    command_line: String,
    initramfs: &'a Path,
    disk: &'a Path,
    /// Outlives the machine's reboots.
    store: &'a Path,
    ports: &'a BTreeMap<u16, u16>,
    monitor: u16,
    console: &'a Path,
}

impl Start<'_> {
    /// Starts a guest; [`Node::wait`] waits for it.
    pub(crate) fn node(&self, spec: Spec, kernel: &Kernel) -> Result<Node> {
        let own = self.directory.join(&spec.name);
        let initramfs = self.initramfs(&spec, kernel, &own)?;
        let [command, first, second, monitor] = port::free()?;
        let ports = BTreeMap::from([
            (COMMAND_PORT, command),
            (AGENT_PORTS[0], first),
            (AGENT_PORTS[1], second),
            (spec.kubelet_port, spec.kubelet_port),
        ]);
        let console = self.directory.join("logs").join(format!("{}.console", spec.name));
        let machine = Machine {
            kernel,
            command_line: spec.command_line(),
            initramfs: &initramfs,
            disk: self.disk,
            store: &own.join("erst"),
            ports: &ports,
            monitor,
            console: &console,
        };
        let server = Server::start(&spec.name, &machine.qemu(), &self.directory.join("logs"))?;
        Ok(Node { spec, server, console, ports, monitor })
    }

    fn initramfs(&self, spec: &Spec, kernel: &Kernel, own: &Path) -> Result<PathBuf> {
        let mut files = vec![("init".to_owned(), self.init.to_owned())];
        for module in &kernel.modules {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            files.push((format!("modules/{name}"), module.clone()));
        }
        for module in kernels::more_modules(self.cache, kernel, "node", &MODULES)? {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            // Behind all others, in the order of their names.
            files.push((format!("modules/9{name}"), module.clone()));
        }
        for (name, path) in guest::own_files(own, self.pki, self.api_port, spec)? {
            files.push((format!("node/{name}"), path));
        }
        let files: Vec<_> = files.iter().map(|(name, path)| (name.as_str(), path.clone())).collect();
        initramfs::pack(&own.join("initramfs"), &files, &kernel.loop_module)
    }
}

impl Node {
    /// Waits until its kubelet runs.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let (console, name) = (self.console.clone(), self.spec.name.clone());
        let says_so = || Ok(fs::read(&console).is_ok_and(|text| String::from_utf8_lossy(&text).contains(STARTED)));
        let waited = self.server.wait_until(&format!("{name} says: {STARTED}"), START_PATIENCE, says_so);
        waited.with_context(|| format!("boot {name}; its console is {}", self.console.display()))
    }

    /// An error, if the guest has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        self.server.must_run().with_context(|| format!("its console is {}", self.console.display()))
    }

    /// What tests know of it: `tests/cluster/src/facts.rs`.
    pub(crate) fn facts(&self) -> Value {
        json!({
            "name": self.spec.name,
            "kernel": self.spec.series,
            "single_process_oom_kill": self.spec.single_process_oom_kill,
            "limits_all_pods": self.spec.limits_all_pods,
            "ports": self.ports,
            "command_port": self.ports[&COMMAND_PORT],
            "monitor_port": self.monitor,
            "console": self.console,
            "qemu": self.server.pid(),
        })
    }
}

impl Machine<'_> {
    /// TCG, because hardware help is often missing or broken inside virtual machines; Nehalem, because newer models cost TCG
    /// time. What a guest writes to the disk is forgotten with QEMU, not with a reset. A guest that reboots ends QEMU, which
    /// the rig sees; tests that mean it to come back say so by the monitor (`tests/cluster/src/node/machine.rs`).
    fn qemu(&self) -> Command {
        let forwards: String =
            self.ports.iter().map(|(guest, here)| format!(",hostfwd=tcp:127.0.0.1:{here}-:{guest}")).collect();
        let mut command = Command::new(QEMU);
        command.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2"]);
        command.args(["-m", &MEMORY_MIB.to_string(), "-display", "none", "-monitor", "none", "-no-reboot"]);
        command.args(["-nodefaults", "-qmp", &format!("tcp:127.0.0.1:{},server=on,wait=off", self.monitor)]);
        command.arg("-serial").arg(format!("file:{}", self.console.display()));
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(self.initramfs);
        command.args(["-append", &self.command_line]);
        command
            .arg("-drive")
            .arg(format!("file={},format=raw,if=virtio,snapshot=on,cache=unsafe", self.disk.display()));
        let store = format!("memory-backend-file,id=store,size={STORE},share=on,mem-path=");
        command.args(["-object", &(store + &self.store.display().to_string())]);
        command.args(["-device", "acpi-erst,memdev=store", "-netdev", &format!("user,id=n0{forwards}")]);
        command.args(["-device", "virtio-net-pci,netdev=n0,id=card", "-device", "virtio-rng-pci"]);
        command
    }
}
