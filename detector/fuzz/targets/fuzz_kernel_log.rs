//! Any bytes as a record of the kernel's log: an event that stands in the text, none, or an error; never a panic.

#![no_main]

use detector::agent::{
    decode::kernel_log::{self, LogEvent},
    problem::oom_log::{At, OomLog},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    whole(bytes);
    let mut log = OomLog::new(4096, 0);
    for (number, line) in (0_u64..).zip(bytes.split(|byte| *byte == b'\n')) {
        let record = [b"6,1,1,-;".as_slice(), line, b"\n"].concat();
        let line = kernel_log::parse(&record).expect("a prefix as the kernel writes it");
        let Some(event) = line.event() else { continue };
        if let LogEvent::OomHeader(header) = &event {
            let found = |said: &str| line.text.windows(said.len()).any(|window| window == said.as_bytes());
            assert!(found(&header.cgroup) && header.domain.as_deref().is_none_or(found), "{header:?}");
        }
        let time_us = number * 1_000_000;
        for kill in log.push(event, At { sequence: number, time_us, boot_ns: time_us * 1000 }) {
            assert!(kill.mark.stamp.boot_ns <= time_us * 1000);
        }
        std::hint::black_box(log.release(time_us * 1000));
    }
});

fn whole(bytes: &[u8]) {
    if let Ok(line) = kernel_log::parse(bytes) {
        std::hint::black_box(line.event());
    }
}
