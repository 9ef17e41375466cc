//! Any bytes as records that a dead kernel, kdump and wtmp left: dumps, decisive lines and a verdict; never a panic.

#![no_main]

use std::collections::BTreeSet;

use detector::{
    agent::source::previous_boot::{
        judge::{self, Evidence},
        kdump::Crash,
        lines,
        piece::Piece,
        pstore, wtmp,
    },
    clock::WallClock,
    contract::problem::previous_boot::PreviousBoot,
};
use libfuzzer_sys::fuzz_target;

/// Parts that one input is cut into at most, by bytes that no text has.
const PARTS: usize = 16;

/// The clock of the boot that looks, and one that is behind it.
const WALL: WallClock = WallClock::with_offset(1_800_000_000_000_000_000);
const EARLIER: WallClock = WallClock::with_offset(1_799_999_000_000_000_000);

fuzz_target!(|bytes: &[u8]| {
    let booted = WALL.time(0);
    let pieces: Vec<Piece> = bytes.split(|byte| *byte == 0xff).take(PARTS).enumerate().filter_map(piece).collect();
    let given: usize = pieces.iter().map(|piece| piece.text.len()).sum();
    let records = pstore::assemble(pieces);
    assert!(records.dumps.iter().map(|dump| dump.text.len()).sum::<usize>() <= given);

    let text = String::from_utf8_lossy(bytes).into_owned();
    assert!(lines::decisive(&text).len() <= lines::MAX_LINES);
    let crashes = vec![Crash { name: text.chars().take(40).collect(), at: Some(booted), text, digest: 1 }];
    let evidence = Evidence { records, crashes, shutdown: wtmp::last(bytes) };
    for finding in judge::judge(None, &BTreeSet::new(), &evidence, booted) {
        let message = finding.found.message(1024);
        assert!(message.len() <= 1024);
        assert!(PreviousBoot::read(&message).is_some_and(|read| read.end == finding.found.end), "{message}");
    }
});

/// The first line of a part is its name.
fn piece((number, part): (usize, &[u8])) -> Option<Piece> {
    let end = part.iter().position(|byte| *byte == b'\n')?;
    let name = String::from_utf8_lossy(&part[..end]);
    // In the half hour before.
    let changed = EARLIER.time(number as u64 * 1_000_000_000);
    Piece::read(&name, Some(changed), &part[end + 1..])
}
