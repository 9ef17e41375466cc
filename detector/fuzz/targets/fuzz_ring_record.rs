//! Any bytes as a record from the ring: an event or an error, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|record: &[u8]| {
    std::hint::black_box(detector::agent::decode::decode(record).is_ok());
});
