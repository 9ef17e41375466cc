//! How the watcher starts and ends on this machine.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, ensure};
use detector_kernel_tests::{detector, watcher::Watcher};

/// User and group id of `nobody` on Debian.
const NOBODY: u32 = 65534;

#[test]
fn ctrl_c_ends_it_with_a_summary_and_success() -> Result<()> {
    let watcher = Watcher::start(&[])?;
    let method = watcher.started["methods"]["oom"].as_str().unwrap_or_default().to_owned();
    ensure!(["fentry", "kprobe", "raw_tracepoint"].contains(&method.as_str()), "method {method:?}");
    let ended = watcher.stop()?;
    ensure!(ended.status.success(), "ended with {}", ended.status);
    let summary = ended.lines.last().context("no last line")?;
    assert_eq!(summary["type"], "summary", "{summary}");
    assert_eq!(summary["lost"], 0, "{summary}");
    Ok(())
}

#[test]
fn without_rights_it_names_the_missing_capabilities() -> Result<()> {
    let directory = std::env::temp_dir().join("detector-test-nobody");
    std::fs::create_dir_all(&directory)?;
    // The build directory may be closed to others.
    let copy = directory.join("detector");
    std::fs::copy(detector()?, &copy)?;
    std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let output = Command::new(&copy)
        .args(["watch", "--output", "json", "--duration", "5s"])
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .context("starting the watcher as nobody");
    std::fs::remove_dir_all(&directory)?;
    let output = output?;
    ensure!(!output.status.success(), "it claims success");
    let complaint = String::from_utf8_lossy(&output.stderr);
    for capability in ["CAP_BPF", "CAP_PERFMON"] {
        ensure!(complaint.contains(capability), "{capability} is not named in: {complaint}");
    }
    Ok(())
}
