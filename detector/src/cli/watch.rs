//! `detector watch`: prints the OOM kills and hung tasks of this machine as they happen. No cluster, no configuration.

use std::{
    io::{self, BufWriter},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;

use crate::{
    agent::{
        self, Choice, Chosen, Detector, Failure, Method, Sink, WatchOptions,
        sink::{Units, json::Json, terminal::Terminal},
    },
    cli::CliError,
    ops::{capability::Rights, privilege, screen::Screen, standard_output::StandardOutput},
};

/// What was typed. Values are texts here, so that all mistakes can be told at once.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Arguments {
    /// Form of the output: `table` for people, `json` for programs (one object a line)
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: String,
    /// Watch only this kind of happening: `oom`, `hung_task` or `panic`; may be repeated
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// Stop after N kills and hangs
    #[arg(long, value_name = "N")]
    count: Option<String>,
    /// Stop after this time, such as `10s`, `5m` or `1h`
    #[arg(long, value_name = "TIME")]
    duration: Option<String>,
    /// Use this method of a detector and no other, instead of the best that works, such as `oom=raw_tracepoint`; may be
    /// repeated. `detector doctor` lists the methods of this machine
    #[arg(long, value_name = "DETECTOR=METHOD")]
    method: Vec<String>,
    /// Show where in the kernel a task hangs, below its row of the table; JSON always tells it
    #[arg(long)]
    stack: bool,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Table,
    Json,
}

/// What was typed, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checked {
    output: Output,
    stack: bool,
    options: WatchOptions,
}

/// Longest `--duration`: a good year. A bound far from where times overflow.
const MAX_DURATION: Duration = Duration::from_secs(10_000 * 3600);

/// Bytes of rows that wait for the end of their batch at most.
const BUFFER: usize = 64 * 1024;

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let Checked { output, stack, options } = arguments.check().map_err(CliError::Usage)?;
    let rights = Rights::of_this_process().map_err(|error| CliError::Other(error.into()))?;
    let out = StandardOutput::open().context("setting up standard output").map_err(CliError::Other)?;
    let out = BufWriter::with_capacity(BUFFER, out);
    let units = Units::of_this_machine();
    let mut sink: Box<dyn Sink> = match output {
        Output::Table => {
            Box::new(Terminal::new(out, io::stderr(), Screen::of_standard_output(), units).with_stacks(stack))
        }
        Output::Json => Box::new(Json::new(out, units)),
    };
    match agent::watch(options, sink.as_mut()) {
        Ok(_) => Ok(()),
        Err(error) => match error.failure() {
            Failure::OutputClosed => Ok(()),
            Failure::Unavailable => Err(CliError::Unavailable(error.into())),
            // What is missing explains more than what the kernel made of it. Who has all is refused for another reason.
            Failure::Denied => Err(match rights.missing_for_probes() {
                Some(missing) => CliError::Rights(missing.into()),
                None if privilege::losses(rights).next().is_some() => CliError::Rights(error.into()),
                None => CliError::Unavailable(error.into()),
            }),
            Failure::Other => Err(CliError::Other(error.into())),
        },
    }
}

impl Arguments {
    /// All values that follow their rules, or all mistakes.
    fn check(&self) -> Result<Checked, Vec<String>> {
        let mut mistakes = Vec::new();
        let output = match self.output.as_str() {
            "table" => Some(Output::Table),
            "json" => Some(Output::Json),
            other => {
                mistakes.push(format!("--output {other}: must be `table` or `json`"));
                None
            }
        };
        let count = self.count.as_deref().and_then(|text| keep(count(text), &mut mistakes));
        let duration = self.duration.as_deref().and_then(|text| keep(duration(text), &mut mistakes));
        let detectors = self.check_detectors(&mut mistakes);
        match output.filter(|_| mistakes.is_empty()) {
            Some(output) => {
                Ok(Checked { output, stack: self.stack, options: WatchOptions { count, duration, detectors } })
            }
            None => Err(mistakes),
        }
    }

    /// A detector that is named must run; if any is named, the others are off.
    fn check_detectors(&self, mistakes: &mut Vec<String>) -> Chosen {
        let of_name = |name: &String| Detector::of_name(name).map_err(|error| format!("--kind {name}: {error}"));
        let named: Vec<Detector> = self.kind.iter().filter_map(|name| keep(of_name(name), mistakes)).collect();
        let mut chosen = Chosen::default();
        for detector in Detector::ALL.into_iter().filter(|_| !self.kind.is_empty()) {
            let choice = if named.contains(&detector) { Choice::Required } else { Choice::Off };
            *of_mut(&mut chosen, detector) = choice;
        }
        for text in &self.method {
            let Some((detector, method)) = keep(method(text), mistakes) else { continue };
            match chosen.of(detector) {
                Choice::Off => mistakes.push(format!("--method {text}: `--kind` leaves detector `{detector}` out")),
                Choice::Forced(before) if before != method => mistakes.push(format!(
                    "--method {text}: must be given once for `{detector}`, which has `{before}` already"
                )),
                _ => *of_mut(&mut chosen, detector) = Choice::Forced(method),
            }
        }
        chosen
    }
}

fn of_mut(chosen: &mut Chosen, detector: Detector) -> &mut Choice {
    match detector {
        Detector::Oom => &mut chosen.oom,
        Detector::HungTask => &mut chosen.hung_task,
        Detector::Panic => &mut chosen.panic,
    }
}

fn keep<T>(result: Result<T, String>, mistakes: &mut Vec<String>) -> Option<T> {
    result.map_err(|mistake| mistakes.push(mistake)).ok()
}

fn count(text: &str) -> Result<u64, String> {
    whole_number(text)
        .filter(|count| *count > 0)
        .ok_or_else(|| format!("--count {text}: must be a whole number from 1 to {}", u64::MAX))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = [('s', 1), ('m', 60), ('h', 3600)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .and_then(|(number, seconds)| whole_number(number)?.checked_mul(seconds));
    seconds.map(Duration::from_secs).filter(|duration| !duration.is_zero() && *duration <= MAX_DURATION).ok_or_else(|| {
        let hours = MAX_DURATION.as_secs() / 3600;
        format!(
            "--duration {text}: must be a whole number with `s`, `m` or `h` behind it, such as `90s`, from 1s to {hours}h"
        )
    })
}

fn method(text: &str) -> Result<(Detector, Method), String> {
    let mistake = |rule: &dyn std::fmt::Display| format!("--method {text}: {rule}");
    let Some((detector, name)) = text.split_once('=') else {
        return Err(mistake(&"must be DETECTOR=METHOD, such as `oom=fentry`"));
    };
    let detector = Detector::of_name(detector).map_err(|error| mistake(&error))?;
    let method = detector.method_of_name(name).map_err(|error| mistake(&error))?;
    Ok((detector, method))
}

/// Digits only: `FromStr` would take a sign as well.
fn whole_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rstest::rstest;

    use super::*;
    use crate::cli::{Cli, Command};

    fn checked(arguments: &[&str]) -> Result<Checked, Vec<String>> {
        let line = ["detector", "watch"].iter().chain(arguments);
        let Command::Watch(arguments) = Cli::try_parse_from(line).expect("clap takes it").command else {
            panic!("another subcommand")
        };
        arguments.check()
    }

    #[test]
    fn without_arguments_it_watches_for_ever_as_a_table() {
        let options = WatchOptions::default();
        assert_eq!(checked(&[]), Ok(Checked { output: Output::Table, stack: false, options }));
    }

    #[test]
    fn all_arguments_arrive() {
        let line = "--output json --kind oom --kind oom --count 3 --duration 5m --method oom=kprobe --stack";
        let detectors = Chosen { oom: Choice::Forced(Method::Kprobe), hung_task: Choice::Off, panic: Choice::Off };
        let options = WatchOptions { count: Some(3), duration: Some(Duration::from_secs(300)), detectors };
        let arguments: Vec<&str> = line.split(' ').collect();
        assert_eq!(checked(&arguments), Ok(Checked { output: Output::Json, stack: true, options }));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let line = "--output xml --kind hang --count 0 --duration 5 --method oom=magic --method tcp=x --method oom \
                    --method hung_task=kmsg";
        let arguments: Vec<&str> = line.split(' ').collect();
        insta::assert_snapshot!(checked(&arguments).expect_err("eight mistakes").join("\n"), @r"
        --output xml: must be `table` or `json`
        --count 0: must be a whole number from 1 to 18446744073709551615
        --duration 5: must be a whole number with `s`, `m` or `h` behind it, such as `90s`, from 1s to 10000h
        --kind hang: `hang` is no detector: must be `oom`, `hung_task` or `panic`
        --method oom=magic: `magic` is no method of detector `oom`: must be `fentry`, `kprobe`, `raw_tracepoint`, `tracepoint` or `kmsg`
        --method tcp=x: `tcp` is no detector: must be `oom`, `hung_task` or `panic`
        --method oom: must be DETECTOR=METHOD, such as `oom=fentry`
        --method hung_task=kmsg: `--kind` leaves detector `hung_task` out
        ");
    }

    #[test]
    fn two_methods_for_one_detector_are_refused_but_the_same_twice_is_not() {
        assert_eq!(
            checked(&["--method", "oom=fentry", "--method", "oom=kprobe"]),
            Err(vec!["--method oom=kprobe: must be given once for `oom`, which has `fentry` already".to_owned()])
        );
        assert!(checked(&["--method", "oom=fentry", "--method", "oom=fentry"]).is_ok());
    }

    #[rstest]
    #[case("1s", 1)]
    #[case("90s", 90)]
    #[case("5m", 300)]
    #[case("1h", 3600)]
    #[case("10000h", 36_000_000)]
    fn a_time_is_a_number_and_a_unit(#[case] text: &str, #[case] seconds: u64) {
        assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
    }

    #[rstest]
    fn any_other_time_is_refused(
        #[values("", "s", "5", "0s", "-5s", "+5s", "1.5h", "5 m", "5M", "1h30m", "10001h", "18446744073709551615h")]
        text: &str,
    ) {
        let mistake = duration(text).expect_err("not a time");
        assert!(mistake.starts_with(&format!("--duration {text}: must be")), "{mistake}");
    }

    #[rstest]
    fn a_count_is_a_whole_number_from_one(#[values("", "0", "-1", "+1", "1e3", "18446744073709551616")] text: &str) {
        assert!(count(text).is_err());
    }
}
