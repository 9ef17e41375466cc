//! Runs other programs: says what is done, and on failure names the command and shows what it said.

use std::{
    env,
    fmt::Display,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Lines of a failed command's output that an error shows.
const SHOWN_LINES: usize = 60;

/// Says what is done next. On the error stream, so that the output of `run` stays that of the detector.
pub(crate) fn say(what: impl Display) {
    eprintln!("==> {what}");
}

/// Runs a command whose output the developer sees as it comes.
pub(crate) fn stream(command: &mut Command, attempt: &str) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{attempt}: could not start `{}`", shown(command)))?;
    if !status.success() {
        bail!("{attempt}: `{}` ended with {status}; its output is above", shown(command));
    }
    Ok(())
}

/// Runs a command silently and gives its standard output; on failure the error carries all it said.
pub(crate) fn capture(command: &mut Command, attempt: &str) -> Result<String> {
    let output = output(command, attempt)?;
    if !output.status.success() {
        let said = last_lines(&both_streams(&output), SHOWN_LINES);
        bail!("{attempt}: `{}` ended with {}; it said:\n{said}", shown(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command silently and gives all of it, success or not.
pub(crate) fn output(command: &mut Command, attempt: &str) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("{attempt}: could not start `{}`", shown(command)))
}

/// Runs a long command silently, telling before how long it usually takes and after how long it took.
pub(crate) fn long(command: &mut Command, attempt: &str, usually: &str) -> Result<()> {
    say(format_args!("{attempt} (usually {usually})"));
    let start = Instant::now();
    capture(command, attempt)?;
    say(format_args!("{attempt}: done after {}", seconds(start.elapsed())));
    Ok(())
}

/// Both streams of a finished command, output first.
pub(crate) fn both_streams(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// The command as one would type it, with the variables set for it.
pub(crate) fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(key, value)| {
        let value = value?.to_string_lossy();
        Some(format!("{}={}", key.to_string_lossy(), quoted(&value)))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    variables.chain(words.map(|word| quoted(&word.to_string_lossy()))).collect::<Vec<_>>().join(" ")
}

/// Where a program is in `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// A command that runs with root's rights: itself when we are root, else by sudo.
pub(crate) fn as_root(program: &Path) -> Result<Command> {
    if rustix::process::geteuid().is_root() {
        return Ok(Command::new(program));
    }
    let Some(sudo) = find("sudo") else {
        bail!("run {} as root: this is not root and there is no sudo; run the same command as root", program.display());
    };
    let mut command = Command::new(sudo);
    command.arg("--").arg(program);
    Ok(command)
}

/// A duration in words, such as `34 s` or `2 min 5 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    match whole {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{whole} s"),
        _ => format!("{} min {} s", whole / 60, whole % 60),
    }
}

/// The end of a text, with a note of how much is not shown.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    let start = lines.len().saturating_sub(count);
    let mut shown = lines[start..].join("\n");
    if start > 0 {
        shown.insert_str(0, &format!("({start} lines left out)\n"));
    }
    shown
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_named_with_what_it_said() {
        let error = capture(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]), "fetch it").unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("fetch it: `sh -c 'echo no such thing >&2; exit 3'` ended with exit status: 3"),
            "{text}"
        );
        assert!(text.contains("no such thing\n") || text.ends_with("no such thing"), "{text}");
    }

    #[test]
    fn a_command_that_is_not_there_is_named() {
        let error = capture(&mut Command::new("/nonexistent/tool"), "fetch it").unwrap_err();
        assert!(format!("{error:#}").contains("fetch it: could not start `/nonexistent/tool`"));
    }

    #[test]
    fn long_output_is_cut_at_its_start_and_says_so() {
        let text: String = (0..5).map(|n| format!("line {n}\n")).collect();
        assert_eq!(last_lines(&text, 2), "(3 lines left out)\nline 3\nline 4");
    }

    #[test]
    fn variables_and_odd_words_are_shown_as_one_would_type_them() {
        let mut command = Command::new("cargo");
        command.env("RUSTFLAGS", "-C x").arg("build").arg("it's");
        assert_eq!(shown(&command), r"RUSTFLAGS='-C x' cargo build 'it'\''s'");
    }
}
