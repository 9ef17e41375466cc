//! `detector config`: checks files of settings without starting anything, and prints the default one.

use std::{
    io::{self, Write},
    path::Path,
};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::{
    cli::CliError,
    config::{self, Mistake, Mistakes},
};

/// What was typed.
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Tell all mistakes in files of settings; ends with code 64 if there are any
    Check {
        /// Files of `detector agent`; `-` is standard input
        #[arg(value_name = "FILE", required = true)]
        files: Vec<String>,
        /// Form of the output
        #[arg(long, value_name = "FORM", value_enum, default_value_t = Form::Text)]
        output: Form,
    },
    /// Print the file with all defaults, each key with what it does
    Default,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people: mistakes, one a line, on standard error
    Text,
    /// For programs: one object
    Json,
}

/// How standard input is named on the command line, and in mistakes.
const INPUT: (&str, &str) = ("-", "standard input");

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match &arguments.command {
        Command::Check { files, output } => check(files, *output, &mut out),
        Command::Default => written(out.write_all(config::agent::default_file().as_bytes())),
    }
}

/// Who closed the output, as `head` does, has what was wanted.
fn written(result: io::Result<()>) -> Result<(), CliError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Tells of all files: programs on `out`, people by the lines of the error.
fn check(files: &[String], form: Form, out: &mut impl Write) -> Result<(), CliError> {
    if files.iter().filter(|file| *file == INPUT.0).count() > 1 {
        return Err(CliError::Usage(vec!["-: standard input can be read once".to_owned()]));
    }
    let results: Vec<_> = files.iter().map(|file| (file.as_str(), mistakes_of(file))).collect();
    let mistakes = results.iter().filter_map(|(_, mistakes)| mistakes.as_ref());
    let lines = match form {
        Form::Text => mistakes.flat_map(Mistakes::lines).collect(),
        Form::Json => {
            let files = results.iter().map(|(name, mistakes)| FileReport::of(name, mistakes.as_ref())).collect();
            let report = Report { files };
            // A closed output changes nothing about the verdict, which is the code.
            let line = serde_json::to_writer(&mut *out, &report).map_err(io::Error::from);
            written(line.and_then(|()| writeln!(out)))?;
            Vec::new()
        }
    };
    if results.iter().all(|(_, mistakes)| mistakes.is_none()) { Ok(()) } else { Err(CliError::Usage(lines)) }
}

fn mistakes_of(file: &str) -> Option<Mistakes> {
    if file == INPUT.0 {
        return config::load_from(INPUT.1, io::stdin().lock()).err();
    }
    config::load(Path::new(file)).err()
}

#[derive(Debug, Serialize)]
struct Report<'m> {
    files: Vec<FileReport<'m>>,
}

#[derive(Debug, Serialize)]
struct FileReport<'m> {
    file: &'m str,
    valid: bool,
    left_out: usize,
    mistakes: &'m [Mistake],
}

impl<'m> FileReport<'m> {
    fn of(file: &'m str, mistakes: Option<&'m Mistakes>) -> Self {
        let list = mistakes.map(Mistakes::list).unwrap_or_default();
        let count = mistakes.map(Mistakes::count).unwrap_or_default();
        Self { file, valid: mistakes.is_none(), left_out: count - list.len(), mistakes: list }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn files(texts: &[&str]) -> (tempfile::TempDir, Vec<String>) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |(number, text): (usize, &&str)| {
            let path = dir.path().join(format!("{number}.yaml"));
            fs::write(&path, text).expect("a file");
            path.to_str().expect("text").to_owned()
        };
        let paths = texts.iter().enumerate().map(path).collect();
        (dir, paths)
    }

    /// A reader who has gone away.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(error: &CliError) -> Vec<String> {
        error.to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn right_files_are_silent() {
        let (_dir, paths) = files(&["", "log: {level: debug}"]);
        let mut out = Vec::new();
        check(&paths, Form::Text, &mut out).expect("right");
        assert!(out.is_empty());
    }

    #[test]
    fn mistakes_of_all_files_are_told() {
        let (_dir, paths) = files(&["logs:", "", "a: 1\nb: 2"]);
        let error = check(&paths, Form::Text, &mut Vec::new()).expect_err("mistakes");
        let lines = lines(&error);
        assert_eq!((error.exit_code(), lines.len()), (64, 3));
        assert_eq!(lines[0], format!("{}:1:1: logs: there is no such key: did you mean `log`?", paths[0]));
    }

    #[test]
    fn programs_get_an_object_and_the_code() {
        let (_dir, paths) = files(&["log: {level: loud}", ""]);
        let mut out = Vec::new();
        let error = check(&paths, Form::Json, &mut out).expect_err("mistakes");
        assert_eq!((error.exit_code(), error.to_string().as_str()), (64, ""));
        let report: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(report["files"][0]["mistakes"][0]["line"], 1);
        assert_eq!(report["files"][0]["mistakes"][0]["key"], "log.level");
        assert_eq!((&report["files"][0]["valid"], &report["files"][1]["valid"]), (&false.into(), &true.into()));
    }

    #[test]
    fn a_closed_output_changes_nothing_about_the_verdict() {
        let (_dir, paths) = files(&["log: {level: loud}", ""]);
        assert_eq!(check(&paths, Form::Json, &mut Closed).expect_err("mistakes").exit_code(), 64);
        check(&paths[1..], Form::Json, &mut Closed).expect("right");
    }

    #[test]
    fn standard_input_cannot_be_read_twice() {
        let error = check(&["-".to_owned(), "-".to_owned()], Form::Text, &mut Vec::new()).expect_err("wrong");
        assert_eq!((error.exit_code(), error.to_string().as_str()), (64, "-: standard input can be read once"));
    }
}
