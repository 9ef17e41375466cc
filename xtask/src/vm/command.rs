//! Commands of the host, each with what was attempted in its error.

use std::{
    ffi::OsStr,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Lines of a failed command's output that are shown.
const TAIL: usize = 12;

/// Runs `command` quietly and returns what it printed on its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let line = format!("{name} {}", words.join(" "));
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running {line}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{line} ended with {}:\n{}",
        output.status,
        tail(&format!("{printed}{complaint}"))
    );
    Ok(printed)
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
