//! What `detector doctor` says of this kernel, for the host to compare with what it said before.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{kube::STATE, watcher::DETECTOR};

/// Asks it, and prints its answer in one line.
pub(super) fn ask() -> Result<Vec<String>> {
    // Other cases make it: the answer must not depend on which of them ran.
    fs::create_dir_all(STATE).with_context(|| format!("making {STATE}"))?;
    let output = Command::new(DETECTOR)
        .args(["doctor", "--output", "json"])
        .output()
        .with_context(|| format!("starting {DETECTOR}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "doctor ended with {}: {}", output.status, complaint.trim());
    let answer: Value = serde_json::from_slice(&output.stdout).context("reading the answer of doctor")?;
    println!("DOCTOR {answer}");
    Ok(Vec::new())
}
