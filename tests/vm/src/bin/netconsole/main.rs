//! `netconsole`: process 1 of a guest whose kernel must be heard. A network namespace of the guest is gateway and
//! receivers at once, behind two network cards that QEMU joins; at the end a real panic goes out by a third card, to the
//! host.
//!
//! What the host reads: `CASE <name> <what> ok|FAIL <reason>`, and `VERDICT passed=<n> failed=<n>` before the panic.

mod ears;
mod machine;
mod sensor;

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use ears::Ears;
use sensor::{Sensor, Standing, TARGETS};

/// How long a change may take to be followed: the kernel gives up a neighbour after some 10 s of silence, and guests are
/// slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A target of somebody else.
const FOREIGN: &str = "somebody-elses";

/// MAC addresses of the gateway, before and after.
const FIRST_MAC: &str = "52:54:00:00:01:02";
const SECOND_MAC: &str = "52:54:00:00:01:99";

fn main() {
    let outcome = machine::prepare().and_then(|()| cases());
    match outcome {
        Ok(()) => machine::panic(),
        Err(cause) => println!("GUEST {cause:#}"),
    }
    machine::power_off();
}

/// Runs all cases, and leaves a sensor that has the kernel speak to the host.
fn cases() -> Result<()> {
    println!("GUEST kernel {}", rustix::system::uname().release().to_string_lossy());
    let host = machine::parameter("detector.panic_port=").context("the host named no port")?;
    let ears = Ears::open(FIRST_MAC)?;
    let mut report = Report::default();

    let mut sensor = Sensor::start(&["10.78.0.1:6666", "10.78.0.2:6666"])?;
    report.case("targets", made());
    fs::create_dir(format!("{TARGETS}/{FOREIGN}")).context("making somebody else's target")?;
    report.case("self-test", sensor.wait_for_metric("detector_netconsole_self_test_receivers{result=\"heard\"} 2"));
    report.case("identity", identity(&ears));
    report.case("gateway", gateway(&ears));
    sensor.stop()?;
    sensor = Sensor::start(&["10.78.0.2:6666", "10.78.0.3:6666"])?;
    report.case("receivers", receivers(&sensor));
    report.case("address", address(&ears));
    report.case("rename", rename(&ears));
    report.case("bridge", bridge(&ears));
    report.case("foreign", foreign());
    sensor.stop()?;
    ears.take_ipv6()?;
    for words in ["addr add fd00:77::2/64 dev br0", "route add fd00:78::/64 via fd00:77::1 dev br0"] {
        machine::ip(words)?;
    }
    sensor = Sensor::start(&["\"[fd00:78::1]:6666\""])?;
    report.case("ipv6", ipv6(&sensor, &ears));
    sensor.stop()?;
    sensor = Sensor::start(&[&format!("10.0.2.2:{host}")])?;
    report.case("host", reaches("10.0.2.2"));
    // It is killed: the kernel speaks on by itself.
    sensor.kill()?;
    report.verdict();
    Ok(())
}

#[derive(Default)]
struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    fn case(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("CASE {name} netconsole ok");
            }
            Err(cause) => {
                self.failed += 1;
                println!("CASE {name} netconsole FAIL {}", format!("{cause:#}").replace('\n', " "));
            }
        }
    }

    fn verdict(&self) {
        println!("VERDICT passed={} failed={}", self.passed, self.failed);
    }
}

/// Waits until `right` holds of our targets; each look is shown to `each`.
fn wait(what: &str, mut each: impl FnMut(&[Standing]), right: impl Fn(&[Standing]) -> bool) -> Result<()> {
    let start = Instant::now();
    loop {
        let standing = sensor::standing()?;
        each(&standing);
        if right(&standing) {
            println!("GUEST {what} after {:.1} s", start.elapsed().as_secs_f64());
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}: {standing:?}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Whether just these receivers have a target, all enabled and by this MAC.
fn just(standing: &[Standing], receivers: &[&str], mac: &str) -> bool {
    let led = |receiver: &&str| standing.iter().any(|one| one.enabled && one.remote == **receiver && one.mac == mac);
    standing.len() == receivers.len() && receivers.iter().all(led)
}

fn made() -> Result<()> {
    wait("two targets", |_| (), |all| just(all, &["10.78.0.1", "10.78.0.2"], FIRST_MAC))
}

/// Where the kernel knows userdata, a line tells who spoke.
fn identity(ears: &Ears) -> Result<()> {
    let userdata = sensor::standing()?.iter().any(|one| one.userdata);
    let nonce = "the-line-of-the-case-identity";
    let told = ears.hear(nonce, PATIENCE)?;
    ensure!(told.contains(nonce), "{told:?}");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let secret = fs::read_to_string("/run/detector/netconsole-secret")?;
    let secret = secret.lines().nth(1).context("there is no secret")?;
    for entry in [
        "detector_node=guest".to_owned(),
        format!("detector_boot={}", boot.trim()),
        format!("detector_secret={secret}"),
    ] {
        ensure!(told.contains(&entry) == userdata, "{entry} in {told:?}");
    }
    Ok(())
}

/// The gateway gets another MAC, as after a failover without a word. Both targets follow, and never are fewer than two.
fn gateway(ears: &Ears) -> Result<()> {
    ears.change_mac(SECOND_MAC)?;
    let mut fewest = usize::MAX;
    let count = |all: &[Standing]| fewest = fewest.min(all.iter().filter(|one| one.enabled).count());
    wait("the gateway's new MAC", count, |all| just(all, &["10.78.0.1", "10.78.0.2"], SECOND_MAC))?;
    ensure!(fewest >= 2, "for a moment there were {fewest} targets");
    ears.hear("the-line-after-the-change", PATIENCE).map(drop)
}

fn receivers(sensor: &Sensor) -> Result<()> {
    let mut fewest = usize::MAX;
    let count = |all: &[Standing]| fewest = fewest.min(all.iter().filter(|one| one.enabled).count());
    wait("the new receiver", count, |all| just(all, &["10.78.0.2", "10.78.0.3"], SECOND_MAC))?;
    ensure!(fewest >= 2, "for a moment there were {fewest} targets");
    sensor.wait_for_metric("detector_netconsole_self_test_receivers{result=\"heard\"} 2")
}

/// The node gets another address.
fn address(ears: &Ears) -> Result<()> {
    for words in ["addr del 10.77.0.2/24 dev eth1", "addr add 10.77.0.9/24 dev eth1"] {
        machine::ip(words)?;
    }
    route_by("eth1")?;
    wait(
        "the node's new address",
        |_| (),
        |all| led_by(all, "eth1") && all.iter().all(|one| one.local == "10.77.0.9"),
    )?;
    ears.hear("the-line-from-the-new-address", PATIENCE).map(drop)
}

/// The card gets another name, for which it has to be down.
fn rename(ears: &Ears) -> Result<()> {
    for words in ["link set eth1 down", "link set eth1 name uplink", "link set uplink up"] {
        machine::ip(words)?;
    }
    route_by("uplink")?;
    wait("the card's new name", |_| (), |all| led_by(all, "uplink"))?;
    ears.hear("the-line-by-the-new-name", PATIENCE).map(drop)
}

/// The card becomes part of a bridge, which takes its address over: the kernel stops speaking by a card that joins a master
/// (`netconsole_netdev_event`, `drivers/net/netconsole.c`).
fn bridge(ears: &Ears) -> Result<()> {
    for words in [
        "link add br0 type bridge",
        "link set br0 up",
        "addr del 10.77.0.9/24 dev uplink",
        "link set uplink master br0",
        "addr add 10.77.0.9/24 dev br0",
    ] {
        machine::ip(words)?;
    }
    route_by("br0")?;
    wait("the bridge", |_| (), |all| led_by(all, "br0"))?;
    ears.hear("the-line-over-the-bridge", PATIENCE).map(drop)
}

/// The way to the receivers leads over this device alone.
fn route_by(device: &str) -> Result<()> {
    // It may be gone with an address or device.
    machine::ip("route del 10.78.0.0/24").ok();
    machine::ip(&format!("route add 10.78.0.0/24 via 10.77.0.1 dev {device}"))
}

/// Whether both targets are enabled, and speak by this device.
fn led_by(standing: &[Standing], device: &str) -> bool {
    just(standing, &["10.78.0.2", "10.78.0.3"], SECOND_MAC) && standing.iter().all(|one| one.device == device)
}

fn ipv6(sensor: &Sensor, ears: &Ears) -> Result<()> {
    wait("a target by IPv6", |_| (), |all| just(all, &["fd00:78::1"], SECOND_MAC))?;
    ears.hear("the-line-by-ipv6", PATIENCE)?;
    sensor.wait_for_metric("detector_netconsole_self_test_receivers{result=\"heard\"} 1")
}

fn foreign() -> Result<()> {
    ensure!(fs::metadata(format!("{TARGETS}/{FOREIGN}"))?.is_dir());
    let enabled = fs::read_to_string(format!("{TARGETS}/{FOREIGN}/enabled"))?;
    ensure!(enabled.trim() == "0", "it was enabled");
    Ok(())
}

fn reaches(receiver: &str) -> Result<()> {
    wait("the host", |_| (), |all| all.len() == 1 && all.iter().all(|one| one.enabled && one.remote == receiver))
}
