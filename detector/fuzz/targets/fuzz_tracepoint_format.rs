//! Any text as the format of a tracepoint: fields or an error, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(format) = detector::agent::source::tracepoint_format::Format::parse(text) {
        std::hint::black_box(format.field("comm").is_some());
    }
});
