//! `detector config`: checks files of settings without starting anything, and prints the default one.

use std::{
    io::{self, Write},
    path::Path,
};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::{
    cli::{CliError, written},
    config::{self, Mistake, Mistakes, table::Table},
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
        /// Files of settings; `-` is standard input
        #[arg(value_name = "FILE", required = true)]
        files: Vec<String>,
        /// Whose files they are
        #[arg(long = "for", value_name = "PROGRAM", value_enum, default_value_t)]
        program: Program,
        /// Form of the output
        #[arg(long, value_name = "FORM", value_enum, default_value_t = Form::Text)]
        output: Form,
    },
    /// Print the file with all defaults, each key with what it does
    Default {
        /// Whose file
        #[arg(long = "for", value_name = "PROGRAM", value_enum, default_value_t)]
        program: Program,
    },
}

/// Subcommands that have a file of settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Program {
    /// `detector agent`
    #[cfg(feature = "agent")]
    #[default]
    Agent,
    /// `detector controller`
    #[cfg(feature = "controller")]
    #[cfg_attr(not(feature = "agent"), default)]
    Controller,
    /// `detector netconsole`
    #[cfg(feature = "agent")]
    Netconsole,
}

impl Program {
    fn default_file(self) -> String {
        match self {
            #[cfg(feature = "agent")]
            Self::Agent => config::agent::default_file(),
            #[cfg(feature = "controller")]
            Self::Controller => config::controller::default_file(),
            #[cfg(feature = "agent")]
            Self::Netconsole => config::netconsole::default_file(),
        }
    }

    /// What is wrong with `file`; `None`: nothing.
    fn mistakes(self, file: &str) -> Option<Mistakes> {
        match self {
            #[cfg(feature = "agent")]
            Self::Agent => mistakes_by(&config::agent::AGENT, file),
            #[cfg(feature = "controller")]
            Self::Controller => mistakes_by(&config::controller::CONTROLLER, file),
            #[cfg(feature = "agent")]
            Self::Netconsole => mistakes_by(&config::netconsole::NETCONSOLE, file),
        }
    }
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
        Command::Check { files, program, output } => check(files, *program, *output, &mut out),
        Command::Default { program } => written(out.write_all(program.default_file().as_bytes())),
    }
}

/// Tells of all files: programs on `out`, people by the lines of the error.
fn check(files: &[String], program: Program, form: Form, out: &mut impl Write) -> Result<(), CliError> {
    if files.iter().filter(|file| *file == INPUT.0).count() > 1 {
        return Err(CliError::Usage(vec!["-: standard input can be read once".to_owned()]));
    }
    let results: Vec<_> = files.iter().map(|file| (file.as_str(), program.mistakes(file))).collect();
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

fn mistakes_by<C: Clone + Default>(table: &Table<C>, file: &str) -> Option<Mistakes> {
    if file == INPUT.0 {
        return table.load_from(INPUT.1, io::stdin().lock()).err();
    }
    table.load(Path::new(file)).err()
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
        check(&paths, Program::default(), Form::Text, &mut out).expect("right");
        assert!(out.is_empty());
    }

    #[test]
    fn mistakes_of_all_files_are_told() {
        let (_dir, paths) = files(&["logs:", "", "a: 1\nb: 2"]);
        let error = check(&paths, Program::default(), Form::Text, &mut Vec::new()).expect_err("mistakes");
        let lines = lines(&error);
        assert_eq!((error.exit_code(), lines.len()), (64, 3));
        assert_eq!(lines[0], format!("{}:1:1: logs: there is no such key: did you mean `log`?", paths[0]));
    }

    #[test]
    fn programs_get_an_object_and_the_code() {
        let (_dir, paths) = files(&["log: {level: loud}", ""]);
        let mut out = Vec::new();
        let error = check(&paths, Program::default(), Form::Json, &mut out).expect_err("mistakes");
        assert_eq!((error.exit_code(), error.to_string().as_str()), (64, ""));
        let report: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(report["files"][0]["mistakes"][0]["line"], 1);
        assert_eq!(report["files"][0]["mistakes"][0]["key"], "log.level");
        assert_eq!((&report["files"][0]["valid"], &report["files"][1]["valid"]), (&false.into(), &true.into()));
    }

    #[test]
    fn a_closed_output_changes_nothing_about_the_verdict() {
        let (_dir, paths) = files(&["log: {level: loud}", ""]);
        assert_eq!(check(&paths, Program::default(), Form::Json, &mut Closed).expect_err("mistakes").exit_code(), 64);
        check(&paths[1..], Program::default(), Form::Json, &mut Closed).expect("right");
    }

    #[test]
    fn standard_input_cannot_be_read_twice() {
        let error = check(&["-".to_owned(), "-".to_owned()], Program::default(), Form::Text, &mut Vec::new())
            .expect_err("wrong");
        assert_eq!((error.exit_code(), error.to_string().as_str()), (64, "-: standard input can be read once"));
    }

    #[cfg(all(feature = "agent", feature = "controller"))]
    #[test]
    fn each_program_has_its_own_keys() {
        let (_dir, paths) = files(&["policy: {mode: act}"]);
        check(&paths, Program::Controller, Form::Text, &mut Vec::new()).expect("right");
        check(&paths, Program::Agent, Form::Text, &mut Vec::new()).expect_err("the agent has no such key");
        for program in [Program::Agent, Program::Controller] {
            let (_dir, paths) = files(&[&program.default_file()]);
            check(&paths, program, Form::Text, &mut Vec::new()).expect("right");
        }
    }
}
