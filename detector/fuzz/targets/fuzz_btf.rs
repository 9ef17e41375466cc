//! Any bytes as the kernel's BTF: an answer or an error, never a panic, never without end.

#![no_main]

use detector::agent::source::btf::Btf;
use libfuzzer_sys::fuzz_target;

/// Names of the real kernel, which the seeds have too. The second half is not announced to the reader.
const NAMES: [&str; 12] = [
    "task_struct",
    "signal_struct",
    "mem_cgroup",
    "mm_struct",
    "cgroup_subsys_id",
    "oom_kill_process",
    "pid",
    "css_set",
    "oom_control",
    "btf_trace_mark_victim",
    "memcg_memory_event",
    "",
];

const PATHS: [&[&str]; 7] =
    [&[], &["tgid"], &["numbers", "nr"], &["memory", "max"], &["rss_stat", "count"], &["subsys"], &["mm", "pgd"]];

fuzz_target!(|bytes: &[u8]| {
    let Ok(btf) = Btf::parse(bytes, &NAMES[..6]) else { return };
    for name in NAMES {
        for path in PATHS {
            let (Ok(member), Ok(whole)) = (btf.member(name, path), btf.size_of(name)) else { continue };
            // Elements of a flexible array lie behind the struct.
            let within = member.array.is_some() || member.offset <= whole;
            assert!(within, "{name}: {member:?} lies outside of {whole} bytes");
        }
        for id in [btf.function_id(name), btf.typedef_id(name)].into_iter().flatten() {
            assert!((1..=btf.type_count()).contains(&id));
        }
        std::hint::black_box((btf.prototype_arity(name).ok(), btf.enumerator(name, "memory_cgrp_id").ok()));
    }
});
