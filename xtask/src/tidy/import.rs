//! Who may use what: the order of stages, pure stages, and one home each for aya, the clock and anyhow.

use super::{
    Finding, Source,
    paths::{self, Used},
};

/// Stages of each flow in the order in which data passes them. A stage uses only what stands before it.
const FLOWS: &[(&str, &[&str])] = &[
    ("agent", &["source", "decode", "locate", "problem", "sink"]),
    ("controller", &["source", "decode", "incident", "remediation", "sink"]),
];

/// Values and a time in, values out.
const PURE: &[&str] = &[
    "detector/src/agent/decode/",
    "detector/src/agent/problem/",
    "detector/src/agent/locate/cgroup_path.rs",
    "detector/src/controller/decode/",
    "detector/src/controller/incident/",
    "detector/src/controller/remediation/plan.rs",
    "detector/src/controller/remediation/budget.rs",
    "detector/src/controller/remediation/reason.rs",
];

/// Files in a pure folder that are not pure.
const NOT_PURE: &[&str] = &["detector/src/controller/incident/store.rs"];

const IMPURE: &[&str] = &[
    "tokio",
    "kube",
    "rustix",
    "tracing",
    "log",
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "println!",
    "eprintln!",
];

/// What reads the time.
const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now", "clock_gettime"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let path = source.path.as_str();
    let mut findings = Vec::new();
    for used in paths::used(source) {
        let broken = [stage(path, &used), purity(path, &used), aya(path, &used), clock(path, &used), edge(path, &used)];
        findings.extend(
            broken
                .into_iter()
                .flatten()
                .map(|(rule, why)| Finding::new(rule, path, used.line, format_args!("uses `{}`: {why}", used.shown()))),
        );
    }
    // A path is written at several places of one line more often than not; one finding is enough.
    findings.dedup();
    findings
}

type Broken = Option<(&'static str, String)>;

fn stage(path: &str, used: &Used) -> Broken {
    let mut place = path.strip_prefix("detector/src/")?.split('/');
    let (flow, here) = (place.next()?, place.next()?);
    let (_, stages) = FLOWS.iter().find(|(name, _)| *name == flow)?;
    let [root, other_flow, rest @ ..] = used.segments.as_slice() else { return None };
    if root != "crate" {
        return None;
    }
    if FLOWS.iter().any(|(name, _)| name == other_flow && *name != flow) {
        return Some(("flow", format!("{flow} and {other_flow} do not know each other")));
    }
    let at = |stage: &str| stages.iter().position(|name| *name == stage);
    let there = rest.first()?;
    (other_flow == flow && at(there)? > at(here)?)
        .then(|| ("stage-order", format!("stage {here} stands before {there} and must not know it")))
}

fn purity(path: &str, used: &Used) -> Broken {
    let is_pure = PURE.iter().any(|pure| path.starts_with(pure)) && !NOT_PURE.contains(&path);
    let impure = is_pure && IMPURE.iter().any(|impure| used.is_below(impure));
    impure.then(|| ("purity", "this code is pure: no I/O, no clock, no log, no runtime".to_owned()))
}

fn aya(path: &str, used: &Used) -> Broken {
    // A path of one segment is a function or a variable; an import has two.
    let first = used.segments.first().filter(|_| used.segments.len() > 1);
    let is_aya = first.is_some_and(|first| first == "aya" || first.starts_with("aya_"));
    let at_home = path.starts_with("detector/src/agent/source/") || path.starts_with("detector-ebpf/");
    (is_aya && !at_home).then(|| ("aya", "aya stays in detector/src/agent/source and detector-ebpf".to_owned()))
}

fn clock(path: &str, used: &Used) -> Broken {
    let reads = path.starts_with("detector/src/") && CLOCKS.iter().any(|clock| used.ends_with(clock));
    (reads && path != "detector/src/clock.rs").then(|| ("clock", "only detector/src/clock.rs reads time".to_owned()))
}

/// A library has typed errors and does not end the program.
fn edge(path: &str, used: &Used) -> Broken {
    let inside = ["detector/src/", "detector-common/", "detector-ebpf/"].iter().any(|place| path.starts_with(place));
    let at_edge =
        path == "detector/src/main.rs" || path.starts_with("detector/src/cli/") || path.ends_with("/build.rs");
    let broken = used.is_below("anyhow") || used.is_below("std::process::exit");
    (inside && !at_edge && broken).then(|| ("edge", "only main.rs and cli may".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        check(&Source::parse(path, text).unwrap()).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn a_stage_that_uses_a_later_one_is_found() {
        for text in
            ["use crate::agent::sink::Log;", "use super::super::sink::Log;", "fn f() { crate::agent::sink::log() }"]
        {
            assert_eq!(rules("detector/src/agent/problem/oom.rs", text), ["stage-order"], "{text}");
        }
        assert!(rules("detector/src/agent/problem/oom.rs", "use crate::agent::{decode::X, locate::Y};").is_empty());
        assert!(rules("detector/src/agent/mod.rs", "use crate::agent::sink::Log;").is_empty());
    }

    #[test]
    fn flows_that_know_each_other_are_found() {
        assert_eq!(rules("detector/src/agent/sink/x.rs", "use crate::controller::incident::X;"), ["flow"]);
        assert_eq!(rules("detector/src/controller/mod.rs", "use crate::agent::Input;"), ["flow"]);
        assert!(rules("detector/src/cli/agent.rs", "use crate::{agent, controller};").is_empty());
    }

    #[test]
    fn io_clock_and_log_in_a_pure_stage_are_found() {
        for used in ["std::fs::read", "std::time::Instant", "tokio::spawn", "tracing::info", "std::net::UdpSocket"] {
            assert_eq!(rules("detector/src/agent/decode/oom.rs", &format!("use {used};")), ["purity"], "{used}");
        }
        assert_eq!(rules("detector/src/agent/problem/x.rs", "fn f() { println!(\"x\"); }"), ["purity"]);
        assert!(rules("detector/src/agent/decode/oom.rs", "use std::time::Duration;").is_empty());
        assert!(rules("detector/src/controller/incident/store.rs", "use kube::Client;").is_empty());
    }

    #[test]
    fn aya_outside_of_its_home_is_found() {
        assert_eq!(rules("detector/src/cli/doctor.rs", "use aya::*;"), ["aya"]);
        assert_eq!(rules("detector/src/agent/locate/x.rs", "fn f(x: aya_obj::Object) {}"), ["aya"]);
        assert!(rules("detector/src/agent/source/bpf/ring.rs", "use aya::Ebpf;").is_empty());
    }

    #[test]
    fn reading_time_outside_of_the_clock_is_found() {
        assert_eq!(
            rules("detector/src/agent/mod.rs", "use std::time::Instant;\nfn f() { Instant::now(); }"),
            ["clock"]
        );
        assert_eq!(rules("detector/src/agent/sink/x.rs", "fn f() { rustix::time::clock_gettime(x); }"), ["clock"]);
        assert!(rules("detector/src/clock.rs", "fn f() { std::time::Instant::now(); }").is_empty());
    }

    #[test]
    fn anyhow_and_exit_away_from_the_edge_are_found() {
        assert_eq!(rules("detector/src/agent/state.rs", "use anyhow::Result;"), ["edge"]);
        assert_eq!(rules("detector/src/ops/x.rs", "fn f() { std::process::exit(1) }"), ["edge"]);
        assert!(rules("detector/src/cli/watch.rs", "use anyhow::Result;").is_empty());
        assert!(rules("xtask/src/run.rs", "use anyhow::Result;").is_empty());
    }
}
