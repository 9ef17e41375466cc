//! A control plane on the loopback interface: etcd, API server, controller manager and scheduler, as processes of this
//! machine, with the authorizers and the admission that a real cluster has.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    go::Tools,
    pki::{HOST_IN_GUESTS, Pki},
    port,
    server::Server,
};
use crate::process;

/// Services' addresses; the first is [`super::pki::SERVICE_ADDRESS`].
const SERVICES: &str = "10.96.0.0/16";

/// What the API server notes of requests: who asked for what, but for its own parts, its controllers, kubelets and people, who
/// are most and of no interest. `tests/cluster/src/controller/audit.rs` reads it.
const AUDIT: &str = r#"{
  "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
  "rules": [
    { "level": "None", "userGroups": ["system:masters", "system:nodes", "system:serviceaccounts:kube-system"] },
    { "level": "Metadata", "userGroups": ["system:serviceaccounts"] },
    { "level": "None" }
  ]
}"#;

/// How long a server may take until it answers. Measured: etcd 1.3 s, API server 6 s; several times that on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// When nodes that are silent are given up with [`GivesUp::Soon`]: six renewals of the Leases of the rig's nodes.
const SOON: Duration = Duration::from_secs(30);

/// When the control plane gives a node up that is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivesUp {
    /// After Kubernetes' own 50 s.
    AsUsual,
    /// Earlier: tests wait for it.
    Soon,
    /// Never: for thousands of Nodes whose Leases nobody can renew in time.
    Never,
}

/// A running control plane. It ends when dropped, the API server's clients before it, etcd last.
pub(crate) struct Plane {
    /// Scheduler, controller manager, API server, etcd: they end in this order.
    servers: Vec<Server>,
    /// The authority that both sides trust.
    pub(crate) pki: Pki,
    /// Port of the API server.
    pub(crate) port: u16,
    /// Kubeconfig of an administrator.
    pub(crate) kubeconfig: PathBuf,
}

/// Where things are while a control plane starts.
struct Start<'a> {
    tools: &'a Tools,
    pki: &'a Pki,
    logs: &'a Path,
    etcd: u16,
    peers: u16,
    port: u16,
    kubeconfig: &'a Path,
}

impl Plane {
    /// Starts everything and waits until pods could be made. `etcd` is its program, `nodes` the nodes' names.
    pub(crate) fn start(
        tools: &Tools,
        etcd: &Path,
        directory: &Path,
        nodes: &[String],
        gives_up: GivesUp,
    ) -> Result<Self> {
        let start = Instant::now();
        let logs = directory.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
        let [etcd_port, peers, port, manager, scheduler] = port::free()?;
        let pki = Pki::make(&directory.join("pki"))?;
        let address = format!("https://127.0.0.1:{port}");
        let kubeconfig = pki.kubeconfig("admin", "admin", Some("system:masters"), &address)?;
        // A kubelet without a machine, for tests of what a node's credentials may do.
        pki.kubeconfig("kubelet-test", "system:node:kubelet-test", Some("system:nodes"), &address)?;
        let manager_config = pki.kubeconfig("manager", "system:kube-controller-manager", None, &address)?;
        let scheduler_config = pki.kubeconfig("scheduler", "system:kube-scheduler", None, &address)?;
        let here = Start { tools, pki: &pki, logs: &logs, etcd: etcd_port, peers, port, kubeconfig: &kubeconfig };
        let store = here.etcd(etcd, &directory.join("etcd"))?;
        let api = here.api_server(&hosts(directory, nodes)?)?;
        let mut manager = here.manager(&manager_config, manager, gives_up)?;
        let scheduler = here.scheduler(&scheduler_config, scheduler)?;
        manager.wait_until("the default service account is there", PATIENCE, || {
            Ok(here.asks(&["--namespace", "default", "get", "serviceaccount", "default"]))
        })?;
        process::say(format_args!("control plane on port {port} after {}", process::seconds(start.elapsed())));
        Ok(Self { servers: vec![scheduler, manager, api, store], pki, port, kubeconfig })
    }

    /// An error, if one of the servers has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        self.servers.iter_mut().try_for_each(Server::must_run)
    }
}

impl Start<'_> {
    fn etcd(&self, program: &Path, data: &Path) -> Result<Server> {
        let url = |port| format!("http://127.0.0.1:{port}");
        let (clients, peers) = (url(self.etcd), url(self.peers));
        let mut command = Command::new(program);
        command.args(["--name", "rig", "--unsafe-no-fsync", "--log-level", "warn", "--data-dir"]).arg(data);
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("rig={peers}")]);
        let mut server = Server::start("etcd", &command, self.logs)?;
        let port = self.etcd;
        server.wait_until("etcd listens", PATIENCE, || Ok(TcpStream::connect(("127.0.0.1", port)).is_ok()))?;
        Ok(server)
    }

    /// It reaches kubelets by their nodes' names, which only it resolves to this machine: `hosts` stands in the place of
    /// `/etc/hosts` in a mount namespace of its own.
    fn api_server(&self, hosts: &Path) -> Result<Server> {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "--", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
        command.arg(self.tools.path("kube-apiserver"));
        let file = |name: &str| self.pki.path(name).display().to_string();
        let audit = self.logs.join("audit-policy.json");
        fs::write(&audit, AUDIT).with_context(|| format!("write {}", audit.display()))?;
        let flags = [
            ("audit-policy-file", audit.display().to_string()),
            ("audit-log-path", self.logs.join("audit.log").display().to_string()),
            ("etcd-servers", format!("http://127.0.0.1:{}", self.etcd)),
            ("bind-address", "127.0.0.1".into()),
            ("secure-port", self.port.to_string()),
            ("advertise-address", HOST_IN_GUESTS.into()),
            ("endpoint-reconciler-type", "none".into()),
            ("service-cluster-ip-range", SERVICES.into()),
            ("authorization-mode", "Node,RBAC".into()),
            ("enable-admission-plugins", "NodeRestriction".into()),
            ("allow-privileged", "true".into()),
            ("client-ca-file", file("ca.crt")),
            ("tls-cert-file", file("apiserver.crt")),
            ("tls-private-key-file", file("apiserver.key")),
            ("kubelet-client-certificate", file("admin.crt")),
            ("kubelet-client-key", file("admin.key")),
            ("kubelet-preferred-address-types", "Hostname".into()),
            ("service-account-issuer", "https://rig.local".into()),
            ("service-account-key-file", file("sa.pub")),
            ("service-account-signing-key-file", file("sa.key")),
        ];
        command.args(flags.map(|(name, value)| format!("--{name}={value}")));
        let mut server = Server::start("kube-apiserver", &command, self.logs)?;
        server.wait_until("the API server is ready", PATIENCE, || Ok(self.asks(&["get", "--raw", "/readyz"])))?;
        Ok(server)
    }

    fn manager(&self, kubeconfig: &Path, port: u16, gives_up: GivesUp) -> Result<Server> {
        let mut command = self.client("kube-controller-manager", kubeconfig, port);
        match gives_up {
            GivesUp::AsUsual => {}
            GivesUp::Soon => {
                command.arg(format!("--node-monitor-grace-period={}s", SOON.as_secs()));
            }
            GivesUp::Never => {
                command.arg("--controllers=*,-node-lifecycle-controller");
            }
        }
        command.arg("--use-service-account-credentials=true");
        command.arg(format!("--service-account-private-key-file={}", self.pki.path("sa.key").display()));
        command.arg(format!("--root-ca-file={}", self.pki.path("ca.crt").display()));
        Server::start("kube-controller-manager", &command, self.logs)
    }

    fn scheduler(&self, kubeconfig: &Path, port: u16) -> Result<Server> {
        Server::start("kube-scheduler", &self.client("kube-scheduler", kubeconfig, port), self.logs)
    }

    /// What controller manager and scheduler have in common.
    fn client(&self, name: &str, kubeconfig: &Path, port: u16) -> Command {
        let mut command = Command::new(self.tools.path(name));
        command.args(["--leader-elect=false", "--bind-address=127.0.0.1"]).arg(format!("--secure-port={port}"));
        for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
            command.arg(format!("--{flag}={}", kubeconfig.display()));
        }
        command
    }

    /// Whether kubectl succeeds with these words.
    fn asks(&self, words: &[&str]) -> bool {
        let mut command = Command::new(self.tools.path("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig).args(["--request-timeout", "5s"]).args(words);
        command.output().is_ok_and(|output| output.status.success())
    }
}

/// `/etc/hosts` with the nodes as names of this machine, in a file.
fn hosts(directory: &Path, nodes: &[String]) -> Result<PathBuf> {
    let path = directory.join("hosts");
    let own = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let nodes: String = nodes.iter().map(|node| format!("127.0.0.1 {node}\n")).collect();
    fs::write(&path, format!("{own}\n{nodes}")).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
