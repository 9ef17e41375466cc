//! What recorded panics of real kernels say (`tests/fixtures/netconsole`), whole and with losses.

use std::time::Duration;

use proptest::{collection::vec, prelude::*, sample::Index};
use rstest::rstest;

use super::{
    Findings,
    boot::Boot,
    frame,
    reassemble::{Heard, Stream},
    signature::Note,
};
use crate::contract::incident::Cause;

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/fixtures/netconsole/", $name, ".bin"))
    };
}

const SYSRQ_6_12: &[u8] = recorded!("sysrq-6.12");
const SYSRQ_6_1: &[u8] = recorded!("sysrq-6.1");
const FRAGMENTS: &[u8] = recorded!("init-fragments-6.12");
const OOM: &[u8] = recorded!("oom-6.12");
const BASIC: &[u8] = recorded!("init-basic-6.12");

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

/// What `datagrams` say, and which lines decide.
fn die(datagrams: &[&[u8]]) -> (Boot, Vec<Note>, Stream) {
    let (mut stream, mut heard, mut boot) = (Stream::new(), Vec::new(), Boot::new());
    for (number, bytes) in (0_u64..).zip(datagrams) {
        let at = Duration::from_secs(1000) + Duration::from_micros(number * 20);
        stream.push(frame::parse(bytes).expect("a frame"), at, &mut heard);
    }
    stream.end(&mut heard);
    let mut notes = Vec::new();
    for heard in heard {
        if let Heard::Line(line) = heard {
            notes.push(boot.push(&line));
        }
    }
    (boot, notes, stream)
}

fn task(pid: u32, comm: &str) -> Option<(u32, String)> {
    Some((pid, comm.to_owned()))
}

#[rstest]
#[case::with_release_and_userdata(SYSRQ_6_12, 141, "6.12.117+deb12-cloud-amd64")]
#[case::without_both(SYSRQ_6_1, 85, "6.1.0-56-cloud-amd64")]
fn a_crash_by_request_is_read(#[case] recording: &[u8], #[case] pid: u32, #[case] release: &str) {
    let (boot, notes, stream) = die(&datagrams(recording));
    let expected = Findings {
        panic: Some("sysrq triggered crash".to_owned()),
        signature: Some("sysrq: Trigger a crash".to_owned()),
        cause: Some(Cause::SysRq),
        task: task(pid, "php-fpm"),
        release: Some(release.to_owned()),
        ..Findings::default()
    };
    assert_eq!(boot.findings(), &expected);
    assert_eq!(notes[..4], [Note::Foreign, Note::Foreign, Note::Signature, Note::Panic], "a program said it first");
    assert_eq!((stream.counts().skipped, stream.counts().torn, boot.excerpt().lines_missing()), (0, 0, 0));
    let log = boot.excerpt().text();
    assert!(log.contains("Rebooting in 3 seconds..") && !log.contains("said by a program"), "{log}");
    assert!(!log.contains("detector_secret"), "the secret stays out of the log: {log}");
}

#[rstest]
#[case::fragments(FRAGMENTS)]
#[case::basic(BASIC)]
fn the_end_of_init_is_read(#[case] recording: &[u8]) {
    let (boot, ..) = die(&datagrams(recording));
    let found = boot.findings();
    assert_eq!(found.panic.as_deref(), Some("Attempted to kill init! exitcode=0x00000700"));
    assert_eq!((found.cause, &found.task), (Some(Cause::InitKilled), &task(1, "init")));
    assert_eq!(found.release.as_deref(), Some("6.12.117+deb12-cloud-amd64"));
    assert_eq!(boot.boot_id().map(str::len), (recording == FRAGMENTS).then_some(36));
    assert!(boot.excerpt().text().contains("exit_group") && boot.excerpt().lines_missing() == 0);
}

#[test]
fn a_panic_for_want_of_memory_is_read() {
    let (boot, _, stream) = die(&datagrams(OOM));
    let found = boot.findings();
    assert_eq!(found.cause, Some(Cause::OutOfMemory));
    assert_eq!(found.panic.as_deref(), Some("Out of memory: compulsory panic_on_oom is enabled"));
    assert_eq!(found.task.as_ref().map(|(_, comm)| comm.as_str()), Some("eater"));
    assert_eq!((stream.counts().skipped, boot.excerpt().lines_missing()), (0, 0));
    assert!(boot.excerpt().text().contains("eater invoked oom-killer"), "{}", boot.excerpt().text());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn mixed_up_and_doubled_datagrams_say_the_same(moves in vec((any::<Index>(), any::<Index>()), 0..40)) {
        for recording in [SYSRQ_6_12, FRAGMENTS] {
            let whole = datagrams(recording);
            let mut mixed = whole.clone();
            for (from, to) in &moves {
                let (from, to) = (from.index(mixed.len()), to.index(mixed.len()));
                mixed.swap(from, to);
                mixed.push(whole[from % whole.len()]);
            }
            let (told, ..) = die(&mixed);
            let (expected, ..) = die(&whole);
            prop_assert_eq!(told.findings(), expected.findings());
            prop_assert_eq!(told.excerpt().text(), expected.excerpt().text());
        }
    }

    #[test]
    fn whatever_is_lost_a_panic_that_arrives_is_told(lost in vec(any::<bool>(), 70)) {
        let whole = datagrams(SYSRQ_6_12);
        let rest: Vec<&[u8]> = whole.iter().zip(&lost).filter(|(_, lost)| !**lost).map(|(bytes, _)| *bytes).collect();
        let panic = rest.iter().any(|bytes| bytes.windows(7).any(|window| window == b"sysrq t"));
        let (told, ..) = die(&rest);
        prop_assert_eq!(told.findings().panic.is_some(), panic);
    }
}
