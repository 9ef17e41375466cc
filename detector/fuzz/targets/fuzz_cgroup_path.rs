//! Any text as a cgroup's path: a place or none, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|path: &str| {
    std::hint::black_box(detector::agent::locate::cgroup_path::parse(path));
});
