//! A cluster of three Nodes whose datagrams a test makes, with a clock of its own.

use core::net::SocketAddr;
use std::time::Duration;

use super::Hearing;
use crate::{
    clock::WallClock,
    config::controller::Netconsole,
    contract::{
        incident::Confidence,
        metric::{
            Metric,
            controller::{DATAGRAMS, DatagramResult, EVIDENCE, LINES, LineKind, RECORDS, SenderResult, Telling},
        },
        netconsole::secret_sha256,
    },
    controller::{
        decode::Findings,
        incident::{Evidence, Fact, NodeFacts},
        source::{Datagram, gate::Limits},
    },
};

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../../../../tests/fixtures/netconsole/", $name, ".bin"))
    };
}

pub(super) const SYSRQ: &[u8] = recorded!("sysrq-6.12");
pub(super) const FRAGMENTS: &[u8] = recorded!("init-fragments-6.12");
pub(super) const BASIC: &[u8] = recorded!("init-basic-6.12");
pub(super) const WITHOUT_USERDATA: &[u8] = recorded!("sysrq-6.1");

pub(super) const SECRET: &str = "00112233445566778899aabbccddeeff";
pub(super) const BOOT: &str = "7405bdd1-cf99-4033-986e-0f3408a2c206";
pub(super) const A: &str = "10.0.0.1:6665";
pub(super) const A_TOO: &str = "[fd00::1]:6665";
pub(super) const B: &str = "10.0.0.2:6665";
pub(super) const NOBODY: &str = "192.0.2.9:6665";
pub(super) const PANIC: &str = "Kernel panic - not syncing: Fatal exception";

/// Datagrams of a recording: each after its length, two bytes, little endian.
pub(super) fn datagrams(mut recording: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some((length, rest)) = recording.split_first_chunk::<2>() {
        let (datagram, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)));
        all.push(datagram);
        recording = rest;
    }
    all
}

/// A receiver on `node-own` in a cluster of `node-a`, which signs, and `node-b`, which does not; and its clock.
pub(super) struct Rig {
    pub(super) hearing: Hearing,
    pub(super) now: Duration,
    pub(super) told: Vec<Evidence>,
}

pub(super) fn node(name: &str, addresses: &[&str], secret: Option<&str>) -> NodeFacts {
    let ip = |text: &&str| text.parse::<SocketAddr>().expect("an address").ip();
    NodeFacts {
        name: name.to_owned(),
        addresses: addresses.iter().map(ip).collect(),
        secret_sha256: secret.map(secret_sha256),
        ..NodeFacts::default()
    }
}

pub(super) fn rig() -> Rig {
    let mut hearing =
        Hearing::new(Limits::from(&Netconsole::default()), Some("node-own".to_owned()), WallClock::with_offset(0));
    hearing.upsert_node(&node("node-a", &[A, A_TOO], Some(SECRET)));
    hearing.upsert_node(&node("node-b", &[B], None));
    hearing.upsert_node(&node("node-own", &["10.0.0.3:1"], Some(SECRET)));
    Rig { hearing, now: Duration::from_secs(1000), told: Vec::new() }
}

impl Rig {
    pub(super) fn hear(&mut self, from: &str, bytes: &[u8]) {
        let from = from.parse().expect("an address");
        self.hearing.hear(Datagram { from, at: self.now, bytes }, &mut self.told);
    }

    /// One after the other, as a dying kernel sends them.
    pub(super) fn hear_all(&mut self, from: &str, recording: &[u8]) {
        for bytes in datagrams(recording) {
            self.wait(Duration::from_micros(20));
            self.hear(from, bytes);
        }
    }

    /// Time goes by, from one deadline to the next.
    pub(super) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.hearing.due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.hearing.tick(self.now, &mut self.told);
            assert!(self.hearing.due().is_none_or(|next| next > due), "a deadline does not pass");
        }
        self.now = until;
    }

    pub(super) fn findings(&self) -> Vec<(&str, Confidence, &Findings)> {
        let spoke = |evidence: &Evidence| matches!(evidence.fact, Fact::Spoke { .. });
        assert!(self.told.iter().all(spoke));
        let parts = self.told.iter().filter_map(|evidence| match &evidence.fact {
            Fact::Spoke { findings, author, .. } => Some((evidence.node.as_str(), *author, findings)),
            _ => None,
        });
        parts.collect()
    }

    pub(super) fn count<W: Copy>(&self, metric: &Metric, word: W, of: impl Fn(W) -> &'static str) -> u64 {
        let samples = self.hearing.samples();
        let word = of(word);
        let found = samples.iter().find(|one| one.metric.name == metric.name && one.word == Some(word));
        found.expect("a sample").value
    }

    pub(super) fn datagrams(&self, result: DatagramResult) -> u64 {
        self.count(&DATAGRAMS, result, DatagramResult::word)
    }

    pub(super) fn records(&self, result: SenderResult) -> u64 {
        self.count(&RECORDS, result, SenderResult::word)
    }

    pub(super) fn lines(&self, kind: LineKind) -> u64 {
        self.count(&LINES, kind, LineKind::word)
    }

    pub(super) fn evidence(&self, why: Telling) -> u64 {
        self.count(&EVIDENCE, why, Telling::word)
    }
}

/// A record without userdata.
pub(super) fn record(prefix: u32, sequence: u64, text: &str) -> Vec<u8> {
    format!("{prefix},{sequence},{},-;{text}\n", 5_000_000 + sequence * 1000).into_bytes()
}

pub(super) fn signed(sequence: u64, text: &str, node: &str, boot: &str, secret: &str) -> Vec<u8> {
    let mut bytes = record(4, sequence, text);
    bytes.extend_from_slice(
        format!(" detector_node={node}\n detector_boot={boot}\n detector_secret={secret}\n").as_bytes(),
    );
    bytes
}

pub(super) fn by_a(sequence: u64, text: &str) -> Vec<u8> {
    signed(sequence, text, "node-a", BOOT, SECRET)
}

pub(super) fn told_log(evidence: &Evidence) -> &str {
    match &evidence.fact {
        Fact::Spoke { log: text, .. } => text,
        _ => "",
    }
}
