//! What runs on a node: network, containerd with its images, kubelet, and the rig's two servers.

use std::{
    fs::{self, File},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    command,
    relay::{self, Relay},
};

/// What the host tells this node (`xtask/src/cluster/guest.rs`).
const FACTS: &str = "/etc/rig.json";

/// The address that QEMU's user networking gives to every guest, and its way out.
const ADDRESS: &str = "10.0.2.15";
const GATEWAY: &str = "10.0.2.2";

/// Archive of images, in the root file system.
const IMAGES: &str = "/images.tar";

/// How long containerd may take to answer, and kubelet to be healthy.
const PATIENCE: Duration = Duration::from_secs(180);

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Where kubelet tells whether it is healthy.
const KUBELET_HEALTH: &str = "127.0.0.1:10248";

#[derive(Deserialize)]
struct Facts {
    /// Port of the API server on the host.
    api_port: u16,
    /// Address at which pods look for the API server.
    service_address: String,
    /// Port for commands.
    command_port: u16,
}

/// Starts everything and watches over it. Does not end while the node lives.
pub(crate) fn run() -> Result<()> {
    let facts = fs::read(FACTS).with_context(|| format!("reading {FACTS}"))?;
    let facts: Facts = serde_json::from_slice(&facts).with_context(|| format!("understanding {FACTS}"))?;
    network(&facts.service_address)?;
    let relay = Relay::new(format!("{GATEWAY}:{}", facts.api_port));
    relay::serve(&facts.service_address, &relay)?;
    command::serve(facts.command_port, relay)?;
    let mut containerd = start("containerd", &["--log-level", "warn"])?;
    wait_until("containerd answers", &mut containerd, || ask("ctr", &["version"]))?;
    say("containerd answers");
    run_command("ctr", &["--namespace", "k8s.io", "images", "import", IMAGES])?;
    // A node that loses its power must find them whole.
    rustix::fs::sync();
    say("images are imported");
    let name = fs::read_to_string("/etc/hostname")?;
    let mut kubelet = start(
        "kubelet",
        &[
            "--config=/etc/kubernetes/kubelet.json",
            "--kubeconfig=/etc/kubernetes/kubeconfig",
            &format!("--hostname-override={}", name.trim()),
            &format!("--node-ip={ADDRESS}"),
        ],
    )?;
    wait_until("kubelet is healthy", &mut kubelet, || TcpStream::connect(KUBELET_HEALTH).is_ok())?;
    // It does not sync the certificate that it makes at its first start, and starts no more with an empty one.
    rustix::fs::sync();
    say("kubelet is healthy");
    let containerd = thread::spawn(move || containerd.wait());
    let status = kubelet.wait().context("waiting for kubelet")?;
    drop(containerd);
    bail!("kubelet ended with {status}:\n{}", last_words("kubelet"))
}

/// Tells the host's console, with the time since the guest's start.
fn say(what: &str) {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    println!("NODE {} s: {what}", uptime.split_whitespace().next().unwrap_or("?"));
}

fn network(service_address: &str) -> Result<()> {
    let own = format!("{ADDRESS}/24");
    let service = format!("{service_address}/32");
    let words: [&[&str]; 5] = [
        &["link", "set", "lo", "up"],
        &["link", "set", "eth0", "up"],
        &["addr", "add", &own, "dev", "eth0"],
        &["route", "add", "default", "via", GATEWAY],
        &["addr", "add", &service, "dev", "lo"],
    ];
    words.into_iter().try_for_each(|words| run_command("ip", words))
}

/// Starts a daemon with its output in a file of `/var/log`.
fn start(name: &str, words: &[&str]) -> Result<Child> {
    let log = File::create(format!("/var/log/{name}.log")).with_context(|| format!("making the log of {name}"))?;
    let both = log.try_clone()?;
    let mut command = Command::new(name);
    command.args(words).stdin(Stdio::null()).stdout(log).stderr(both);
    command.spawn().with_context(|| format!("starting {name}"))
}

fn ask(program: &str, words: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(words).output().is_ok_and(|output| output.status.success())
}

fn run_command(program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program).args(words).output().with_context(|| format!("running {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program} {} ended with {}: {said}", words.join(" "), output.status);
    Ok(())
}

fn wait_until(what: &str, daemon: &mut Child, is_done: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !is_done() {
        if let Some(status) = daemon.try_wait()? {
            bail!("it ended with {status} before {what}:\n{}\n{}", last_words("containerd"), last_words("kubelet"));
        }
        ensure!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        sleep(LOOK_INTERVAL);
    }
    Ok(())
}

/// The end of a daemon's log.
fn last_words(name: &str) -> String {
    let path = format!("/var/log/{name}.log");
    if !Path::new(&path).exists() {
        return String::new();
    }
    let text = fs::read(&path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
