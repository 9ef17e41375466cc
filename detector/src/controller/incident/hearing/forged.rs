//! Packets that are forged, and floods of them.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    Limits, MAX_BOOTS,
    rig::{
        A, A_TOO, B, BASIC, BOOT, FRAGMENTS, NOBODY, PANIC, SECRET, SYSRQ, WITHOUT_USERDATA, by_a, datagrams, node,
        record, rig, signed, told_log,
    },
    voices::Voices,
};
use crate::{
    config::controller::Netconsole,
    contract::{
        incident::{Cause, Confidence},
        metric::controller::{DatagramResult, FRAMES_REFUSED, FrameFault, LineKind, SenderResult, Telling},
    },
    controller::source::gate::UNKNOWN_SHARE,
};

#[test]
fn a_program_that_writes_a_panic_into_the_log_is_no_kernel() {
    let mut rig = rig();
    let mut bytes = by_a(1, PANIC);
    bytes.splice(0..1, *b"12");
    rig.hear(A, &bytes);
    rig.hear(B, &record(8, 1, PANIC));
    rig.hear(B, &record(15, 2, PANIC));
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.told, []);
    assert_eq!(rig.lines(LineKind::Foreign), 3);
}

#[test]
fn a_packet_of_nobody_is_counted_and_takes_no_memory() {
    let mut rig = rig();
    rig.hear(NOBODY, &record(0, 1, PANIC));
    rig.hear(NOBODY, PANIC.as_bytes());
    rig.hear(NOBODY, &signed(1, PANIC, "node-x", BOOT, SECRET));
    rig.hear(NOBODY, format!("4,1,2,-,ncfrag=0/200;{PANIC}").as_bytes());
    rig.wait(Duration::from_secs(60));
    assert_eq!((&rig.told, rig.hearing.levels().voices), (&Vec::new(), 0));
    assert_eq!(rig.records(SenderResult::Unknown), 4);
}

#[test]
fn a_wrong_secret_falls_back_on_nothing() {
    let mut rig = rig();
    for from in [A, A_TOO, NOBODY] {
        rig.hear(from, &signed(1, PANIC, "node-a", BOOT, "guessed"));
    }
    rig.wait(Duration::from_secs(60));
    assert_eq!((&rig.told, rig.hearing.levels().voices), (&Vec::new(), 0));
    assert_eq!(rig.records(SenderResult::WrongSecret), 3);
}

#[test]
fn nothing_is_from_the_own_node() {
    let mut rig = rig();
    rig.hear("10.0.0.3:6665", &record(0, 1, PANIC));
    rig.hear(NOBODY, &signed(1, PANIC, "node-own", BOOT, SECRET));
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.told, []);
    assert_eq!(rig.records(SenderResult::Own), 2);
}

#[test]
fn an_address_of_two_nodes_is_evidence_of_nothing() {
    let mut rig = rig();
    rig.hearing.upsert_node(&node("node-c", &[B], None));
    rig.hear(B, &record(0, 1, PANIC));
    rig.wait(Duration::from_secs(60));
    assert_eq!((&rig.told, rig.records(SenderResult::Ambiguous)), (&Vec::new(), 1));
}

#[test]
fn a_forged_address_is_weak_evidence_and_no_more_often_than_it_may_be() {
    let mut rig = rig();
    for round in 0..1000_u64 {
        // Each begins anew, as if another boot had panicked.
        rig.wait(Duration::from_millis(10));
        rig.hear(B, &record(0, 1 + round % 2 * 100_000_000, PANIC));
        rig.hear(B, &record(0, 2 + round % 2 * 100_000_000, &format!("{PANIC} {round}")));
    }
    rig.wait(Duration::from_secs(5));
    assert!(rig.findings().iter().all(|(_, author, _)| *author == Confidence::Low));
    assert!(rig.told.iter().all(|evidence| evidence.boot_id.is_none()), "no boot of the forger's choice");
    assert!((1..=52).contains(&rig.told.len()), "{} in 10 seconds", rig.told.len());
}

#[test]
fn what_a_node_signs_is_not_overruled_by_what_comes_unsigned() {
    let mut rig = rig();
    rig.hear(A, &by_a(1, PANIC));
    rig.wait(Duration::from_millis(300));
    for sequence in 0..20 {
        rig.hear(A, &record(0, 500 + sequence, "Kernel panic - not syncing: forged"));
        rig.hear(A_TOO, b"[   99.000000] Kernel panic - not syncing: forged\n");
        rig.wait(Duration::from_millis(300));
    }
    assert!(rig.findings().iter().all(|(_, author, _)| *author == Confidence::Medium));
    assert!(rig.told.iter().all(|evidence| !told_log(evidence).contains("forged")));
    rig.hear(A, &by_a(2, "detector: last words v1 role=current confidence=high pid=7 comm=php"));
    rig.wait(Duration::from_secs(3));
    assert!(rig.findings().last().expect("evidence").2.last_words.is_some(), "and goes on to be heard");
}

#[test]
fn pieces_that_are_forged_into_a_signed_stream_are_not_its_lines() {
    let mut rig = rig();
    rig.hear(A, &by_a(1, "a line"));
    let whole = format!("{PANIC}\n detector_node=node-a\n");
    let (one, two) = whole.split_at(30);
    rig.hear(A, format!("0,2,5002000,-,ncfrag=0/{};{one}", whole.len()).as_bytes());
    rig.hear(A, format!("0,2,5002000,-,ncfrag=30/{};{two}", whole.len()).as_bytes());
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.told, []);
    assert_eq!(rig.lines(LineKind::Unsigned), 1);
}

#[test]
fn a_hundred_thousand_datagrams_of_ten_thousand_sources_drown_out_no_panic() {
    let mut rig = rig();
    let mut panic = datagrams(SYSRQ).into_iter();
    let forged = [
        record(0, 7, PANIC),
        signed(7, PANIC, "node-a", BOOT, "guessed"),
        PANIC.as_bytes().to_vec(),
        format!("0,7,8,-,ncfrag=0/900;{PANIC}").into_bytes(),
    ];
    for number in 0..100_000_u32 {
        rig.now += Duration::from_micros(10);
        let ip = core::net::Ipv4Addr::from_bits(0xcb00_0000 + number % 10_000);
        rig.hear(&format!("{ip}:6665"), &forged[number as usize % forged.len()]);
        if number > 50_000
            && let Some(bytes) = panic.next()
        {
            rig.hear(A, bytes);
        }
        assert!(rig.hearing.levels().voices <= 1 && rig.hearing.levels().voice_bytes < 64 * 1024);
    }
    rig.wait(Duration::from_secs(5));
    assert!(rig.findings().iter().all(|(node, author, _)| (*node, *author) == ("node-a", Confidence::Medium)));
    assert_eq!(rig.findings().last().expect("evidence").2.task, Some((141, "php-fpm".to_owned())));
    let unknown = Limits::from(&Netconsole::default()).sources / UNKNOWN_SHARE as usize;
    assert_eq!(rig.hearing.levels().sources, (1, unknown));
    let all = DatagramResult::ALL.iter().map(|result| rig.datagrams(*result)).sum::<u64>();
    assert_eq!(all, 100_000 + datagrams(SYSRQ).len() as u64, "each is counted once");
    assert!(rig.datagrams(DatagramResult::TableFull) > 50_000);
    assert!(rig.records(SenderResult::Unknown) > 5000 && rig.records(SenderResult::WrongSecret) > 1000);
}

#[test]
fn a_flood_from_a_forged_address_uses_up_that_address_alone() {
    let mut rig = rig();
    for _ in 0..20_000 {
        rig.hear(B, b"\xff\xfe noise");
    }
    rig.hear_all(A, SYSRQ);
    rig.wait(Duration::from_secs(5));
    assert_eq!(rig.findings().last().expect("evidence").2.cause, Some(Cause::SysRq));
    assert!(rig.datagrams(DatagramResult::RateOfSource) > 15_000);
    assert!(rig.hearing.levels().voice_bytes < 300_000);
}

#[test]
fn with_too_many_voices_those_go_first_that_said_nothing() {
    let mut rig = rig();
    rig.hearing.voices = Voices::new(100, 1024 * 1024);
    for number in 0..2000_u32 {
        let name = format!("n{number}");
        let address = format!("{}:6665", core::net::Ipv4Addr::from_bits(0x0b00_0000 + number));
        rig.hearing.upsert_node(&node(&name, &[&address], None));
        let text = if number < 50 { PANIC } else { "a line" };
        rig.hear(&address, &record(0, 1, text));
        rig.wait(Duration::from_millis(1));
        assert!(rig.hearing.levels().voices <= 100);
    }
    rig.wait(Duration::from_secs(5));
    assert_eq!(rig.evidence(Telling::Panic), 50);
    assert!(rig.hearing.voices.len() >= 50, "those that panicked are still there");
}

#[test]
fn a_node_has_a_few_boots_and_no_more() {
    let mut rig = rig();
    for number in 0..50_u64 {
        rig.hear(A, &signed(number, PANIC, "node-a", &format!("{number:08}"), SECRET));
        rig.wait(Duration::from_millis(50));
    }
    assert_eq!(rig.hearing.levels().voices, MAX_BOOTS);
}

#[test]
fn a_frame_that_breaks_the_rules_is_counted_by_what_is_wrong() {
    let mut rig = rig();
    for bytes in [&b""[..], b"99999999999999999999999,1,1,-;x", b"4,1,1,-,ncfrag=9/5;x", b"4,1,1,-,ncfrag=0/99999;x"] {
        rig.hear(A, bytes);
    }
    let frames = &FRAMES_REFUSED;
    let counts = [FrameFault::Empty, FrameFault::Number, FrameFault::Fragment, FrameFault::Excessive]
        .map(|fault| rig.count(frames, fault, FrameFault::word));
    assert_eq!((counts, rig.hearing.levels().voices), ([1; 4], 0));
}

/// A recorded datagram that was cut, mangled, repeated or left out.
#[derive(Clone, Debug)]
struct Mangled {
    which: usize,
    recording: &'static [u8],
    changes: Vec<(usize, u8)>,
    length: u16,
}

fn mangled() -> impl Strategy<Value = Mangled> {
    let recording = prop::sample::select(vec![SYSRQ, FRAGMENTS, FRAGMENTS, FRAGMENTS, BASIC, WITHOUT_USERDATA]);
    let changes = prop::collection::vec((0..1000_usize, any::<u8>()), 0..4);
    (0..200_usize, recording, changes, 0..1100_u16).prop_map(|(which, recording, changes, length)| Mangled {
        which,
        recording,
        changes,
        length,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is made of recorded datagrams by somebody who does not know the secret: no signed evidence, no evidence of
    /// another node, and no more memory than there may be.
    #[test]
    fn cut_and_mangled_fragments_prove_nothing(steps in prop::collection::vec(mangled(), 0..150), from in 0..3_usize) {
        let mut rig = rig();
        rig.hearing.set_open("node-a", true);
        rig.hearing.upsert_node(&node("node-a", &[A, A_TOO], Some("not the recorded one")));
        let from = [A, A_TOO, NOBODY][from];
        for Mangled { which, recording, changes, length } in steps {
            let all = datagrams(recording);
            let mut bytes = all[which % all.len()].to_vec();
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(usize::from(length));
            rig.wait(Duration::from_millis(u64::from(length % 7)));
            rig.hear(from, &bytes);
            prop_assert!(rig.hearing.levels().voice_bytes < 512 * 1024);
        }
        rig.wait(Duration::from_secs(5));
        prop_assert!(rig.findings().iter().all(|(node, author, _)| (*node, *author) == ("node-a", Confidence::Low)));
        prop_assert!(from != NOBODY || rig.told.is_empty());
        rig.wait(Duration::from_secs(1000));
        prop_assert_eq!(rig.hearing.levels().voice_bytes, 0);
    }
}
