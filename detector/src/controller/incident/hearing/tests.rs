//! Kernels that are heard.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    counts::Levels,
    rig::{
        A, A_TOO, B, BASIC, BOOT, FRAGMENTS, NOBODY, PANIC, Rig, SECRET, SYSRQ, WITHOUT_USERDATA, by_a, datagrams,
        node, record, rig, signed, told_log,
    },
    voice::{SPENT, Voice},
};
use crate::contract::{
    incident::{Cause, Confidence},
    metric::{
        Values,
        controller::{LineKind, METRICS, SenderResult, Telling, VOICES_ENDED, VoiceEnd},
    },
};

#[test]
fn a_panic_is_told_with_its_line_and_again_when_it_is_complete() {
    let mut rig = rig();
    let all = datagrams(SYSRQ);
    let panic = all.iter().position(|bytes| bytes.windows(13).any(|window| window == b"sysrq trigger")).expect("it");
    for bytes in &all[..=panic] {
        rig.hear(A, bytes);
    }
    rig.wait(Duration::from_millis(31));
    let first = rig.told.first().expect("evidence").clone();
    assert_eq!((first.node.as_str(), first.boot_id.as_deref()), ("node-a", Some(BOOT)));
    assert_eq!(rig.findings()[0].1, Confidence::Medium);
    assert_eq!(rig.findings()[0].2.panic.as_deref(), Some("sysrq triggered crash"));
    for bytes in &all[panic + 1..] {
        rig.hear(A, bytes);
    }
    assert_eq!(rig.told.len(), 1, "what follows at once waits");
    rig.wait(Duration::from_secs(60));
    let whys = [Telling::Panic, Telling::Growth, Telling::Last, Telling::Life].map(|why| rig.evidence(why));
    assert_eq!(whys[0], 1);
    assert_eq!((whys[1] + whys[2], whys[3]), (rig.told.len() as u64 - 1, 0));
    let last = rig.told.last().expect("evidence");
    assert_eq!(rig.findings().last().expect("it").2.cause, Some(Cause::SysRq));
    assert_eq!(rig.findings().last().expect("it").2.task, Some((141, "php-fpm".to_owned())));
    assert!(told_log(last).contains("Call Trace:") && told_log(last).len() > told_log(&first).len());
    assert_eq!((last.at, &last.boot_id), (first.at, &first.boot_id), "the time of the panic stays");
}

#[test]
fn nothing_follows_a_panic_that_was_told_to_its_end() {
    let mut rig = rig();
    rig.hear_all(A, SYSRQ);
    rig.wait(Duration::from_secs(5));
    let told = rig.told.len();
    rig.wait(Duration::from_secs(1000));
    assert_eq!(rig.told.len(), told);
    assert_eq!(rig.hearing.levels(), Levels { sources: (1, 0), voices: 0, voice_bytes: 0 });
    assert_eq!(rig.hearing.due(), None);
}

#[test]
fn a_panic_that_was_told_to_its_end_keeps_its_place_but_not_its_lines() {
    let mut rig = rig();
    rig.hear_all(A, SYSRQ);
    rig.wait(Duration::from_secs(5));
    let (told, held) = (rig.told.len(), rig.hearing.levels());
    rig.wait(SPENT);
    let levels = rig.hearing.levels();
    assert_eq!(levels.voices, 1);
    assert!(levels.voice_bytes < held.voice_bytes / 2, "{held:?}, {levels:?}");
    rig.hear_all(A, SYSRQ);
    rig.hear(A, &by_a(9_000_000, "late"));
    rig.wait(Duration::from_secs(5));
    assert_eq!(rig.told.len(), told, "it is no new panic, and no sign of life");
}

#[test]
fn an_address_that_somebody_forged_is_not_deaf_to_its_own_panic() {
    let mut rig = rig();
    rig.hear(B, format!("4,1,1000,-;{PANIC}\n").as_bytes());
    rig.wait(SPENT + Duration::from_secs(5));
    let told = rig.findings().len();
    rig.hear(B, b"6,800,90000000,-;eth0: link up\n");
    rig.wait(Duration::from_secs(5));
    assert_eq!(rig.findings().len(), told);
    rig.hear(B, b"0,801,95000000,-;Kernel panic - not syncing: Out of memory\n");
    rig.wait(Duration::from_millis(200));
    let (node, _, findings) = *rig.findings().last().expect("evidence");
    assert_eq!((node, findings.panic.as_deref()), ("node-b", Some("Out of memory")));
}

#[test]
fn our_own_line_is_told_when_it_comes() {
    let mut rig = rig();
    rig.hear(A, &by_a(1, PANIC));
    rig.wait(Duration::from_millis(50));
    assert!(rig.findings()[0].2.last_words.is_none());
    rig.hear(A, &by_a(2, "detector: last words v1 role=current confidence=high pid=7 pod=shop/cart-0/php comm=php"));
    rig.wait(Duration::from_millis(200));
    assert_eq!(rig.told.len(), 2);
    let words = rig.findings()[1].2.last_words.clone().expect("our line");
    assert_eq!(words.pod, Some(("shop".to_owned(), "cart-0".to_owned(), "php".to_owned())));
}

#[test]
fn a_kernel_that_knows_no_userdata_is_known_by_its_address_and_weak() {
    for recording in [WITHOUT_USERDATA, BASIC] {
        let mut rig = rig();
        rig.hear_all(B, recording);
        rig.wait(Duration::from_secs(5));
        let (node, author, findings) = *rig.findings().last().expect("evidence");
        assert_eq!((node, author), ("node-b", Confidence::Low));
        assert!(findings.panic.is_some());
        assert!(rig.told.iter().all(|evidence| evidence.boot_id.is_none()));
    }
}

#[test]
fn records_that_are_all_in_pieces_are_known_by_the_whole() {
    let mut rig = rig();
    for bytes in datagrams(FRAGMENTS) {
        rig.hear(A, bytes);
        rig.wait(Duration::from_millis(2));
    }
    rig.wait(Duration::from_secs(5));
    assert!(rig.findings().iter().all(|(node, author, _)| (*node, *author) == ("node-a", Confidence::Medium)));
    let (_, _, findings) = *rig.findings().last().expect("evidence");
    assert!(findings.panic.as_deref().is_some_and(|panic| panic.starts_with("Attempted to kill init!")));
    assert!(rig.records(SenderResult::Fragment) > 20, "those that follow a whole one");
    assert!(rig.hearing.self_tests().heard("n1", rig.now));
}

#[test]
fn one_kernel_that_is_heard_twice_says_it_once() {
    let mut rig = rig();
    for bytes in datagrams(SYSRQ) {
        rig.wait(Duration::from_micros(20));
        rig.hear(A, bytes);
        rig.hear(A_TOO, bytes);
        rig.hear(NOBODY, bytes);
    }
    rig.wait(Duration::from_secs(5));
    assert_eq!(rig.evidence(Telling::Panic), 1);
    assert_eq!(rig.hearing.levels().voices, 1);
    let lines = [LineKind::Kernel, LineKind::Foreign, LineKind::SelfTest].map(|kind| rig.lines(kind));
    assert_eq!(lines, [datagrams(SYSRQ).len() as u64 - 2, 1, 1]);
}

#[test]
fn an_unsigned_begin_is_followed_by_what_is_signed() {
    let mut rig = rig();
    rig.hear(A, &record(0, 1, PANIC));
    rig.wait(Duration::from_millis(100));
    rig.hear(A, &by_a(2, PANIC));
    rig.wait(Duration::from_secs(5));
    let authors: Vec<_> = rig.findings().iter().map(|(_, author, _)| *author).collect();
    assert_eq!(authors.first(), Some(&Confidence::Low));
    assert_eq!(authors.last(), Some(&Confidence::Medium));
}

#[test]
fn a_self_test_is_heard_from_the_node_that_it_names() {
    let mut rig = rig();
    let tests = rig.hearing.self_tests().clone();
    rig.hear_all(A, SYSRQ);
    rig.hear(B, &record(12, 1, "detector: netconsole self test node-b b1"));
    rig.hear(B, &record(12, 2, "detector: netconsole self test node-a b2"));
    rig.hear(B, &record(4, 3, "detector: netconsole self test node-b b3"));
    rig.hear(NOBODY, &record(12, 4, "detector: netconsole self test node-b b4"));
    rig.wait(Duration::from_millis(40));
    let heard = ["n1", "b1", "b2", "b3", "b4"].map(|nonce| tests.heard(nonce, rig.now));
    assert_eq!(heard, [true, true, false, false, false]);
    assert_eq!(rig.lines(LineKind::SelfTest), 2);
    rig.hearing.remove_node("node-b");
    assert!(!tests.heard("b1", rig.now));
}

#[test]
fn lines_that_are_no_panic_are_signs_of_life_while_an_incident_is_open() {
    let mut rig = rig();
    let speak = |rig: &mut Rig, from: u64| {
        for sequence in from..from + 100 {
            rig.hear(A, &by_a(sequence, "eth0: link is up"));
            rig.wait(Duration::from_millis(250));
        }
    };
    speak(&mut rig, 1);
    assert_eq!(rig.told, []);
    rig.hearing.set_open("node-a", true);
    rig.wait(Duration::from_secs(20));
    assert_eq!(rig.told, [], "what was heard before the incident is no sign");
    speak(&mut rig, 101);
    assert_eq!(rig.told.len(), 3, "25 seconds");
    assert!(
        rig.findings().iter().all(|(_, author, findings)| *author == Confidence::Medium && findings.panic.is_none())
    );
    assert!(rig.told.iter().all(|evidence| told_log(evidence).is_empty()), "that it spoke is all");
    rig.hearing.set_open("node-a", false);
    speak(&mut rig, 201);
    assert_eq!((rig.told.len() as u64, rig.evidence(Telling::Life)), (3, 3));
}

#[test]
fn what_a_kernel_complains_of_last_is_told_though_it_falls_into_a_pause() {
    let mut rig = rig();
    rig.hearing.set_open("node-a", true);
    rig.hear(A, &by_a(1, "eth0: link is up"));
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.told.len(), 1);
    rig.hear(A, &by_a(2, "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [cc1:911]"));
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.told.len(), 2, "the kernel says nothing more");
    assert!(rig.findings()[1].2.signature.as_deref().is_some_and(|text| text.contains("soft lockup")));
}

#[test]
fn the_next_boot_is_no_sign_of_life_of_the_one_that_panicked() {
    let mut rig = rig();
    rig.hearing.set_open("node-b", true);
    rig.hear_all(B, WITHOUT_USERDATA);
    rig.wait(Duration::from_secs(30));
    let told = rig.told.len();
    rig.hear(B, b"6,1,100,-;Linux version 6.1\n");
    rig.wait(Duration::from_secs(30));
    assert_eq!(rig.told.len(), told);
    rig.hear(B, b"0,2,200,-;Kernel panic - not syncing: again\n");
    rig.wait(Duration::from_secs(30));
    assert_eq!(rig.findings().last().expect("evidence").2.panic.as_deref(), Some("again"));
}

#[test]
fn lines_before_a_panic_are_in_its_log_and_those_of_another_boot_are_not() {
    let mut rig = rig();
    rig.hear(A, &signed(900, "another boot", "node-a", "11111111-cf99-4033-986e-0f3408a2c206", SECRET));
    rig.hear(A, &by_a(1, "BUG: kernel NULL pointer dereference, address: 0000000000000010"));
    rig.wait(Duration::from_millis(40));
    assert_eq!(rig.told, []);
    rig.hear(A, &by_a(2, PANIC));
    let evidence = rig.told.last().expect("evidence");
    assert!(
        told_log(evidence).contains("NULL pointer") && !told_log(evidence).contains("another boot"),
        "{}",
        told_log(evidence)
    );
    assert_eq!(rig.findings()[0].2.cause, Some(Cause::Oops));
}

#[test]
fn an_address_that_goes_to_another_node_begins_anew() {
    let mut rig = rig();
    rig.hear(B, &record(0, 1, PANIC));
    rig.hearing.remove_node("node-b");
    rig.hearing.upsert_node(&node("node-c", &[B], None));
    rig.hear(B, &record(0, 2, "Kernel panic - not syncing: of c"));
    rig.wait(Duration::from_secs(5));
    let told: Vec<_> = rig.findings().iter().map(|(node, _, findings)| (*node, findings.panic.as_deref())).collect();
    assert_eq!(told, [("node-b", Some("Fatal exception")), ("node-c", Some("of c"))]);
    let moved = rig.count(&VOICES_ENDED, VoiceEnd::Moved, VoiceEnd::word);
    assert_eq!(moved, 1);
}

#[test]
fn what_is_pending_is_told_before_the_end() {
    let mut rig = rig();
    rig.hear(A, &by_a(1, PANIC));
    rig.hear(A, &by_a(3, "RIP: 0010:cart_write+0x1/0x2"));
    let now = rig.now;
    rig.hearing.finish(now, &mut rig.told);
    assert_eq!(rig.findings().last().expect("evidence").2.symbol.as_deref(), Some("cart_write"));
    assert_eq!((rig.hearing.levels().voices, rig.hearing.levels().voice_bytes, rig.hearing.due()), (0, 0, None));
}

#[test]
fn each_metric_has_its_samples() {
    let samples = rig().hearing.samples();
    for metric in METRICS {
        let expected = match metric.labels {
            [] => 1,
            [label] => match label.values {
                Values::Words(words) => words.len(),
                _ => 0,
            },
            _ => 0,
        };
        let found = samples.iter().filter(|sample| sample.metric.name == metric.name).count();
        // The socket tells the size of its buffer itself.
        let expected = if metric.name == "detector_receiver_buffer_bytes" { 0 } else { expected };
        assert_eq!(found, expected, "{}", metric.name);
    }
}

#[test]
fn a_voice_without_lines_is_small() {
    assert!(size_of::<Voice>() < 1200, "{}", size_of::<Voice>());
}

/// What the recorded panics say, and what no other line does.
const PANICS: [&[u8]; 2] = [b"not syncing: sysrq triggered crash", b"not syncing: Attempted to kill init!"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In whatever order and with whatever losses a panic arrives: if its line is heard, it is told, as this Node's, and the
    /// last evidence says all that any said.
    #[test]
    fn a_panic_is_told_in_any_order_and_with_any_losses(
        keep in prop::collection::vec((any::<u16>(), 0..10_u8), 27),
        fragments in any::<bool>(),
    ) {
        let mut rig = rig();
        let all = datagrams(if fragments { FRAGMENTS } else { SYSRQ });
        let mut order: Vec<_> = all.iter().zip(keep.iter().cycle()).filter(|(_, (_, loss))| *loss > 0).collect();
        let is_panic = |bytes: &[u8]| {
            PANICS.iter().any(|panic| bytes.windows(panic.len()).any(|window| window == *panic))
        };
        let panicked = order.iter().any(|(bytes, _)| is_panic(bytes));
        order.sort_by_key(|(_, (place, _))| *place);
        for (bytes, (place, _)) in order {
            rig.wait(Duration::from_micros(u64::from(*place) / 64));
            rig.hear(A, bytes);
        }
        rig.wait(Duration::from_secs(5));
        let told = rig.findings();
        prop_assert!(told.iter().all(|(node, _, _)| *node == "node-a"));
        let authors: Vec<_> = told.iter().map(|(_, author, _)| *author).collect();
        prop_assert!(fragments || authors.iter().all(|author| *author == Confidence::Medium), "{:?}", authors);
        prop_assert!(authors.is_sorted(), "{:?}", authors);
        prop_assert!(rig.evidence(Telling::Panic) <= 2);
        prop_assert!(told.is_empty() != panicked, "its line was heard: {}", panicked);
    }
}
