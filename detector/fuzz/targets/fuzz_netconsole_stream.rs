//! Any datagrams at any times as the stream of one source: lines within bounds; never a panic, never memory without end.
//!
//! The input is cut into datagrams at each zero byte; the first byte of each is how long after the one before it arrives.

#![no_main]

use std::time::Duration;

use detector::controller::decode::{
    boot::Boot,
    frame,
    reassemble::{Heard, MAX_HELD_BYTES, MAX_REMEMBERED, Stream},
    text::MAX_LINE_BYTES,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut stream, mut heard, mut boot) = (Stream::new(), Vec::new(), Boot::new());
    let mut at = Duration::from_secs(1000);
    let mut lines = 0;
    for datagram in bytes.split(|byte| *byte == 0) {
        let Some((wait, datagram)) = datagram.split_first() else { continue };
        at += Duration::from_millis(u64::from(*wait));
        match frame::parse(datagram) {
            Ok(frame) => stream.push(frame, at, &mut heard),
            Err(_) => stream.flush(at, &mut heard),
        }
        assert!(stream.bytes() <= MAX_HELD_BYTES + 2 * MAX_LINE_BYTES + 32 * MAX_REMEMBERED);
        assert!(stream.due().is_none_or(|due| due > at));
        lines += take(&mut heard, &mut boot);
    }
    stream.end(&mut heard);
    lines += take(&mut heard, &mut boot);
    assert!(stream.counts().lines == lines && stream.due().is_none());
});

fn take(heard: &mut Vec<Heard>, boot: &mut Boot) -> u64 {
    let mut lines = 0;
    for heard in heard.drain(..) {
        match heard {
            Heard::Reboot => *boot = Boot::new(),
            Heard::Line(line) => {
                assert!(line.text.len() <= MAX_LINE_BYTES && !line.text.contains(char::is_control), "{line:?}");
                boot.push(&line);
                lines += 1;
            }
        }
    }
    lines
}
