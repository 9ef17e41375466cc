//! `detector doctor`: what this machine offers, which method each detector takes, and why not a better one.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::watch;
use crate::{
    agent::{self, options::Detector, sink::page::Page},
    cli::{CliError, print},
    contract::doctor::Report,
    ops::screen::Screen,
};

/// What was typed. Values are texts here, so that all mistakes can be told at once.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Arguments {
    /// Form of the output: `text` for people, `json` for programs
    #[arg(long, value_name = "FORM", default_value = "text")]
    output: String,
    /// Watch for a while and tell what that costs; run times of BPF programs want CAP_SYS_ADMIN
    #[arg(long)]
    live: bool,
    /// How long to watch, such as `10s`, `5m` or `1h`; Ctrl-C ends it early [default: 10s]
    #[arg(long, value_name = "TIME")]
    duration: Option<String>,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Text,
    Json,
}

/// What was typed, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checked {
    output: Output,
    /// How long to watch; `None`: not at all.
    live: Option<Duration>,
}

/// How long `--live` watches unless told otherwise.
const DURATION: Duration = Duration::from_secs(10);

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let Checked { output, live } = arguments.check().map_err(CliError::Usage)?;
    let report = agent::examine(live).map_err(|error| CliError::Other(error.into()))?;
    let text = match output {
        Output::Text => Page::new(Screen::of_standard_output()).render(&report),
        Output::Json => json(&report).map_err(CliError::Other)?,
    };
    print(&text)?;
    verdict(&report)
}

fn json(report: &Report) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(report).context("writing the report as JSON")?;
    text.push('\n');
    Ok(text)
}

/// Fails if a detector has no method, but for one that tells nothing while the machine lives.
fn verdict(report: &Report) -> Result<(), CliError> {
    let tells = |name: &str| Detector::of_name(name).is_ok_and(Detector::tells);
    let blind = report.detectors.iter().filter(|detector| detector.method.is_none() && tells(detector.name));
    let blind: Vec<&str> = blind.map(|detector| detector.name).collect();
    if blind.is_empty() {
        return Ok(());
    }
    Err(CliError::Other(anyhow::anyhow!("no method works on this machine for: {}", blind.join(", "))))
}

impl Arguments {
    /// All values that follow their rules, or all mistakes.
    fn check(&self) -> Result<Checked, Vec<String>> {
        let mut mistakes = Vec::new();
        let output = match self.output.as_str() {
            "text" => Some(Output::Text),
            "json" => Some(Output::Json),
            other => {
                mistakes.push(format!("--output {other}: must be `text` or `json`"));
                None
            }
        };
        let duration = match self.duration.as_deref().map(watch::duration) {
            Some(Ok(duration)) => duration,
            Some(Err(mistake)) => {
                mistakes.push(mistake);
                DURATION
            }
            None => DURATION,
        };
        if let (Some(text), false) = (&self.duration, self.live) {
            mistakes.push(format!("--duration {text}: must come with `--live`"));
        }
        let live = self.live.then_some(duration);
        output.filter(|_| mistakes.is_empty()).map(|output| Checked { output, live }).ok_or(mistakes)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        cli::{Cli, Command},
        contract::doctor::Detector,
    };

    fn checked(arguments: &[&str]) -> Result<Checked, Vec<String>> {
        let line = ["detector", "doctor"].iter().chain(arguments);
        let Command::Doctor(arguments) = Cli::try_parse_from(line).expect("clap takes it").command else {
            panic!("another subcommand")
        };
        arguments.check()
    }

    #[test]
    fn without_arguments_it_asks_once_for_people() {
        assert_eq!(checked(&[]), Ok(Checked { output: Output::Text, live: None }));
    }

    #[test]
    fn live_lasts_ten_seconds_unless_told_otherwise() {
        assert_eq!(checked(&["--live"]).map(|checked| checked.live), Ok(Some(DURATION)));
        let line = ["--live", "--duration", "5m", "--output", "json"];
        assert_eq!(checked(&line), Ok(Checked { output: Output::Json, live: Some(Duration::from_secs(300)) }));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mistakes = checked(&["--output", "xml", "--duration", "5"]).expect_err("three mistakes");
        insta::assert_snapshot!(mistakes.join("\n"), @r"
        --output xml: must be `text` or `json`
        --duration 5: must be a whole number with `s`, `m` or `h` behind it, such as `90s`, from 1s to 10000h
        --duration 5: must come with `--live`
        ");
    }

    #[test]
    fn a_detector_without_a_method_is_a_failure_that_names_it() {
        let detector = |name, method| Detector { name, method, ..Detector::default() };
        let sees = Report { detectors: vec![detector("oom", Some("kmsg"))], ..Report::default() };
        assert!(verdict(&sees).is_ok());
        let blind = Report { detectors: vec![detector("oom", Some("kmsg")), detector("hung_task", None)], ..sees };
        let error = verdict(&blind).expect_err("one is blind");
        assert_eq!(error.exit_code(), 1);
        assert_eq!(error.to_string(), "no method works on this machine for: hung_task");
    }

    #[test]
    fn the_json_is_one_object_with_a_line_end() {
        let text = json(&Report::default()).expect("JSON");
        assert!(text.starts_with("{\n") && text.ends_with("}\n"), "{text}");
    }
}
