//! The disk that all nodes boot from: containerd, runc, kubelet, images and a shell, as one ext4 made without mounting it;
//! and what each node has of its own, packed into its initramfs.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    node::Spec,
    pki::{HOST_IN_GUESTS, Pki, SERVICE_ADDRESS, kubeconfig},
};
use crate::{
    image::{layout::Content, rig},
    process,
};

/// Size of the disk; its file is sparse.
const DISK: &str = "3G";

/// Half of kubelet's default: a Lease is renewed each 5 s then, and tests wait less until one is stale.
const LEASE_SECONDS: u32 = 20;

/// Directories of the guest that its programs want to find.
const DIRECTORIES: [&str; 22] = [
    "bin",
    "sbin",
    "etc/cni/net.d",
    "etc/containerd",
    "etc/kubernetes/manifests",
    "opt/cni/bin",
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "root",
    "var/lib/containerd",
    "var/lib/kubelet",
    "var/log/pods",
    "mnt",
    "usr/bin",
    "usr/sbin",
    "lib64",
    "lib/x86_64-linux-gnu",
    "usr/libexec",
    "var/tmp",
];

/// Name in the guest, file below the unpacked packages. Libraries are those that the programs were linked with.
const FILES: [(&str, &str); 10] = [
    ("usr/bin/containerd", "usr/bin/containerd"),
    ("usr/bin/containerd-shim-runc-v2", "usr/bin/containerd-shim-runc-v2"),
    ("usr/bin/ctr", "usr/bin/ctr"),
    ("usr/sbin/runc", "usr/sbin/runc"),
    ("lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
    ("lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libc.so.6"),
    ("lib/x86_64-linux-gnu/libseccomp.so.2", "usr/lib/x86_64-linux-gnu/libseccomp.so.2"),
    ("opt/cni/bin/loopback", "usr/lib/cni/loopback"),
    ("opt/cni/bin/ptp", "usr/lib/cni/ptp"),
    ("opt/cni/bin/host-local", "usr/lib/cni/host-local"),
];

/// containerd without what a guest lacks: AppArmor, systemd.
const CONTAINERD: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "PAUSE"
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"#;

/// Small files of every node.
fn texts() -> [(&'static str, String); 8] {
    let network = json!({
        "cniVersion": "1.0.0", "name": "rig",
        "plugins": [{ "type": "ptp", "ipam": {
            "type": "host-local", "ranges": [[{ "subnet": "10.244.0.0/24" }]], "routes": [{ "dst": "0.0.0.0/0" }] } }],
    });
    [
        ("etc/containerd/config.toml", CONTAINERD.replace("PAUSE", rig::PAUSE)),
        ("etc/cni/net.d/10-rig.conflist", network.to_string()),
        ("etc/resolv.conf", "nameserver 10.0.2.3\n".to_owned()),
        ("etc/passwd", "root:x:0:0::/root:/bin/sh\n".to_owned()),
        ("etc/group", "root:x:0:\n".to_owned()),
        ("etc/os-release", "ID=rig\nNAME=rig\nPRETTY_NAME=\"detector test guest\"\n".to_owned()),
        ("etc/hosts", "127.0.0.1 localhost\n".to_owned()),
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n".to_owned()),
    ]
}

/// What goes onto the disk.
pub(crate) struct Parts<'a> {
    /// Root of the unpacked Debian packages.
    pub(crate) packages: &'a Path,
    /// The program kubelet.
    pub(crate) kubelet: &'a Path,
    /// `provoke`, also for use outside of containers.
    pub(crate) provoke: &'a Path,
    /// Archive of images.
    pub(crate) images: &'a Path,
}

/// Makes the disk in `directory` and gives its path.
pub(crate) fn make_disk(directory: &Path, parts: &Parts<'_>) -> Result<PathBuf> {
    let root = directory.join("root");
    for name in DIRECTORIES {
        fs::create_dir_all(root.join(name)).with_context(|| format!("make {name} for the nodes' disk"))?;
    }
    let copy = |from: &Path, name: &str| {
        fs::copy(from, root.join(name)).map(drop).with_context(|| format!("put {} onto the disk", from.display()))
    };
    for (name, file) in FILES {
        copy(&parts.packages.join(file), name)?;
    }
    copy(parts.kubelet, "usr/bin/kubelet")?;
    copy(parts.provoke, "usr/bin/provoke")?;
    copy(parts.images, "images.tar")?;
    for (name, content) in rig::applets(&parts.packages.join("bin/busybox"), "bin")? {
        match content {
            Content::Program(file) => copy(&file, &name)?,
            Content::Link(target) => symlink(target, root.join(&name)).with_context(|| format!("link {name}"))?,
            Content::Directory => {}
        }
    }
    for (name, text) in texts() {
        fs::write(root.join(name), text).with_context(|| format!("write {name} for the nodes' disk"))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))
        .context("open /tmp of the nodes' disk")?;
    let disk = directory.join("root.ext4");
    // With a journal: a machine that dies comes back with its disk.
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-J", "size=16", "-m", "0", "-E", "root_owner=0:0,lazy_itable_init=1", "-d"]);
    process::capture(command.arg(&root).arg(&disk).arg(DISK), "make the nodes' disk")?;
    fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    Ok(disk)
}

/// Writes what one node has of its own into `directory`, and gives each file: name below `/` of the guest, path here.
pub(crate) fn own_files(directory: &Path, pki: &Pki, api_port: u16, spec: &Spec) -> Result<Vec<(String, PathBuf)>> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let name = &spec.name;
    let identity = format!("node-{name}");
    pki.client(&identity, &format!("system:node:{name}"), Some("system:nodes"))?;
    let at = |file: &str| PathBuf::from(format!("/etc/kubernetes/{file}"));
    let server = format!("https://{HOST_IN_GUESTS}:{api_port}");
    let facts =
        json!({ "api_port": api_port, "service_address": SERVICE_ADDRESS, "command_port": super::node::COMMAND_PORT });
    let texts = [
        ("etc/hostname", format!("{name}\n")),
        ("etc/rig.json", facts.to_string()),
        ("etc/kubernetes/kubelet.json", kubelet(spec).to_string()),
        ("etc/kubernetes/kubeconfig", kubeconfig(&server, &at("ca.crt"), &at("node.crt"), &at("node.key"))),
    ];
    let mut files = Vec::new();
    for (name, text) in texts {
        let path = directory.join(name.replace('/', "-"));
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        files.push((name.to_owned(), path));
    }
    for (name, file) in
        [("ca.crt", "ca.crt".to_owned()), ("node.crt", identity.clone() + ".crt"), ("node.key", identity + ".key")]
    {
        files.push((format!("etc/kubernetes/{name}"), pki.path(&file)));
    }
    Ok(files)
}

/// Configuration of a node's kubelet (kubelet.config.k8s.io/v1beta1).
fn kubelet(spec: &Spec) -> Value {
    // Without a limit on all pods together, a machine may run out of memory before its pods do.
    let enforced = if spec.limits_all_pods { "pods" } else { "none" };
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "port": spec.kubelet_port,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "singleProcessOOMKill": spec.single_process_oom_kill,
        "enforceNodeAllocatable": [enforced],
        "authentication": {
            "anonymous": { "enabled": false }, "webhook": { "enabled": true },
            "x509": { "clientCAFile": "/etc/kubernetes/ca.crt" },
        },
        "authorization": { "mode": "Webhook" },
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "resolvConf": "/etc/resolv.conf",
        "staticPodPath": "/etc/kubernetes/manifests",
        "fileCheckFrequency": "1s",
        "syncFrequency": "5s",
        "nodeStatusUpdateFrequency": "2s",
        "nodeStatusReportFrequency": "30s",
        "nodeLeaseDurationSeconds": LEASE_SECONDS,
        "runtimeRequestTimeout": "10m",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        // None: what runs out of memory here is to meet the kernel, whoever is faster.
        "evictionHard": { "memory.available": "0%" },
    })
}
