//! How fast the controller decodes what dying kernels say: datagrams of recorded panics through frame, stream and findings;
//! and the same with all that stands before and behind it: rates, senders, voices, evidence.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use detector::{
    clock::WallClock,
    contract::netconsole::secret_sha256,
    controller::{
        decode::{
            boot::Boot,
            frame,
            reassemble::{Heard, Stream},
        },
        incident::{Evidence, NodeFacts, hearing::Hearing},
        source::{Datagram, gate::Limits},
    },
};

/// Nodes of the cluster, and how many of them die at once.
const NODES: usize = 5_000;
const DYING: usize = 100;

/// The secret of the recorded kernels.
const SECRET: &str = "00112233445566778899aabbccddeeff";

/// Recordings, and what they show. With the second each record comes in two fragments.
const RECORDINGS: [(&str, &[u8]); 2] = [
    ("panic", include_bytes!("../../tests/fixtures/netconsole/oom-6.12.bin")),
    ("panic_in_fragments", include_bytes!("../../tests/fixtures/netconsole/init-fragments-6.12.bin")),
];

/// Datagrams of a recording: each after its length, two bytes, little endian.
fn datagrams(mut recording: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some((length, rest)) = recording.split_first_chunk::<2>() {
        let (datagram, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)));
        all.push(datagram);
        recording = rest;
    }
    all
}

/// One machine dies: from its first datagram to findings and the text of its log.
fn die(datagrams: &[&[u8]], heard: &mut Vec<Heard>) -> (Boot, usize) {
    let (mut stream, mut boot) = (Stream::new(), Boot::new());
    for (number, datagram) in (0_u64..).zip(datagrams) {
        let at = Duration::from_secs(1000) + Duration::from_micros(number * 10);
        let frame = frame::parse(black_box(datagram)).expect("recorded");
        stream.push(frame, at, heard);
    }
    stream.end(heard);
    for heard in heard.drain(..) {
        if let Heard::Line(line) = heard {
            boot.push(&line);
        }
    }
    let length = boot.excerpt().text().len();
    (boot, length)
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("controller/decode");
    for (name, recording) in RECORDINGS {
        let datagrams = datagrams(recording);
        let mut heard = Vec::new();
        assert!(die(&datagrams, &mut heard).0.findings().panic.is_some(), "{name} is a panic");
        group.throughput(Throughput::Elements(datagrams.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| die(&datagrams, &mut heard)));
    }
    group.finish();
}

fn address(number: usize) -> SocketAddr {
    let number = u32::try_from(number).expect("a small number");
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0A00_0001 + number)), 6665)
}

fn name(number: usize) -> String {
    format!("node-{number:04}")
}

/// A receiver in a cluster whose nodes all sign, and that is never too fast for it.
fn hearing() -> Hearing {
    let limits =
        Limits { sources: 16_384, per_source: 1_000_000, burst: 1_000_000, guaranteed: 500, total: 100_000_000 };
    let mut hearing = Hearing::new(limits, None, WallClock::with_offset(0));
    for number in 0..NODES {
        let (name, addresses) = (name(number), vec![address(number).ip()]);
        let secret_sha256 = Some(secret_sha256(SECRET));
        hearing.upsert_node(&NodeFacts { name, addresses, secret_sha256, ..NodeFacts::default() });
    }
    hearing
}

/// Many machines die at once, each in its own words: the `n`th datagram of all, then the next.
fn hear_all(hearing: &mut Hearing, said: &[Vec<Vec<u8>>], told: &mut Vec<Evidence>) {
    let longest = said.iter().map(Vec::len).max().unwrap_or(0);
    for turn in 0..longest {
        let at = Duration::from_secs(1000) + Duration::from_micros(turn as u64 * 100);
        for (number, datagrams) in said.iter().enumerate() {
            let Some(bytes) = datagrams.get(turn) else { continue };
            hearing.hear(Datagram { from: address(number), at, bytes: black_box(bytes) }, told);
        }
    }
}

fn hear(criterion: &mut Criterion) {
    let recording = datagrams(RECORDINGS[0].1);
    let of = |number: usize| {
        let named = |datagram: &&[u8]| {
            let text = String::from_utf8_lossy(datagram);
            text.replace("detector_node=node-a\n", &format!("detector_node={}\n", name(number))).into_bytes()
        };
        recording.iter().map(named).collect::<Vec<_>>()
    };
    let said: Vec<_> = (0..DYING).map(of).collect();
    let (mut first, mut told) = (hearing(), Vec::new());
    hear_all(&mut first, &said, &mut told);
    assert!(told.len() >= DYING, "each of them is told: {}", told.len());
    let mut group = criterion.benchmark_group("controller/hear");
    group.throughput(Throughput::Elements(said.iter().map(|datagrams| datagrams.len() as u64).sum()));
    group.sample_size(20);
    group.bench_function("panics", |bencher| {
        let dying = |mut hearing: Hearing| {
            let mut told = Vec::new();
            hear_all(&mut hearing, &said, &mut told);
            (hearing, told)
        };
        bencher.iter_batched(hearing, dying, BatchSize::LargeInput);
    });
    group.finish();
}

fn configured() -> Criterion {
    Criterion::default().configure_from_args()
}

criterion_group! { name = benches; config = configured(); targets = decode, hear }
criterion_main!(benches);
