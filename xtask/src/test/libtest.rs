//! Runs `cargo test` and counts what it tells.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::Outcome;
use crate::process;

/// Heading of what tests printed that passed.
const SUCCESSES: &str = "successes:";

/// Runs a `cargo test`, shows all but the tests that passed, and counts.
pub(super) fn run(command: &mut Command) -> Result<Outcome> {
    let shown = process::shown(command);
    process::say(format_args!("run `{shown}`"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start cargo test")?;
    let stdout = child.stdout.take().context("read what cargo test tells")?;
    let mut outcome = count(stdout, |line| println!("{line}"));
    let status = child.wait().context("wait for cargo test")?;
    if !status.success() && outcome.failed == 0 {
        println!("`{shown}` ended with {status} without a failed test: it did not compile, or a test took it down");
        outcome.failed = 1;
    }
    Ok(outcome)
}

/// Adds up the result lines of all test programs, and shows those lines that a reader wants.
fn count(told: impl Read, mut show: impl FnMut(&str)) -> Outcome {
    let mut total = Outcome::default();
    let mut passed = false;
    for line in BufReader::new(told).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if let Some(outcome) = result_line(&line) {
            total = total + outcome;
        }
        // Below this heading stands what tests printed that passed (`--show-output`), and below a second one their names.
        passed = line == SUCCESSES || passed && line.starts_with("    ");
        if is_news(&line) && !passed {
            show(&line);
        }
    }
    total
}

/// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn result_line(line: &str) -> Option<Outcome> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        let part = counts.split("; ").find_map(|part| part.strip_suffix(word))?;
        part.trim().parse().ok()
    };
    Some(Outcome { passed: number(" passed")?, failed: number(" failed")?, skipped: number(" ignored")? })
}

fn is_news(line: &str) -> bool {
    let passed = line.starts_with("test ") && line.ends_with(" ... ok");
    let counted = line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test"));
    let empty = line.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored");
    !(passed || counted || empty || line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "\nrunning 2 tests\ntest a::holds ... ok\ntest a::breaks ... FAILED\n\n\
        test result: FAILED. 1 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
        running 1 test\ntest result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s\n";

    #[test]
    fn counts_are_added_over_all_test_programs() {
        let outcome = count(TOLD.as_bytes(), |_| ());
        assert_eq!(outcome, Outcome { passed: 8, failed: 1, skipped: 3 });
    }

    #[test]
    fn a_test_that_passed_is_no_news_and_one_that_failed_is() {
        let mut shown = Vec::new();
        count(TOLD.as_bytes(), |line| shown.push(line.to_owned()));
        assert_eq!(shown[0], "test a::breaks ... FAILED");
        assert_eq!(shown.len(), 3);
    }

    #[test]
    fn what_a_test_that_passed_has_printed_is_shown_and_its_name_is_not_listed_again() {
        let told = "running 1 test\ntest a::holds ... ok\n\nsuccesses:\n\n---- a::holds stdout ----\n5 kills\n\n\n\
            successes:\n    a::holds\n\nfailures:\n    a::breaks\n";
        let mut shown = Vec::new();
        count(told.as_bytes(), |line| shown.push(line.to_owned()));
        assert_eq!(shown, ["---- a::holds stdout ----", "5 kills", "failures:", "    a::breaks"]);
    }

    #[test]
    fn what_a_test_prints_is_not_taken_for_a_result() {
        assert_eq!(result_line("test result: none of your business"), None);
    }
}
