//! Lies: nobody is harmed, memory stays bounded, and the counters tell of them.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use detector_cluster_tests::{
    Metrics,
    controller::{Effect, Fleet, Incident, Recorder, Recording, SECRET, Stage, policy, send},
};
use serde_json::json;

/// Pods of a node that somebody lies about.
const PODS: usize = 3;

/// Senders that are nobody's, and datagrams of each.
const SENDERS: u32 = 10_000;
const EACH: u32 = 10;

/// Memory that a flood may cost, in bytes: what is remembered of `netconsole.sources` senders, and buffers.
const GROWTH: u64 = 8 << 20;

/// An address that is no Node's.
const NOBODY: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);

const DATAGRAMS: &str = "detector_receiver_datagrams_total";
const RECORDS: &str = "detector_receiver_records_total";
const EVIDENCE: &str = "detector_receiver_evidence_total";
const FRAMES: &str = "detector_receiver_frames_refused_total";

fn records(metrics: &Metrics, sender: &str) -> f64 {
    metrics.sum(RECORDS, &[("sender", sender)])
}

/// Whatever destroys.
const DESTRUCTIVE: [Effect; 5] =
    [Effect::PodDeleting, Effect::PodFailed, Effect::PodGone, Effect::Tainted, Effect::NodeGone];

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_nobody_is_counted_and_is_evidence_of_nothing() -> Result<()> {
    let stage = Stage::set("nobody", policy(&json!({}))).await?;
    let fleet = Fleet::make(&stage.rig, &stage.namespace.name, 4).await?;
    let node = &fleet.members[0];
    let replica = stage.start().await?;
    let recorder = Recorder::start(&stage.rig).await?;
    let (plain, signed) = (Recording::named("sysrq-6.1")?, Recording::named("oom-6.12")?.of(&node.name, &node.boot));
    send(NOBODY, &[replica.netconsole], &plain.datagrams)?;
    send(NOBODY, &[replica.netconsole], &signed.with_secret(&SECRET.replace('0', "f")).datagrams)?;
    let named = format!("4,1,5000000,-;Kernel panic - not syncing: x\n detector_node={}\n", node.name);
    send(NOBODY, &[replica.netconsole], &[named])?;
    let (unknown, wrong) = (plain.datagrams.len() as f64, signed.datagrams.len() as f64);
    let all_counted = |metrics: &Metrics| {
        records(metrics, "unknown") == unknown
            && records(metrics, "wrong_secret") == wrong
            && records(metrics, "contradicted") == 1.0
    };
    let metrics = replica.wait_for("each lie is counted", all_counted).await?;
    assert_eq!(metrics.sum(EVIDENCE, &[]), 0.0);
    assert_eq!(metrics.sum("detector_receiver_voices", &[]), 0.0, "nothing is remembered of nobody");
    assert!(stage.incidents.all().await?.is_empty());
    assert!(recorder.of(&stage.namespace.name)?.is_empty());
    replica.stop().await?;
    stage.clear(fleet).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_name_of_a_living_node_is_a_false_alarm() -> Result<()> {
    let stage = Stage::set("alive", policy(&json!({}))).await?;
    let fleet = Fleet::make(&stage.rig, &stage.namespace.name, 4).await?;
    let [by_address, by_secret, ..] = fleet.members.as_slice() else { anyhow::bail!("there are nodes") };
    for node in [by_address, by_secret] {
        fleet.pods(&stage.namespace.name, node, PODS).await?;
    }
    let recorder = Recorder::start(&stage.rig).await?;
    let replica = stage.start().await?;
    let words = Recording::named("oom-6.12")?;
    send(by_address.address, &[replica.netconsole], &words.unsigned().datagrams)?;
    // Whoever could read the secret on its way.
    send(NOBODY, &[replica.netconsole], &words.of(&by_secret.name, &by_secret.boot).datagrams)?;
    for node in [by_address, by_secret] {
        let closed = |incident: &Incident| incident.text("phase") == "Closed";
        let incident = stage.incidents.until(&node.name, "it is closed", closed).await?;
        assert_eq!(incident.text("cause"), "FalseAlarm", "{incident:#?}");
        println!("{}: {:?}; {}", node.name, incident.steps(), incident.text("message"));
    }
    let effects = recorder.of(&by_address.name)?;
    ensure!(effects.is_empty(), "one weak witness moves nothing: {effects:?}");
    // Who has the secret is believed until the Lease is seen to be renewed; then all is taken back.
    recorder.until(&by_secret.name, Effect::Uncordoned, 1).await?;
    recorder.until(&by_secret.name, Effect::PodCleared, PODS).await?;
    let all = recorder.counts(&stage.namespace.name)?;
    for effect in DESTRUCTIVE {
        ensure!(!all.contains_key(&effect), "{effect:?} of a living node: {all:?}");
    }
    for (effect, objects) in
        [(Effect::Cordoned, 1), (Effect::Uncordoned, 1), (Effect::PodTold, PODS), (Effect::PodCleared, PODS)]
    {
        assert_eq!(all.get(&effect), Some(&(1, objects)), "{effect:?}: {all:?}");
    }
    replica.stop().await?;
    stage.clear(fleet).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_ten_thousand_senders_costs_little_memory_and_drowns_out_nobody() -> Result<()> {
    let stage = Stage::set("flood", policy(&json!({ "mode": "dryRun" }))).await?;
    let fleet = Fleet::make(&stage.rig, &stage.namespace.name, 4).await?;
    let node = &fleet.members[0];
    let replica = stage.start().await?;
    let (before, port) = (replica.memory()?, replica.netconsole);
    let words = Recording::named("oom-6.12")?.of(&node.name, &node.boot);
    let (address, real) = (node.address, words.datagrams.clone());
    let flood = std::thread::spawn(move || -> Result<()> {
        let lies: Vec<_> =
            (0..EACH).map(|line| format!("0,{line},{},-;Kernel panic - not syncing: x\n", 5_000_000 + line)).collect();
        (0..SENDERS).try_for_each(|sender| {
            // In the middle of it, a real one.
            if sender == SENDERS / 2 {
                send(address, &[port], &real)?;
            }
            send(Ipv4Addr::from(0x7F80_0001 + sender), &[port], &lies)
        })
    });
    stage.incidents.until(&node.name, "it is told", |incident| incident.has("Panic")).await?;
    flood.join().map_err(|_| anyhow::anyhow!("the flood ended in a panic"))??;
    let all = f64::from(SENDERS * EACH) + words.datagrams.len() as f64;
    let metrics = replica.wait_for("each datagram is counted", |metrics| metrics.sum(DATAGRAMS, &[]) >= all).await?;
    let results: Vec<_> =
        metrics.find(DATAGRAMS, &[]).map(|sample| (sample.labels[0].1.clone(), sample.value)).collect();
    assert_eq!(metrics.sum(DATAGRAMS, &[]), all, "{results:?}");
    let after = replica.memory()?;
    println!("{before} bytes before, {after} after; {results:?}");
    ensure!(after < before + GROWTH, "{before} bytes before the flood, {after} after it");
    assert_eq!(metrics.sum("detector_receiver_voices", &[]), 1.0, "only the Node's words are remembered");
    assert_eq!(stage.incidents.all().await?.len(), 1);
    replica.stop().await?;
    stage.clear(fleet).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_and_mangled_datagrams_of_a_living_node_move_nothing() -> Result<()> {
    let stage = Stage::set("mangled", policy(&json!({}))).await?;
    let fleet = Fleet::make(&stage.rig, &stage.namespace.name, 4).await?;
    let node = &fleet.members[0];
    fleet.pods(&stage.namespace.name, node, 2).await?;
    let recorder = Recorder::start(&stage.rig).await?;
    let replica = stage.start().await?;
    let before = replica.memory()?;
    // These first: of what follows some is more than one sender may send.
    let edges: [&[u8]; 4] =
        [b"", b"1,2,3,-,ncfrag=9/3;x", b"1,2,3,-,ncfrag=0/4294967295;x", b"18446744073709551616,1,1,-;x"];
    send(node.address, &[replica.netconsole], &edges)?;
    let refused = |metrics: &Metrics| metrics.sum(FRAMES, &[]) == edges.len() as f64;
    replica.wait_for("frames that no kernel sends are told, each of them", refused).await?;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut sent = edges.len();
    for name in ["init-fragments-6.12", "oom-6.12", "sysrq-6.12", "init-basic-6.12"] {
        let recording = Recording::named(name)?;
        // A fragment that is told anew would be none; it stays in the name of another node, and is refused as such.
        let own = if name.contains("fragments") { recording } else { recording.of(&node.name, &node.boot) };
        for datagram in own.datagrams {
            let broken: Vec<_> = (0..20).map(|_| random.broken(&datagram)).collect();
            send(node.address, &[replica.netconsole], &broken)?;
            sent += broken.len();
        }
    }
    let counted = |metrics: &Metrics| metrics.sum(DATAGRAMS, &[]) >= sent as f64;
    replica.wait_for("each is counted", counted).await?;
    let growth = replica.memory()?.saturating_sub(before);
    ensure!(growth < GROWTH, "{growth} bytes for {sent} broken datagrams");
    // What still looks like a panic is a weak witness, and the node lives.
    let heard = |metrics: &Metrics| metrics.sum(EVIDENCE, &[]) > 0.0;
    replica.wait_for("some of it still looks like a panic", heard).await?;
    stage.incidents.until_all("there is an incident", |all| !all.is_empty()).await?;
    let closed = |all: &[Incident]| all.iter().all(|incident| incident.text("phase") == "Closed");
    let all = stage.incidents.until_all("all are closed", closed).await?;
    for incident in &all {
        assert_eq!((incident.text("cause"), incident.steps().len()), ("FalseAlarm", 0), "{incident:#?}");
    }
    ensure!(all.iter().all(|incident| incident.spec["node"] == *node.name), "{all:#?}");
    println!("{} false alarms after {sent} broken datagrams", all.len());
    let effects = recorder.of(&stage.namespace.name)?;
    ensure!(effects.is_empty(), "{effects:?}");
    replica.stop().await?;
    stage.clear(fleet).await
}

/// Numbers that are the same in each run (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap_or(0)
    }

    /// Cut somewhere, and some of its bytes others. The secret at its end is never whole.
    fn broken(&mut self, datagram: &[u8]) -> Vec<u8> {
        let mut bytes = datagram[..self.below(datagram.len().saturating_sub(1))].to_vec();
        for _ in 0..self.below(6) {
            let at = self.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = u8::try_from(self.below(256)).unwrap_or(0);
            }
        }
        bytes
    }
}
