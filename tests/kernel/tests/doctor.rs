//! What `detector doctor` says of this machine, with all rights and with each of them taken away in turn.

use std::{
    process::{Command, Output},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use detector_kernel_tests::detector;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::Value;

/// Includes those that are taken away, or wants more than `watch` does: always taken away together with one of them.
const WIDE: CapabilitySet = CapabilitySet::SYS_ADMIN;

/// Runs `detector doctor --output json` without `dropped`, as root.
fn doctor(words: &'static [&'static str], dropped: CapabilitySet) -> Result<(Output, Value)> {
    let detector = detector()?;
    // The bounding set is a thread's own, cannot be widened again, and bounds what root has after execve(2).
    let run = move || -> Result<Output> {
        for capability in dropped.iter() {
            remove_capability_from_bounding_set(capability).with_context(|| format!("dropping {capability:?}"))?;
        }
        let mut command = Command::new(&detector);
        command.args(["doctor", "--output", "json"]).args(words);
        command.output().with_context(|| format!("running {}", detector.display()))
    };
    let Ok(output) = thread::spawn(run).join() else { bail!("the thread that runs the doctor has panicked") };
    let output = output?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).with_context(|| format!("no report, but: {complaint}"))?;
    Ok((output, report))
}

/// The element of a list that has this name.
fn named<'a>(list: &'a Value, name: &str) -> Result<&'a Value> {
    let found = list.as_array().and_then(|list| list.iter().find(|element| element["name"] == name));
    found.with_context(|| format!("nothing is named {name} in {list}"))
}

fn method<'a>(report: &'a Value, detector: &str, method: &str) -> Result<&'a Value> {
    named(&named(&report["detectors"], detector)?["methods"], method)
}

#[test]
fn with_all_rights_each_method_is_judged_and_the_best_is_taken() -> Result<()> {
    let (output, report) = doctor(&[], CapabilitySet::empty())?;
    ensure!(report["kernel_side"]["state"] == "loaded", "{report}");
    let mut blind = false;
    for detector in report["detectors"].as_array().context("detectors")? {
        let methods = detector["methods"].as_array().context("methods")?;
        let works = methods.iter().find(|method| method["state"] != "refused");
        assert_eq!(detector["method"], works.map_or(Value::Null, |method| method["name"].clone()), "{detector}");
        for method in methods {
            let reason = method["reason"].as_str().unwrap_or("none");
            ensure!((method["state"] == "refused") == (reason != "none"), "{method}");
            ensure!(!["missing_capability", "user_namespace"].contains(&reason), "{method}");
        }
        // The probe on panic tells nothing while the machine lives: without it nobody is blind.
        blind |= works.is_none() && detector["name"] != "panic";
    }
    assert_eq!(output.status.code(), Some(i32::from(blind)));
    Ok(())
}

#[test]
fn the_method_that_it_names_is_the_one_that_the_watcher_takes() -> Result<()> {
    let (_, report) = doctor(&[], CapabilitySet::empty())?;
    let watcher = detector_kernel_tests::watcher::Watcher::start(&[])?;
    for (detector, taken) in watcher.started["methods"].as_object().context("methods")? {
        assert_eq!(named(&report["detectors"], detector)?["method"], *taken, "{detector}");
    }
    Ok(())
}

#[test]
fn each_capability_that_is_taken_away_is_named() -> Result<()> {
    let all = [
        ("CAP_BPF", CapabilitySet::BPF),
        ("CAP_PERFMON", CapabilitySet::PERFMON),
        ("CAP_SYSLOG", CapabilitySet::SYSLOG),
        ("CAP_DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH),
        ("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE),
        ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ];
    for (name, capability) in all {
        let (_, report) = doctor(&[], capability | WIDE)?;
        for (other, _) in all.iter().filter(|(other, _)| *other != "CAP_SYS_ADMIN") {
            let row = named(&report["capabilities"], other)?;
            assert_eq!(row["held"], *other != name, "without {name}: {row}");
        }
        assert_eq!(named(&report["capabilities"], name)?["held"], false, "without {name}");
    }
    Ok(())
}

#[test]
fn without_a_right_to_bpf_the_right_is_blamed_and_not_the_kernel() -> Result<()> {
    for (name, capability) in [("CAP_BPF", CapabilitySet::BPF), ("CAP_PERFMON", CapabilitySet::PERFMON)] {
        let (_, report) = doctor(&[], capability | WIDE)?;
        let side = &report["kernel_side"];
        assert_eq!((&side["state"], &side["reason"]), (&"refused".into(), &"missing_capability".into()), "{side}");
        let remedy = format!("give {name}, or run it as root");
        assert_eq!(side["remedy"], remedy.as_str());
        for rung in ["fentry", "kprobe", "raw_tracepoint"] {
            let rung = method(&report, "oom", rung)?;
            assert_eq!((&rung["reason"], &rung["remedy"]), (&side["reason"], &side["remedy"]), "{rung}");
        }
    }
    Ok(())
}

#[test]
fn without_the_right_to_the_log_only_its_methods_are_refused() -> Result<()> {
    let (_, report) = doctor(&[], CapabilitySet::SYSLOG | WIDE)?;
    let setting = named(&report["settings"], "kernel.dmesg_restrict")?;
    let kmsg = method(&report, "oom", "kmsg")?;
    if setting["value"] == "1" {
        assert_eq!(kmsg["reason"], "missing_capability", "{kmsg}");
        ensure!(kmsg["remedy"].as_str().is_some_and(|remedy| remedy.contains("CAP_SYSLOG")), "{kmsg}");
    } else {
        ensure!(kmsg["state"] != "refused", "{kmsg}");
    }
    ensure!(method(&report, "oom", "raw_tracepoint")?["state"] != "refused", "{report}");
    Ok(())
}

#[test]
fn costs_are_measured_and_who_may_not_count_is_told_why() -> Result<()> {
    const LIVE: &[&str] = &["--live", "--duration", "1s"];
    let (_, report) = doctor(LIVE, CapabilitySet::empty())?;
    let live = &report["live"];
    assert_eq!((&live["counted"], &live["counting_problem"]), (&true.into(), &Value::Null), "{live}");
    named(&live["programs"], "cgroup_mkdir")?;
    ensure!(live["usage"]["resident_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{live}");
    let (_, report) = doctor(LIVE, WIDE)?;
    let problem = report["live"]["counting_problem"].as_str().context("no problem was told")?;
    ensure!(problem.contains("CAP_SYS_ADMIN"), "{problem}");
    Ok(())
}

#[test]
fn a_wrong_command_line_has_its_exit_code() -> Result<()> {
    let output = Command::new(detector()?).args(["doctor", "--duration", "soon"]).output()?;
    assert_eq!(output.status.code(), Some(64));
    Ok(())
}
