//! Reads what a guest wrote to its serial console.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::vm::command::tail;

/// What the guest said about one case and method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vm) struct Line {
    /// Name of the case.
    pub(in crate::vm) case: String,
    /// Method, or `kernel` for the kernel's own counts.
    pub(in crate::vm) method: String,
    /// What was wrong; `None`: nothing.
    pub(in crate::vm) wrong: Option<String>,
}

/// All that a guest said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vm) struct Verdict {
    /// In its order.
    pub(in crate::vm) lines: Vec<Line>,
    /// What `detector doctor` answered; `None`: it was not asked.
    pub(in crate::vm) doctor: Option<Value>,
}

impl Verdict {
    /// Cases and methods without complaint.
    pub(in crate::vm) fn passed(&self) -> u32 {
        self.lines.len() as u32 - self.failed()
    }

    /// Cases and methods with complaints.
    pub(in crate::vm) fn failed(&self) -> u32 {
        self.lines.iter().filter(|line| line.wrong.is_some()).count() as u32
    }
}

/// Reads a console's text. Without the closing verdict, or with one that does not fit the lines, it is an error.
pub(in crate::vm) fn parse(console: &str) -> Result<Verdict> {
    let end = console.lines().find_map(|line| marked(line, "VERDICT "));
    let end = end.with_context(|| format!("the guest gave no verdict; the end of its console:\n{}", tail(console)))?;
    let count = |key: &str| end.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse::<u32>().ok());
    let lines: Vec<_> = console.lines().filter_map(|line| parse_case(marked(line, "CASE ")?)).collect();
    let doctor = console.lines().find_map(|line| marked(line, "DOCTOR "));
    let doctor = doctor.map(serde_json::from_str).transpose().context("reading what doctor answered in the guest")?;
    let verdict = Verdict { lines, doctor };
    let fits = count("passed=") == Some(verdict.passed()) && count("failed=") == Some(verdict.failed());
    ensure!(fits, "the verdict {end:?} does not fit the {} lines before it", verdict.lines.len());
    ensure!(!verdict.lines.is_empty(), "the guest judged nothing");
    Ok(verdict)
}

/// The rest of a line behind `mark`; the kernel's own messages may stand before it.
fn marked<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.split_once(mark).map(|(_, rest)| rest.trim_end())
}

fn parse_case(text: &str) -> Option<Line> {
    let mut words = text.splitn(4, ' ');
    let (case, method, result) = (words.next()?, words.next()?, words.next()?);
    let wrong = match result {
        "ok" => None,
        "FAIL" => Some(words.next().unwrap_or("without a reason").to_owned()),
        _ => return None,
    };
    Some(Line { case: case.to_owned(), method: method.to_owned(), wrong })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "GUEST kernel 6.1.0\r\nCASE single-child kernel ok\r\n[   12.3] noiseCASE single-child fentry \
                           FAIL kills: 1, not 0\r\nVERDICT passed=1 failed=1\r\n";

    #[test]
    fn cases_are_read_with_their_reasons() {
        let verdict = parse(CONSOLE).expect("parsed");
        assert_eq!((verdict.passed(), verdict.failed()), (1, 1));
        assert_eq!(verdict.lines[1].method, "fentry");
        assert_eq!(verdict.lines[1].wrong.as_deref(), Some("kills: 1, not 0"));
    }

    #[test]
    fn the_answer_of_doctor_is_read_with_the_rest() {
        let told = CONSOLE.replace("VERDICT", "DOCTOR {\"kernel\":\"6.1.0\"}\r\nVERDICT");
        let verdict = parse(&told).expect("parsed");
        assert_eq!(verdict.doctor.expect("an answer")["kernel"], "6.1.0");
        assert_eq!(parse(CONSOLE).expect("parsed").doctor, None);
    }

    #[test]
    fn a_console_without_verdict_is_an_error_that_shows_its_end() {
        let cut = CONSOLE.replace("VERDICT", "");
        let refused = parse(&cut).expect_err("refused").to_string();
        assert!(refused.contains("single-child fentry"), "{refused}");
    }

    #[test]
    fn a_verdict_that_does_not_fit_its_lines_is_an_error() {
        assert!(parse(&CONSOLE.replace("passed=1", "passed=2")).is_err());
        assert!(parse("VERDICT passed=0 failed=0\n").is_err());
    }
}
